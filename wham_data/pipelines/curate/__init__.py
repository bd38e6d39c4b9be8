"""Curation: what recordings and corpora show when they are measured."""
