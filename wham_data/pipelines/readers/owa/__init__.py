"""Recordings of the open world agents: messages in MCAP, and videos."""
