"""What features are said to do, and how well that holds."""
