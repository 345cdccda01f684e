"""Explaining features as a job."""
