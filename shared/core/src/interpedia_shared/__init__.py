"""What all Interpedia services share: schema, contracts, problems, settings, jobs. Never imports torch."""

__version__ = "0.1.0"
