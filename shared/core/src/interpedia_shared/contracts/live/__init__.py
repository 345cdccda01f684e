"""Bodies of the live routes: what the gateway checks and documents, and the inference service answers."""
