"""Language models: registered by an administrator, loaded and checked once by a worker."""
