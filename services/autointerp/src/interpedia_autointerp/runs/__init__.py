"""One method at work on some features, with all that is needed to repeat it."""
