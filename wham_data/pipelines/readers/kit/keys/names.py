"""Names of keys in recordings, and the buttons of `keyboard_mouse` and `desktop` that they mean."""

from __future__ import annotations

import re
import string
from typing import Final

from wham_data.pipelines.readers.kit.keys.spellings import (
    MICE,
    OTHER_KEYS,
    PREFIX,
    SPELLINGS,
    US_SHIFTED,
)

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
    "altgr": "right_alt", "altgraph": "right_alt",
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
_CONTROL: Final = re.compile(r"\\x(0[1-9a-f]|1[0-9a])", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"[1-9]\d{1,9}|0x[\da-f]{1,8}|<[1-9]\d{0,9}>", re.ASCII | re.IGNORECASE)
_MOUSE: Final = re.compile(r"btn_|button\.|sdl_button_|key\.mouse\.", re.ASCII | re.IGNORECASE)
_PARTS: Final = re.compile(r"[\s_.\-]+(?=.)")
_KNOWN: Final = frozenset(_CODES.values())
_CODE_OF: Final = {f"key_{name}": code for code, name in sorted(_CODES.items())}
"""The code of the left Shift is that of its own (0xA0), not that of either (0x10)."""


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


def key_in_log(text: str) -> str | None:
    """The button that a key log means; None for an unknown key.

    Besides the names of `key_named`: pynput's (`Key.space`, `'w'`, `<87>`, `'\\x17'` for W beside
    Ctrl, `Button.left`), those of `SPELLINGS` (`KEY_LEFTSHIFT`, `VK_LSHIFT`, `LShiftKey`, `Alpha1`,
    `LeftMouseButton`), the signs of US_SHIFTED, and Windows virtual-key codes of two digits or more
    (`87`, `0x57`).
    """
    text = _unquoted(text).replace("\\\\", "\\")
    control = _CONTROL.fullmatch(text)
    if control is not None:
        return f"key_{chr(int(control[1], 16) + 96)}"
    if is_key_code(text):
        return key_of_code(int(text.strip("<>"), 0))
    if len(text) > 64:
        return None
    bare = _bare(text)
    if _MOUSE.match(text):
        return MICE.get(bare)
    if text.upper() == "VK_MENU":
        return "key_left_alt"
    name = SPELLINGS.get(bare)
    if name is not None and (len(bare) > 1 or len(text) == 1 or PREFIX.match(text)):
        return name if name.startswith("mouse_") else f"key_{name}"
    return key_named(US_SHIFTED.get(text, text).removeprefix("Key.").removeprefix("keyboard."))


def is_other_key(text: str) -> bool:
    """Whether this names a key that no space has, or a sign of another layout: `Key.media_next`, `\u00e4`."""
    text = _unquoted(text)
    return len(text) == 1 or bool(OTHER_KEYS.fullmatch(_bare(text[:64])))


def is_sign(text: str) -> bool:
    """Whether this is what a key writes, which Shift changes: `1`, `'!'`, `w`, `\u00e4`."""
    return len(_unquoted(text)) == 1


def _unquoted(text: str) -> str:
    quoted = len(text) >= 3 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def _bare(text: str) -> str:
    """A name in lower case, without its prefix and what stands between its words."""
    return _PARTS.sub("", PREFIX.sub("", text, count=1).lower())


def is_key_code(text: str) -> bool:
    """Whether a control is called by a number: 87, 0x57, <87>. One digit is the key of that digit."""
    return bool(_NUMBER.fullmatch(text))


def code_of_key(button: str) -> int:
    """The Windows virtual-key code of a button `key_...`; of the left and right one, if there are two."""
    return _CODE_OF[button]


def key_of_code(code: int) -> str | None:
    """The button for a Windows virtual-key code; None for an unknown key."""
    name = _CODES.get(code)
    return f"key_{name}" if name else None
