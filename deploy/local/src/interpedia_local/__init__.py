"""Everything that runs Interpedia on one machine, and nothing a cluster needs."""
