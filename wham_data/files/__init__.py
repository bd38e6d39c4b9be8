"""Containers from strangers, each opened within limits, and nothing in them executed."""
