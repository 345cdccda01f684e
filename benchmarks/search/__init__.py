"""Searching 294,912 explanations: how long it takes, and whether the right ones are found."""
