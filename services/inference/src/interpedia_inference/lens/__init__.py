"""`POST /v1/lens`: what each layer would predict."""
