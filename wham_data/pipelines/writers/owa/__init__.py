"""The writer of recordings as Open World Agents keep them: messages in MCAP, and videos."""
