"""Files sent in parts, checked and kept by their content."""
