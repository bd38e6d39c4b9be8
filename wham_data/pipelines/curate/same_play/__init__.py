"""The same play in two recordings: re-encoded, cut or overlapping."""
