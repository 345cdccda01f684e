"""Live requests against plain `transformers` and torch on the same machine, by turns."""
