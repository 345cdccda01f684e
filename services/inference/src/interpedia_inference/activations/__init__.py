"""`POST /v1/activations`: features, whole SAEs and directions on texts, token by token."""
