"""`POST /v1/attribute`: which features of a text push a metric."""
