"""Live requests: checked here, computed by a host that holds the model, joined with what is stored."""
