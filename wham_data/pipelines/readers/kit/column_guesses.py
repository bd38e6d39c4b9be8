"""Which column a control may be, by its name in the usual spellings: for advice, never taken unasked.

`ABS_RX`, `rightStickX` and `rs_x` are one control, and so are `LB`, `L1` and `left_bumper`. A guess is
written into a `[columns]` block that a person reads, corrects and pastes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from wham_data.pipelines.readers.kit.keys.names import key_named
from wham_data.schemas.actions import ActionSpace

USUAL: Final = ("xinput", "xinput16", "wham16", "keyboard_mouse", "vpt")
NO_COLUMNS: Final[Mapping[str, str]] = MappingProxyType({})
HAT_WAYS: Final = (("up",), ("right",), ("down",), ("left",))
MOST_PAIRS: Final = 24
MOST_UNKNOWN: Final = 32
MOST_NAME: Final = 60
LONGEST_COLUMN: Final = 200
_TIME: Final = re.compile(r"(?:.*\.)?(?:t|ts|time|timestamp)(?:_\w+)?", re.IGNORECASE)
_HAT: Final = re.compile(
    r"(?:.*[._ ])?(?:hat(?:_?switch)?|pov(?:_?hat)?|d_?pad)(?:_?(?:0|value|state))?", re.IGNORECASE
)
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", re.ASCII)
_FILLERS: Final = frozenset(
    ("abs", "axis", "btn", "button", "buttons", "ctrl", "gamepad", "input", "is", "j", "joy", "joystick",
     "key", "keys", "pad", "pressed", "state", "val", "value", "action", "actions", "raw", "s")
)  # fmt: skip
_SPELLINGS: Final[Mapping[str, str]] = {
    "left_x": "lx leftx xleft leftstickx stickleftx lstickx lsx thumblx leftthumbx leftthumbstickx leftanalogx "
    "x analogleftx",
    "left_y": "ly lefty yleft leftsticky sticklefty lsticky lsy thumbly leftthumby leftthumbsticky leftanalogy "
    "analoglefty",
    "right_x": "rx rightx xright rightstickx stickrightx rstickx rsx thumbrx rightthumbx rightthumbstickx "
    "rightanalogx analogrightx",
    "right_y": "ry righty yright rightsticky stickrighty rsticky rsy thumbry rightthumby rightthumbsticky "
    "rightanalogy analogrighty",
    "left_trigger": "lt l2 tl2 lefttrigger triggerleft triggerl triggerlt ltrigger zl",
    "right_trigger": "rt r2 tr2 righttrigger triggerright triggerr triggerrt rtrigger zr",
    "left_shoulder": "lb l1 tl leftshoulder leftbumper bumperleft lbumper shoulderleft",
    "right_shoulder": "rb r1 tr rightshoulder rightbumper bumperright rbumper shoulderright",
    "left_thumb": "l3 ls thumbl leftthumb leftstick lstick leftstickpress leftstickclick leftstickbutton",
    "right_thumb": "r3 rs thumbr rightthumb rightstick rstick rightstickpress rightstickclick "
    "rightstickbutton",
    "up": "up dpadup hatup dup",
    "down": "down dpaddown hatdown ddown",
    "left": "left dpadleft hatleft dleft",
    "right": "right dpadright hatright dright",
    "start": "start menu options plus",
    "back": "back select view share create minus",
    "guide": "guide home xbox ps mode",
    "a": "a cross south",
    "b": "b circle east",
    "pad_x": "square west x",
    "pad_y": "triangle north y",
    "mouse_dx": "mousedx dx mousex deltax mousedeltax mouserelx relx xrel mousemovex",
    "mouse_dy": "mousedy dy mousey deltay mousedeltay mouserely rely yrel mousemovey",
    "mouse_left": "mouseleft lmb leftclick leftmouse mouse1 leftbutton clickleft",
    "mouse_right": "mouseright rmb rightclick rightmouse mouse2 rightbutton clickright",
    "mouse_middle": "mousemiddle mmb middleclick middlemouse mouse3 middlebutton",
    "wheel": "wheel scroll mousewheel scrolly wheely scrolldelta",
    "forward": "forward forwards fwd moveforward moveforwards",
    "backward": "backward backwards bwd movebackward movebackwards",
    "attack": "attack fire shoot",
}
_CONTROLS: Final = {
    spelling: control for control, spellings in _SPELLINGS.items() for spelling in spellings.split()
}
_BY_KERNEL: Final = {
    "x": "left_x", "y": "left_y", "rx": "right_x", "ry": "right_y", "z": "left_trigger",
    "rz": "right_trigger",
}  # fmt: skip


def control_of(name: str) -> tuple[str, ...]:
    """What a column or a dimension of this name may be, the likeliest first; () for an odd name.

    Two names mean one control if the same one is in both; see `guessed_columns`.
    """
    last = name.strip().rpartition(".")[2]
    if len(last) > MOST_NAME:
        return ()
    words = [word.lower() for word in _WORDS.findall(last)]
    if words[:1] == ["abs"] and len(words) == 2 and words[1] in _BY_KERNEL:
        return (_BY_KERNEL[words[1]],)
    bare = [word for word in words if word not in _FILLERS] or words
    if words[:1] == ["key"] or last.startswith("VK_"):
        key = key_named("_".join(bare)) or key_named("".join(bare))
        return (key,) if key else ("".join(words),)
    joined = "".join(bare)
    if joined in ("x", "y"):
        stick = "stick" in last.lower() or "axis" in words
        return (
            (f"left_{joined}",) if stick else (f"pad_{joined}", f"key_{joined}", f"left_{joined}")
        )
    control = _CONTROLS.get(joined)
    key = key_named("_".join(bare))
    found = (control, key if key != control else None, joined)
    return tuple(dict.fromkeys(each for each in found if each))


def is_hat_name(name: str) -> bool:
    """Whether a column is called as a d-pad that is given as one number: `hat`, `POV`, `dpad`."""
    return _HAT.fullmatch(name.strip()[:MOST_NAME]) is not None


def guessed_columns(
    columns: Sequence[str], space: ActionSpace, known: Mapping[str, str] = NO_COLUMNS
) -> dict[str, str]:
    """Dimension -> the column that it may be, where one column alone may be it.

    A column of a dimension's own name is that dimension. Each column is used once.

    Args:
        columns: names found in the log.
        space: what they may mean.
        known: dimension -> column, where it is known.
    """
    sure = {name: name for name in space.names if name in columns} | {
        name: column for name, column in known.items() if name in space.names
    }
    times = [column for column in columns if _TIME.fullmatch(column)]
    taken = {*sure.values(), *(times if len(times) == 1 else (c for c in times if len(c) > 1))}
    free = [column for column in columns if column not in taken]
    meant = {column: control_of(column) for column in free if len(column) <= LONGEST_COLUMN}
    columns_of: dict[str, list[str]] = {}
    for column, controls in meant.items():
        for control in controls:
            columns_of.setdefault(control, []).append(column)
    found: dict[str, str] = {}
    for name in space.names:
        wanted = control_of(name)[:1]
        fits = [column for control in wanted for column in columns_of.get(control, ())]
        best = [column for column in fits if meant[column][:1] == wanted] or fits
        if name not in sure and len(best) == 1 and best[0] not in found.values():
            found[name] = best[0]
    hats = [column for column in free if is_hat_name(column)]
    ways = [name for name in space.names if control_of(name)[:1] in HAT_WAYS]
    if len(hats) == 1 and len(ways) == len(HAT_WAYS) and not {*found, *sure}.intersection(ways):
        found |= dict.fromkeys(ways, hats[0])
    every = {**found, **sure}
    return {name: every[name] for name in space.names if name in every}


def nearest_space(
    columns: Sequence[str], spaces: Sequence[ActionSpace], known: Mapping[str, str] = NO_COLUMNS
) -> tuple[ActionSpace, dict[str, str]]:
    """The space that most of the columns may be of, and the guesses for it.

    Looked at are those of usual pads, keyboards and mice, and those of which half of the dimensions are
    there by name. Of equally near ones the more usual one.
    """

    def there(space: ActionSpace) -> int:
        return len({*columns, *known}.intersection(space.names))

    def nearness(guess: tuple[ActionSpace, dict[str, str]]) -> tuple[int, int]:
        space, found = guess
        usual = USUAL.index(space.name) if space.name in USUAL else len(USUAL)
        return len(found), -usual

    likely = [each for each in spaces if each.name in USUAL or 2 * there(each) >= each.size]
    return max(
        ((each, guessed_columns(columns, each, known)) for each in likely or spaces), key=nearness
    )


def columns_line(guesses: Mapping[str, str]) -> str:
    """`columns = { ... }` for a metadata file, on one line; "" where every column has its own name."""
    pairs = _pairs(guesses)
    if not pairs:
        return ""
    more = f" (and {len(pairs) - MOST_PAIRS} more)" if len(pairs) > MOST_PAIRS else ""
    return f"columns = {{ {', '.join(pairs[:MOST_PAIRS])} }}{more}"


def _pairs(guesses: Mapping[str, str]) -> list[str]:
    """Lines of [columns]; a column that several dimensions share is a hat."""
    shared = Counter(guesses.values())
    pairs = {
        column: name if shared[column] == 1 else "hat"
        for name, column in guesses.items()
        if name != column and len(column) <= LONGEST_COLUMN
    }
    return [f"{key(column)} = {text(name)}" for column, name in pairs.items()]


def columns_block(guesses: Mapping[str, str], unknown: Sequence[str] = ()) -> list[str]:
    """The same as lines under `[columns]`; dimensions that no column may be are there as comments."""
    pairs = _pairs(guesses)
    lines = [f'# "?" = {text(name)}' for name in unknown[:MOST_UNKNOWN]]
    if len(unknown) > MOST_UNKNOWN:
        lines.append(f"# and {len(unknown) - MOST_UNKNOWN} more that no column is like")
    return ["[columns]", *pairs, *lines]


def key(name: str) -> str:
    """A name as a key of TOML."""
    return name if _BARE_KEY.fullmatch(name) else text(name)


def text(value: str) -> str:
    """A text as a value of TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
