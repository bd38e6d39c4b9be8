"""Small things that the tests are made of: recordings, corpora, models, servers, faults."""
