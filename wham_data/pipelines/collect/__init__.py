"""Recordings of real engines, played by seeded players: `video-log` files that `ingest` reads.

engine    what an engine must be able to do, and what hands can do in it
engines/  those that there are
policies  players: which action, and for how long
recorder  one game, recorded
run       many, side by side
report    how far a run is, and what came of it
"""
