"""Search over explanations, tokens and references."""
