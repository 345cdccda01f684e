"""What is forwarded to the ingest API."""
