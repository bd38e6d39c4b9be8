"""Videos with a log beside them: the metadata, the log, the clock."""
