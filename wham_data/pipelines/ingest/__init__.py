"""Recordings become a corpus: plan, stages, the decoder process, the report."""
