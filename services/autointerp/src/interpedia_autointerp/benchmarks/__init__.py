"""Comparing explainers on the same frozen tasks, beside baselines."""
