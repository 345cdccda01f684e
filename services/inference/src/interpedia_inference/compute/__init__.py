"""The one thread that owns torch, and what may be asked of it."""
