"""Interpedia's inference service."""
