"""The same POST twice has one effect and one answer."""

from interpedia_ingest.idempotency.service import Answer, Once, OnceKey

__all__ = ["Answer", "Once", "OnceKey"]
