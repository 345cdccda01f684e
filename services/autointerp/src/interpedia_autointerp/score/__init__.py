"""Scoring explanations as a job."""
