"""Movies of emulators: the buttons of a play, from which its pictures are made again."""
