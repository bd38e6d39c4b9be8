"""The card of a corpus: README.md and croissant.json, made from its numbers."""
