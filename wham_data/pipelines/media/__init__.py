"""Drawings of steps and actions for people, and the pictures of a corpus as arrays."""
