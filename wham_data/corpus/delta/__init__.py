"""A Delta Lake table on disk or on an object store: its log, its data files, its commits."""
