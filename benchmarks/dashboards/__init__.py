"""Building dashboards: ours against SAEDashboard, and our forward pass against plain `transformers`."""
