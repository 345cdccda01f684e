"""The start page and the API docs, for browsers."""
