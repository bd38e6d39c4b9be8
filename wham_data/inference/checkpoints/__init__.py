"""Models on disk: WHAM checkpoints and our own folders, read without executing anything."""
