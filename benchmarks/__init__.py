"""Every speed and size claim as a command, with peers side by side."""
