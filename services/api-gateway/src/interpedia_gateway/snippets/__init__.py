"""Python that reproduces a number of a dashboard."""
