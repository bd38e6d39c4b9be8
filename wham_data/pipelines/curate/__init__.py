"""Jobs that measure recordings and describe corpora."""
