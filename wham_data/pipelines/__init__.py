"""From recordings to shards: readers, decoding, alignment, the stages and what runs them."""
