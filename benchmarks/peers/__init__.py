"""Jobs that run in a peer's own environment, and what that environment holds."""
