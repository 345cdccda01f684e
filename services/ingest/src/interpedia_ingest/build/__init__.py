"""Builds of dashboards: what a job consists of, and the tasks that carry it out."""
