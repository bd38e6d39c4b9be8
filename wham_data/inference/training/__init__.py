"""Training of tokenizers and world models, and what they are judged by."""
