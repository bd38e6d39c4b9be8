"""`wham-data filter | duplicates`: what of a corpus is play, and once only."""
