"""Commands that tell what is in a corpus, in figures."""
