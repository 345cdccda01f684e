"""Corpora: uploaded text, tokenised once into contexts of one length."""
