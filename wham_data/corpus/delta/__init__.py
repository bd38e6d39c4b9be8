"""The files of a Delta Lake table, read without the `deltalake` package."""
