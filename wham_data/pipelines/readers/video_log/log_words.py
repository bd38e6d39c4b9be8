"""Words for a button that is down or up, in place of 1 and 0."""

from __future__ import annotations

from typing import Final

DOWN: Final = (
    "press", "pressed", "down", "keydown", "key_down", "buttondown", "button_down", "held", "on",
    "yes",
)  # fmt: skip
UP: Final = (
    "release", "released", "up", "keyup", "key_up", "buttonup", "button_up", "off", "no",
)  # fmt: skip
BUTTON_WORDS: Final = dict.fromkeys(DOWN, 1.0) | dict.fromkeys(UP, 0.0)
