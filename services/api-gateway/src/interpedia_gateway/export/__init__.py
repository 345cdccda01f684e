"""All features of an SAE as one stream."""
