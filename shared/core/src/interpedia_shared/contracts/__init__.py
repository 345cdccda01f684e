"""Bodies that several services exchange; each is defined once, here."""
