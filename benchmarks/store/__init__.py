"""Storing dashboards: our schema against a row per example, and how fast a reader gets them."""
