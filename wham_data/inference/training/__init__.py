"""Training of tokenizers and world models, and the figures that judge them."""
