"""`POST /v1/activations/top`: the features that a text lights up, over one or many SAEs."""
