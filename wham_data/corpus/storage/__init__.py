"""Where a corpus lies: local folders and object stores behind one contract."""
