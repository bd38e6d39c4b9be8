"""Looking at a corpus as it is: what in it is not play, and what is in it twice."""
