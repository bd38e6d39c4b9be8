"""Recordings as a person looks at them: explained, and drawn with their actions. Nothing is ingested."""
