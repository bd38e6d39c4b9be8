"""What of the corpus is kept for training, and what is left out of it and why."""
