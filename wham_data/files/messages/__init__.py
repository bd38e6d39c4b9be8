"""Forms in which programs send messages to one another, read as untrusted bytes."""
