"""Where stages run: in this process or on Ray, and how far they are."""
