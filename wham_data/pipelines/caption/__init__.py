"""Captions: clips of a corpus are sent to a vision-language model, and its answers become texts of steps."""
