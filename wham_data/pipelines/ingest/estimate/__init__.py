"""What an ingest will take, estimated from a sample, and compared with what it took."""
