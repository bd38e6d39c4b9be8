"""The video of a recording, where it is in several files.

sessions  a recorder that splits: which files, in which order, and when each starts (pure functions)
dash      the playlist and the chunks of a game launcher
clips     finds them, and opens the video of any recording on one clock
"""
