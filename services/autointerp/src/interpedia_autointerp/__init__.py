"""Interpedia's autointerp service."""
