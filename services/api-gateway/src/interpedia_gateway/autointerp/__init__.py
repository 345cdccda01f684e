"""What is forwarded to the autointerp API."""
