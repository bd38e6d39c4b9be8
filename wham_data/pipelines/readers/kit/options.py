"""Options of readers and writers: `--option NAME=VALUE`.

A reader is a frozen dataclass, and its options are its fields:

    timing: str = choice("after", "leads", about="an action acts after its frame, or led to it")
    mapping: Path | None = file_option(about="TOML that says which key holds what")
    frame_rate: Fraction = rate_option("20", about="frames per second")

`configured` gives readers with the values of the command line. `option_settings` gives the values
that change the steps, for the hash of the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeVar

from wham_data.files.found import read_whole
from wham_data.schemas.declarations import MOST_BYTES, nearest
from wham_data.schemas.errors import RefusedInput, UsageError

R = TypeVar("R")
OPTION: Final = "option"
MOST_VALUE: Final = 4096


@dataclass(frozen=True, slots=True)
class ReaderOption:
    """One option of a reader.

    about    one line for help and documentation
    expects  the form of a value, for error messages
    default  the value without `--option`
    parse    turns a text into a value; raises ValueError for an invalid text
    """

    about: str
    expects: str
    default: Any
    parse: Callable[[str], Any]


def option(default: Any, *, about: str, expects: str, parse: Callable[[str], Any]) -> Any:
    """A field that holds an option's value.

    Args:
        default: the value without `--option`.
        about: one line for help and documentation.
        expects: the form of a value, for error messages.
        parse: turns a text into a value; raises ValueError for an invalid text.
    """
    return field(default=default, metadata={OPTION: ReaderOption(about, expects, default, parse)})


def choice(*allowed: str, about: str) -> Any:
    """A field that holds one of the allowed words. The first is the default."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return option(allowed[0], about=about, expects=" or ".join(allowed), parse=parse)


def count_option(default: int, *, about: str, most: int, least: int = 1) -> Any:
    """A field that holds a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        count = int(text)
        if not least <= count <= most:
            raise ValueError
        return count

    expects = f"a whole number from {least} to {most}"
    return option(default, about=about, expects=expects, parse=parse)


def picture_option(*, of: str, example: str) -> Any:
    """A field that holds the name of the entry that is the picture; "" by default: the first in colour."""
    return option(
        "",
        about=f"which entry of {of} is the picture; by default the first in colour",
        expects=f"names joined with /, such as {example}",
        parse=str,
    )


def rate_option(default: str | None, *, about: str) -> Any:
    """A field that holds a rate in Hz as a Fraction; None where it must be given."""

    def parse(text: str) -> Fraction:
        rate = Fraction(text)
        if not 0 < rate <= 1000:
            raise ValueError
        return rate

    expects = "a rate in Hz such as 20 or 30000/1001"
    rate = None if default is None else Fraction(default)
    return option(rate, about=about, expects=expects, parse=parse)


def milliseconds_option(*, about: str, most_s: int) -> Any:
    """A field that holds milliseconds as a Fraction, at most `most_s` seconds either way; 0 by default."""

    def parse(text: str) -> Fraction:
        given_ms = Fraction(text)
        if abs(given_ms) > most_s * 1000:
            raise ValueError
        return given_ms

    expects = f"milliseconds such as -137.5, at most {most_s} s"
    return option(Fraction(0), about=about, expects=expects, parse=parse)


def names_option(*, about: str, allowed: Sequence[str] | None = None) -> Any:
    """A field that holds a tuple of names, separated by commas in the text; () by default."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(","))
        if not all(names) or (allowed is not None and not set(names) <= set(allowed)):
            raise ValueError
        return names

    expects = "names separated by commas" + (f" of {', '.join(allowed)}" if allowed else "")
    return option((), about=about, expects=expects, parse=parse)


def file_option(*, about: str) -> Any:
    """A field that holds the path of a small file, or None. The file's content changes the steps."""

    def parse(text: str) -> Path:
        path = Path(text).absolute()
        if not path.is_file():
            raise ValueError
        return path

    return option(None, about=about, expects="the path of a file", parse=parse)


def options_of(reader: object) -> dict[str, ReaderOption]:
    """The options that a reader declares, by name."""
    return {
        each.name: each.metadata[OPTION]
        for each in fields(reader)  # type: ignore[arg-type]  # every reader is a dataclass
        if OPTION in each.metadata
    }


def configured(readers: Sequence[R], values: Mapping[str, str]) -> tuple[R, ...]:
    """The readers with these option values. Each reader takes the options that it declares.

    Raises:
        UsageError: no reader declares an option, or a value is invalid.
    """
    known = {name: option for reader in readers for name, option in options_of(reader).items()}
    for name in values:
        if name not in known:
            found = nearest(name, sorted(known), "options") if known else "; there are none"
            raise UsageError(f"--option {name[:80]}: no format read here has it{found}")
    return tuple(_with_values(reader, values) for reader in readers)


def _with_values(reader: R, values: Mapping[str, str]) -> R:
    chosen = {
        name: _parsed(name, option, values[name])
        for name, option in options_of(reader).items()
        if name in values
    }
    return replace(reader, **chosen) if chosen else reader  # type: ignore[type-var]


def _parsed(name: str, option: ReaderOption, text: str) -> Any:
    try:
        if len(text) > MOST_VALUE:
            raise ValueError
        return option.parse(text)
    except (ValueError, ZeroDivisionError, OSError):
        raise UsageError(f"--option {name}={text[:80]}: expected {option.expects}") from None


def option_settings(readers: Sequence[object]) -> dict[str, str]:
    """The options that differ from their defaults, as texts: they change the steps.

    For a file, the text is its content, not its path.

    Raises:
        UsageError: a file cannot be read, or is larger than 1 MB.
    """
    settings: dict[str, str] = {}
    for reader in readers:
        for name, declared in options_of(reader).items():
            value = getattr(reader, name)
            if value == declared.default:
                continue
            settings[f"option.{name}"] = _content(value) if isinstance(value, Path) else str(value)
    return settings


def _content(path: Path) -> str:
    try:
        return f"sha256:{hashlib.sha256(read_whole(path, MOST_BYTES)).hexdigest()}"
    except RefusedInput as why:
        raise UsageError(f"{path}: {why}") from None
