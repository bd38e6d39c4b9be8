"""Texts that models write about the steps of a corpus: answers as they come, and their way into shards."""
