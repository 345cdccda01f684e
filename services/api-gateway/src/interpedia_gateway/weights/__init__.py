"""SAEs' files, to download."""
