"""The methods there are, and the refusal of those that cannot run."""
