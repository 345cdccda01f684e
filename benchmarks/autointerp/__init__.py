"""Explainers and scorers beside their baselines, on frozen material; calls kept in flight; puzzles."""
