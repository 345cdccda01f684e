"""Trying to refute what is said of a feature, with texts that are run on it."""
