"""The registry of hosts, and what this one says of itself."""
