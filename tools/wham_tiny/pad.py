"""The state of the virtual pad, with the names of the action space `xinput`."""

from __future__ import annotations

BUTTONS = (
    "up",
    "down",
    "left",
    "right",
    "start",
    "back",
    "left_thumb",
    "right_thumb",
    "left_shoulder",
    "right_shoulder",
    "guide",
    "a",
    "b",
    "x",
    "y",
)
TRIGGERS = ("left_trigger", "right_trigger")
AXES = ("left_x", "left_y", "right_x", "right_y")
DIMENSIONS = BUTTONS + TRIGGERS + AXES

Pad = dict[str, float]
"""Buttons 0 or 1, triggers 0 to 1, axes -1 to 1 with +y up."""
