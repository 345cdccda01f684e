"""Lists and dashboards of features."""
