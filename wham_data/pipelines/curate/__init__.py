"""Curation: what recordings show, measured from their pictures and logs."""
