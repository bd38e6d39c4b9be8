"""Recordings of real engines, played by seeded players: `video-log` files that `ingest` reads.

engine    the protocol of an engine, and the actions that a player has in it
engines/  the engines
policies  players: they choose the actions and how long each lasts
recorder  records one game
run       records many games, several at once
report    the progress and the result of a run
"""
