"""`POST /v1/tokenize`: the tokens of a text or a chat, without running the model."""
