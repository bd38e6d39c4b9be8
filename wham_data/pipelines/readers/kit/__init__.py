"""What readers share: options, open recordings, declared actions, scaling."""
