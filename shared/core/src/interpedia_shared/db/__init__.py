"""The one schema: tables, sessions, migrations."""
