"""What the controls of a key log mean, all of them together: one name alone may mean several keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wham_data.pipelines.readers.kit.keys.names import (
    is_key_code,
    is_other_key,
    key_in_log,
    key_of_code,
)
from wham_data.pipelines.readers.kit.keys.spellings import (
    FROM_0,
    LOW_CODES,
    SDL_CODES,
    SDL_FIRST,
    US_SHIFTED,
)
from wham_data.schemas.errors import Reason, RefusedInput, printable

CODE_COLUMNS: Final = ("vk", "vk_code", "keycode", "key_code", "vkcode")
VK_COLUMNS: Final = ("vk", "vk_code", "vkcode")
SCAN_COLUMNS: Final = ("scancode", "scan_code")
BROWSER_COLUMN: Final = "keyCode"
TELLING: Final = frozenset((*range(65, 91), *range(37, 41), *range(160, 255)))
"""Virtual-key codes by which a log is known to have such: letters, arrows, and those that others lack."""
ALIKE: Final = frozenset((27, 32))
"""Escape and the space bar, which are the same in ASCII."""
MOST_NAMED: Final = 8
_DIGIT: Final = re.compile(r"\d", re.ASCII)
_MOUSE_NUMBER: Final = re.compile(r"mouse_?(?:button_?)?([0-4])", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeysMeant:
    """What the controls of a key log mean.

    buttons  control -> button, for those that are keys of a space
    odd      controls that no family of names has
    notes    what was guessed
    """

    buttons: dict[str, str]
    odd: tuple[str, ...]
    notes: tuple[str, ...]


def keys_meant(names: Sequence[str], column: str = "") -> KeysMeant:
    """Decide what the controls of a key log mean.

    Numbers are Windows virtual-key codes, or those of SDL where some of them are 2^30 and more. Digits
    are codes too where all controls are numbers and one has two digits, or in a column of codes. The
    codes of Linux and macOS look like Windows', but few of their letters do.

    Args:
        names: the controls that nobody has paired with buttons.
        column: the one that holds them; `vk` means virtual-key codes, and `keyCode` numbers.

    Raises:
        RefusedInput: LOG_COLUMN, a number is no such code, or all of them are codes of both kinds, or
            they are scan codes.
    """
    column = column.rpartition(".")[2].strip()
    sure = column == BROWSER_COLUMN or column.lower() in VK_COLUMNS
    column = column.lower()
    plain = [name for name in names if is_key_code(name) and name[0] != "<"]
    digits = [name for name in names if _DIGIT.fullmatch(name)]
    coded = column in CODE_COLUMNS or (plain and len(plain) + len(digits) == len(names))
    plain += digits if coded else []
    if column in SCAN_COLUMNS and (plain or digits):
        raise _scan_codes([*plain, *digits])
    codes = {name: int(name, 0) for name in plain}
    buttons = _of_codes(codes, sure=sure)
    counts_from_0 = any(m[1] == "0" for name in names if (m := _MOUSE_NUMBER.fullmatch(name)))
    odd = list[str]()
    for name in names:
        mouse = _MOUSE_NUMBER.fullmatch(name)
        if name in buttons:
            continue
        if mouse is not None and counts_from_0:
            buttons[name] = FROM_0[int(mouse[1])]
        elif (button := key_in_log(name)) is not None and mouse is None:
            buttons[name] = button
        elif is_key_code(name):
            raise _no_codes([name])
        elif not is_other_key(name):
            odd.append(name)
    signs = [name for name in names if name in buttons and name.strip("'\"") in US_SHIFTED]
    notes = []
    if plain or any(is_key_code(name) for name in names):
        first = next(name for name in names if name in codes or is_key_code(name))
        kind = "SDL" if _of_sdl(codes) else "Windows virtual-key"
        notes.append(f"numbers of keys taken as {kind} codes: {first} is {buttons[first]}")
    if signs:
        notes.append(f"signs taken as the keys of a US keyboard: {signs[0]} is {buttons[signs[0]]}")
    return KeysMeant(buttons, tuple(odd), tuple(map(printable, notes)))


def _of_sdl(codes: dict[str, int]) -> bool:
    """Whether numbers are SDL's for certain."""
    return any(code >= SDL_FIRST for code in codes.values())


def _of_codes(codes: dict[str, int], *, sure: bool) -> dict[str, str]:
    """The button for each number.

    Args:
        codes: control -> number.
        sure: they are virtual-key codes.
    """
    sdl = {name: f"key_{SDL_CODES[code]}" for name, code in codes.items() if code in SDL_CODES}
    windows = {
        name: button
        for name, code in codes.items()
        if (button := LOW_CODES.get(code) or key_of_code(code)) is not None
    }
    if len(sdl) == len(codes) and _of_sdl(codes):
        return sdl
    if len(windows) < len(codes):
        raise _no_codes([name for name in codes if name not in windows])
    letters = [name for name, code in codes.items() if 97 <= code <= 122]
    if len(sdl) == len(codes) and letters and not sure:
        first = letters[0]
        pairs = ", ".join(f'"{name}" = "{sdl[name]}"' for name in list(codes)[:MOST_NAMED])
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"the numbers of keys may be Windows virtual-key codes ({first} is {windows[first]}) or ASCII "
            f"({first} is {sdl[first]}): call the column vk if they are the former; else pair them beside "
            f"the log, columns = {{ {pairs} }}",
        )
    if (
        codes
        and not sure
        and not TELLING.intersection(codes.values())
        and {*codes.values()} - ALIKE
    ):
        first = next(iter(codes))
        pairs = ", ".join(f'"{name}" = "{windows[name]}"' for name in list(codes)[:MOST_NAMED])
        raise RefusedInput(
            Reason.LOG_COLUMN,
            f"the numbers of keys may be Windows virtual-key codes ({first} is {windows[first]}) or those of "
            "another system, for no letter and no arrow is among them: call the column vk if they are the "
            f"former; else pair them beside the log, as in columns = {{ {pairs} }}",
        )
    return windows


def _scan_codes(names: Sequence[str]) -> RefusedInput:
    first = printable(names[0][:60])
    return RefusedInput(
        Reason.LOG_COLUMN,
        f"the log names keys by scan codes, which differ from system to system ({first} and "
        f"{len(names) - 1} more): pair each with its key beside the log, such as "
        f'columns = {{ "{first}" = "key_w" }}',
    )


def _no_codes(names: Sequence[str]) -> RefusedInput:
    shown = ", ".join(printable(name[:60]) for name in names[:MOST_NAMED])
    return RefusedInput(
        Reason.LOG_COLUMN,
        f"the numbers of keys are no Windows virtual-key codes (there is no {shown}): "
        f'pair them with keys under [columns], such as "{printable(names[0][:60])}" = "key_a"',
    )
