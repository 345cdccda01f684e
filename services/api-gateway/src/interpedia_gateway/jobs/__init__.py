"""Long work: progress, events, cancel, retry."""
