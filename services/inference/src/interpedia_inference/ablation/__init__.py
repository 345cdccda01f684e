"""`POST /v1/ablate`: what a text loses when features are taken out."""
