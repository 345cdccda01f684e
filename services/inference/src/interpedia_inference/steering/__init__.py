"""`POST /v1/steer`: generate with and without interventions, at once or as a stream."""
