"""Containers of strangers, each opened within limits. Nothing in them is executed."""
