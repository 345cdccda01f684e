"""Prompt-template search: `GET /v1/prompt-templates`, the check of `POST /v1/prompt-search`, and its job."""
