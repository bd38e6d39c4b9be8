"""Tokenizers, and on them world models. Only here is torch imported, and only when used."""
