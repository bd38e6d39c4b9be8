"""Names of keys in recordings, and the buttons of `keyboard_mouse` and `desktop` that they mean."""

from __future__ import annotations

import re
import string
from typing import Final

_SAME: Final = {
    "ctrl": "left_ctrl", "control": "left_ctrl", "shift": "left_shift", "alt": "left_alt",
    "option": "left_alt", "super": "left_super", "win": "left_super", "cmd": "left_super",
    "meta": "left_super", "esc": "escape", "return": "enter", "spacebar": "space",
    "capital": "caps_lock", "capslock": "caps_lock", "prior": "page_up", "next": "page_down",
    "pageup": "page_up", "pagedown": "page_down", "del": "delete", "ins": "insert", "apps": "menu",
    "printscreen": "print_screen", "numlock": "num_lock", "scrolllock": "scroll_lock",
    " ": "space", "`": "grave", "backquote": "grave", "-": "minus", "=": "equal", "equals": "equal",
    "[": "left_bracket", "]": "right_bracket", "\\": "backslash", ";": "semicolon", "'": "quote",
    "apostrophe": "quote", ",": "comma", ".": "period", "dot": "period", "/": "slash",
}  # fmt: skip
_CODES: Final = {
    0x08: "backspace", 0x09: "tab", 0x0D: "enter", 0x10: "left_shift", 0x11: "left_ctrl",
    0x12: "left_alt", 0x13: "pause", 0x14: "caps_lock", 0x1B: "escape", 0x20: "space",
    0x21: "page_up", 0x22: "page_down", 0x23: "end", 0x24: "home", 0x25: "left", 0x26: "up",
    0x27: "right", 0x28: "down", 0x2C: "print_screen", 0x2D: "insert", 0x2E: "delete",
    0x5B: "left_super", 0x5C: "right_super", 0x5D: "menu", 0x6A: "numpad_multiply",
    0x6B: "numpad_add", 0x6D: "numpad_subtract", 0x6E: "numpad_decimal", 0x6F: "numpad_divide",
    0x90: "num_lock", 0x91: "scroll_lock", 0xA0: "left_shift", 0xA1: "right_shift",
    0xA2: "left_ctrl", 0xA3: "right_ctrl", 0xA4: "left_alt", 0xA5: "right_alt",
    0xBA: "semicolon", 0xBB: "equal", 0xBC: "comma", 0xBD: "minus", 0xBE: "period", 0xBF: "slash",
    0xC0: "grave", 0xDB: "left_bracket", 0xDC: "backslash", 0xDD: "right_bracket", 0xDE: "quote",
    **{0x30 + n: str(n) for n in range(10)},
    **{ord(letter): letter.lower() for letter in string.ascii_uppercase},
    **{0x60 + n: f"numpad_{n}" for n in range(10)},
    **{0x6F + n: f"f{n}" for n in range(1, 13)},
}  # fmt: skip
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\w\s]", re.ASCII)
_KNOWN: Final = frozenset(_CODES.values())


def key_named(text: str) -> str | None:
    """The button for the name of a key, in any of the usual spellings; None for an unknown key.

    `w`, `KeyW`, `LeftShift`, `ShiftLeft`, `shift_l`, `Digit1`, `F11`, `UpArrow`, `ArrowUp`.
    """
    if len(text) > 32:
        return None
    if text.lower() in _SAME or len(text) == 1:
        name = _SAME.get(text.lower(), text.lower())
        return f"key_{name}" if name in _KNOWN else None
    words = [word.lower() for word in _WORDS.findall(text)]
    words = [word for word in words if word not in ("key", "arrow", "digit")] or words
    words = [{"l": "left", "r": "right", "control": "ctrl"}.get(word, word) for word in words]
    sides = [word for word in words if word in ("left", "right")]
    if len(words) == 2 and len(sides) == 1:
        words = sides + [_SAME.get(w, w).removeprefix("left_") for w in words if w != sides[0]]
    joined = "".join(words)
    spellings = ("_".join(words), joined, _SAME.get(joined, ""))
    return next((f"key_{name}" for name in spellings if name in _KNOWN), None)


def key_of_code(code: int) -> str | None:
    """The button for a Windows virtual-key code; None for an unknown key."""
    name = _CODES.get(code)
    return f"key_{name}" if name else None
