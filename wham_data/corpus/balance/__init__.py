"""How evenly a corpus is spread over controls, games, maps and players, and weights that even it out."""
