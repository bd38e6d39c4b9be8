"""What operating systems, engines and libraries call the keys: tables only, read by `names`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

PREFIX: Final = re.compile(
    r"(?:e?keys?::|key\.keyboard\.|key\.mouse\.|glfw_key_|glfw_|sdl_scancode_|sdl_button_|sdlk_|qt\.key_|"
    r"keys\.|keycode\.|scancode\.|keyboard\.|key\.|key_|vk_|vc_|dik_|xk_|btn_|button\.|k_)(?=.)",
    re.ASCII | re.IGNORECASE,
)
"""evdev KEY_ and BTN_, Windows VK_, DirectInput DIK_, SDL and pygame, GLFW, Qt, X11, .NET, Unity, Java."""

_SIDES: Final = {
    "shift": "shift shiftkey",
    "ctrl": "ctrl control ctl controlkey",
    "alt": "alt altkey option opt",
    "super": "super meta win windows gui cmd command os apple",
}
_KEYS: Final = {
    "left_alt": "lmenu leftmenu altmenu",
    "right_alt": "rmenu rightmenu altgr altgraph isolevel3shift",
    "menu": "menu apps appskey application contextmenu compose",
    "space": "space spacebar spacekey",
    "enter": "enter return kpenter keypadenter numpadenter padenter ret",
    "escape": "escape esc", "backspace": "backspace back bs bksp", "tab": "tab",
    "caps_lock": "capslock capital caps", "num_lock": "numlock numlk numlockclear",
    "scroll_lock": "scrolllock scroll", "pause": "pause break ctrlbreak pausebreak",
    "print_screen": "printscreen print prtsc prtscn snapshot sysrq sysreq",
    "page_up": "pageup pgup prior pagedownup", "page_down": "pagedown pgdn pgdown next",
    "insert": "insert ins", "delete": "delete del forwarddelete", "home": "home", "end": "end",
    "up": "up uparrow arrowup", "down": "down downarrow arrowdown",
    "left": "left leftarrow arrowleft", "right": "right rightarrow arrowright",
    "minus": "minus hyphen dash oemminus", "equal": "equal equals oemplus",
    "left_bracket": "leftbracket lbracket openbracket bracketleft leftbrace oem4 oemopenbrackets",
    "right_bracket": "rightbracket rbracket closebracket bracketright rightbrace oem6 oemclosebrackets",
    "backslash": "backslash oem5 oempipe", "semicolon": "semicolon oem1 oemsemicolon",
    "quote": "quote apostrophe oem7 oemquotes", "comma": "comma oemcomma",
    "period": "period dot oemperiod fullstop", "slash": "slash oem2 oemquestion",
    "grave": "grave graveaccent backquote backtick tilde quoteleft oem3 oemtilde",
    "mouse_left": "lbutton mouseleft leftmouse leftmousebutton mousebuttonleft lmb leftbutton leftclick",
    "mouse_right": "rbutton mouseright rightmouse rightmousebutton mousebuttonright rmb rightbutton "
    "rightclick",
    "mouse_middle": "mbutton mousemiddle middlemouse middlemousebutton mousebuttonmiddle mmb "
    "middlebutton middleclick",
    "mouse_back": "xbutton1 thumbmousebutton mouseback",
    "mouse_forward": "xbutton2 thumbmousebutton2 mouseforward",
}  # fmt: skip
_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PADS: Final = ("numpad", "kp", "keypad", "num")
_PAD_KEYS: Final = {
    "add": "add plus +", "subtract": "subtract sub minus -", "multiply": "multiply mult asterisk *",
    "divide": "divide div slash /", "decimal": "decimal dot period delete .",
}  # fmt: skip


def _spellings() -> Iterator[tuple[str, str]]:
    """Spelling -> name, the plain ones last, so that they count."""
    for base, words in _SIDES.items():
        for word in words.split():
            for side in ("left", "right"):
                for mark in (side, side[0]):
                    yield f"{mark}{word}", f"{side}_{base}"
                    yield f"{word}{mark}", f"{side}_{base}"
            yield word, f"left_{base}"
    for pad in _PADS:
        for digit, word in enumerate(_DIGITS):
            yield f"{pad}{digit}", f"numpad_{digit}"
            yield f"{pad}{word}", f"numpad_{digit}"
        for name, words in _PAD_KEYS.items():
            for word in words.split():
                if pad + word != "numdelete":
                    yield f"{pad}{word}", f"numpad_{name}"
    for name in ("add", "subtract", "multiply", "divide", "decimal"):
        yield name, f"numpad_{name}"
    for digit, word in enumerate(_DIGITS):
        for spelling in (str(digit), f"alpha{digit}", f"d{digit}", f"digit{digit}", word):
            yield spelling, str(digit)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        yield letter, letter
    for number in range(1, 13):
        yield f"f{number}", f"f{number}"
    for name, words in _KEYS.items():
        yield from ((word, name) for word in words.split())


SPELLINGS: Final = dict(_spellings())
"""Letters, digits and signs of a name in lower case, without its prefix -> the key."""
MICE: Final = {
    **dict.fromkeys(("left", "mouse"), "mouse_left"), "right": "mouse_right",
    "middle": "mouse_middle",
    **dict.fromkeys(("back", "side", "x1", "button8"), "mouse_back"),
    **dict.fromkeys(("forward", "extra", "x2", "button9"), "mouse_forward"),
}  # fmt: skip
"""What follows BTN_, Button., SDL_BUTTON_ or key.mouse."""
FROM_0: Final = dict(
    enumerate(("mouse_left", "mouse_right", "mouse_middle", "mouse_back", "mouse_forward"))
)
"""Mouse0, Mouse1, ... as Unity counts; where there is no Mouse0, others count from 1."""
US_SHIFTED: Final = dict(zip('!@#$%^&*()_+{}|:"<>?~', "1234567890-=[]\\;',./`", strict=True))
"""The signs that Shift makes on a US keyboard -> the sign on the key."""
OTHER_KEYS: Final = re.compile(
    r"f1[3-9]|f2[0-4]|none|null|undefined|unknown|unidentified|dead.*|process|fn|fnlock|sleep|power|wake(?:up)?|"
    r"(?:media|volume|audio|brightness|browser|launch|kbdillum|microphone|mic).*|.*mute|nextsong|previoussong|"
    r"playpause|stopcd|mail|calc|calculator|help|clear|eject|"
    r"102nd|oem102|oembackslash|intl\w*|international\d|lang\d|"
    r"(?:kp|keypad|numpad)(?:equals?|comma|clear|=)|"
    r"kana\w*|kanji\w*|hangul|hangulmode|hanja|hanjamode|ime\w*|(?:non)?convert|henkan|muhenkan|ro|yen|"
    r"katakana\w*|hiragana|zenkakuhankaku",
    re.ASCII,
)
"""Keys that no space has, by the same letters: media and volume, Fn, F13 and on, those of East Asia."""

_SCANCODES: Final = {
    57: "caps_lock", 70: "print_screen", 71: "scroll_lock", 72: "pause", 73: "insert", 74: "home",
    75: "page_up", 76: "delete", 77: "end", 78: "page_down", 79: "right", 80: "left", 81: "down",
    82: "up", 83: "num_lock", 84: "numpad_divide", 85: "numpad_multiply", 86: "numpad_subtract",
    87: "numpad_add", 88: "enter", 98: "numpad_0", 99: "numpad_decimal", 101: "menu",
    224: "left_ctrl", 225: "left_shift", 226: "left_alt", 227: "left_super", 228: "right_ctrl",
    229: "right_shift", 230: "right_alt", 231: "right_super",
    **{57 + number: f"f{number}" for number in range(1, 13)},
    **{88 + digit: f"numpad_{digit}" for digit in range(1, 10)},
}  # fmt: skip
_SIGNS: Final = {
    8: "backspace", 9: "tab", 13: "enter", 27: "escape", 32: "space", 39: "quote", 44: "comma",
    45: "minus", 46: "period", 47: "slash", 59: "semicolon", 61: "equal", 91: "left_bracket",
    92: "backslash", 93: "right_bracket", 96: "grave", 127: "delete",
    **{48 + digit: str(digit) for digit in range(10)},
    **{code: chr(code) for code in range(97, 123)},
}  # fmt: skip
SDL_FIRST: Final = 1 << 30
SDL_CODES: Final = _SIGNS | {SDL_FIRST + code: name for code, name in _SCANCODES.items()}
"""Key codes of SDL 2 and pygame 2: ASCII in lower case, and scan codes from 2^30 on."""
LOW_CODES: Final = {
    1: "mouse_left", 2: "mouse_right", 4: "mouse_middle", 5: "mouse_back", 6: "mouse_forward",
    8: "key_backspace", 9: "key_tab",
}  # fmt: skip
"""Windows virtual-key codes of one digit."""
