"""Words that logs use: for a button that is down or up, and for the columns of a log of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wham_data.schemas.errors import printable

DOWN: Final = (
    "press", "pressed", "down", "keydown", "key_down", "buttondown", "button_down", "held", "on",
    "yes", "keypress", "key_press", "on_press", "button_press", "mousedown", "mouse_down",
    "repeat", "hold",
)  # fmt: skip
UP: Final = (
    "release", "released", "up", "keyup", "key_up", "buttonup", "button_up", "off", "no",
    "keyrelease", "key_release", "on_release", "button_release", "mouseup", "mouse_up",
)  # fmt: skip
BUTTON_WORDS: Final = dict.fromkeys(DOWN, 1.0) | dict.fromkeys(UP, 0.0)

KEY_COLUMNS: Final = (
    "code", "key", "vk", "vk_code", "keycode", "key_code", "key_name", "scancode", "scan_code",
)  # fmt: skip
VERB_COLUMNS: Final = (
    "event", "action", "type", "event_type", "eventtype", "state", "pressed", "is_pressed", "down",
    "is_down", "value",
)  # fmt: skip


def named_like(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that has the first of these names, in any case, nested or not; None if none has.

    Two of one name are none.
    """
    for name in names:
        found = [column for column in columns if column.rpartition(".")[2].strip().lower() == name]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def listed(names: Sequence[str]) -> str:
    """At most eight names, none too long."""
    shown = [printable(name[:60]) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
