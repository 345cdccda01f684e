"""Models, SAEs, releases and corpora."""
