"""Inputs on their way into a run: found, identified, sorted, and handed on while more are searched."""
