"""Keys: what logs of many programs call them, and how a log of keys is understood."""
