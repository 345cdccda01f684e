"""The public API: reads Postgres, forwards what it does not do itself. No torch."""
