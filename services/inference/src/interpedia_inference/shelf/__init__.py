"""What is loaded: the host's one model, and SAEs on demand within a budget of bytes."""
