"""Files of others on object stores, read as if they were on this disk."""
