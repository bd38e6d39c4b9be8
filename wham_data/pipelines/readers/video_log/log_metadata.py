"""What is said about a log beside it (NAME.toml or NAME.json), and which column means what."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Final

from wham_data.files.found import read_whole
from wham_data.files.json_lines import check_json_depth, check_surrogates
from wham_data.pipelines.readers.kit.hats import HAT_FORMS, HatForm
from wham_data.pipelines.readers.video_log.column_roles import EVERY_OTHER
from wham_data.pipelines.readers.video_log.log_dialect import DELIMITERS
from wham_data.pipelines.readers.video_log.log_words import (
    listed,
)
from wham_data.pipelines.readers.video_log.scales import Scale
from wham_data.pipelines.readers.video_log.time_column import start_of
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import Reason, RefusedInput, UsageError, printable
from wham_data.schemas.mask import Mask, parse_masks
from wham_data.schemas.recording import Provenance

MAX_METADATA_BYTES: Final = 1 << 20
MAX_TEXT: Final = 1000
MAX_DRIFT_PPM: Final = 100_000
MAX_OFFSET_MS: Final = Decimal(10) ** 15
PROVENANCE_KEYS: Final = ("game", "map", "match", "player", "subject", "license")
RULE_KEYS: Final = ("is", "column", "scale", "offset", "range", "invert", "form")
KNOWN_KEYS: Final = (
    *(*PROVENANCE_KEYS, "actions", "offset_ms", "drift_ppm", "columns", "mask"),
    *("ignore", "only", "hold", "tick_rate", "starts_ms", "start", "delimiter", "decimal"),
    "at_rest",
    "collect",  # how `wham-data collect` made a recording: of no concern to a reader
)
MAX_TICK_RATE: Final = 9_000_000_000


@dataclass(frozen=True, slots=True)
class LogMetadata:
    """What NAME.toml or NAME.json says.

    actions    name of a bundled space, or the file name of one that lies beside the metadata
    offset_ns, drift_ppm  t_log = t_true * (1 + drift_ppm / 10^6) + offset_ns
    columns    names of log columns (or controls) paired with what they mean, either way round
    scales     column, control or dimension -> the scale on which the log gives it
    at_rest    dimensions without a column, which were never touched; EVERY_OTHER: all without one
    hat_form   how the column paired with "hat" gives the d-pad; None: as its values show
    ignore     columns that mean nothing
    only       column -> value: rows with another value do not count
    hold       rows are written on change only, so that each holds until the next; None: not said
    tick_rate  ticks of the time column in a second; None: it counts in what its name says
    start_zone whether `start`, which gave the offset, names its zone; None: there is no `start`
    delimiter, decimal  of a CSV; "": not said
    starts_ns  when the first frame of each file of the session's video comes on screen; None: not said
    masks      what is to be black in every picture
    notes      what a person should know
    """

    provenance: Provenance = field(default_factory=Provenance)
    actions: str | None = None
    offset_ns: int = 0
    drift_ppm: float = 0.0
    columns: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)
    hat_form: HatForm | None = None
    at_rest: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    only: Mapping[str, str] = field(default_factory=dict)
    hold: bool | None = None
    tick_rate: int | None = None
    start_zone: bool | None = None
    delimiter: str = ""
    decimal: str = ""
    starts_ns: tuple[int, ...] | None = None
    masks: tuple[Mask, ...] = ()
    notes: tuple[str, ...] = ()

    def declares(self, name: str) -> bool:
        """Whether [columns] names a column or a meaning so."""
        return name in self.columns or name in self.columns.values()


def read_metadata(path: Path) -> LogMetadata:
    """Read and check a metadata file; unknown keys become a note.

    Raises:
        RefusedInput: METADATA, when it cannot be parsed or a value has the wrong type.
    """
    content = read_whole(path, MAX_METADATA_BYTES).removeprefix(b"\xef\xbb\xbf")
    try:
        if path.suffix.lower() == ".json":
            check_json_depth(content, f"{path.name}: ")
            table = json.loads(content.decode("utf-8"), parse_float=Decimal)
            check_surrogates(content, table)
        else:
            table = tomllib.loads(content.decode("utf-8"), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise RefusedInput(
            Reason.METADATA, f"{path.name}: {str(error).splitlines()[0][:200]}"
        ) from None
    if not isinstance(table, dict):
        raise RefusedInput(Reason.METADATA, f"{path.name}: expected a table of settings")
    unknown = [key for key in table if key not in KNOWN_KEYS]
    notes = (printable(f"{path.name}: unknown keys ignored: {listed(unknown)}"),) if unknown else ()
    try:
        columns, scales, hat_form = read_columns(table.get("columns", {}))
    except ValueError as error:
        raise _wrong(path, "columns", str(error)) from None
    drift_ppm = _number(path, table, "drift_ppm", Decimal(MAX_DRIFT_PPM))
    offset_ns = round(_number(path, table, "offset_ms", MAX_OFFSET_MS) * 1_000_000)
    start = _start(path, table)
    return LogMetadata(
        provenance=Provenance(**{key: _text(path, table, key) for key in PROVENANCE_KEYS}),
        actions=_text(path, table, "actions"),
        offset_ns=offset_ns if start is None else start[0],
        drift_ppm=float(drift_ppm),
        columns=columns,
        scales=scales,
        hat_form=hat_form,
        at_rest=_at_rest(path, table),
        ignore=_ignored(path, table),
        only=_only(path, table),
        hold=_hold(path, table),
        tick_rate=_tick_rate(path, table),
        start_zone=None if start is None else start[1],
        delimiter=_one_of(path, table, "delimiter", tuple(DELIMITERS)),
        decimal=_one_of(path, table, "decimal", (".", ",")),
        starts_ns=_starts(path, table),
        masks=_masks(path, table),
        notes=notes,
    )


def _masks(path: Path, table: Mapping[str, Any]) -> tuple[Mask, ...]:
    """`mask`: a text as for --mask, or several."""
    said = table.get("mask", [])
    texts = [said] if isinstance(said, str) else said
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong(path, "mask", 'a text such as "0,0,120,40", or several')
    try:
        return parse_masks(texts)
    except UsageError as error:
        raise RefusedInput(Reason.METADATA, f"{path.name}: {error}") from None


def _ignored(path: Path, table: Mapping[str, Any]) -> tuple[str, ...]:
    """`ignore`: columns of the log that mean nothing."""
    said = table.get("ignore", [])
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _wrong(path, "ignore", 'a list of columns, such as ["frame"]')
    return tuple(names)


def _at_rest(path: Path, table: Mapping[str, Any]) -> tuple[str, ...]:
    """`at_rest`: dimensions without a column that were never touched, or true for all such."""
    said = table.get("at_rest", [])
    if isinstance(said, bool):
        return EVERY_OTHER if said else ()
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        raise _wrong(path, "at_rest", 'true, or a list of dimensions, such as ["guide"]')
    return tuple(said)


def _only(path: Path, table: Mapping[str, Any]) -> dict[str, str]:
    """`only`: the value that a column has in the rows that count."""
    said = table.get("only", {})
    values = said.values() if isinstance(said, dict) else [None]
    if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
        raise _wrong(path, "only", "a table such as { pad = 0 }")
    return {column: str(value) for column, value in said.items()}


def _start(path: Path, table: Mapping[str, Any]) -> tuple[int, bool] | None:
    """`start`: the date of the video's zero in ns since 1970, and whether it names its zone."""
    if "start" not in table:
        return None
    if "offset_ms" in table:
        raise _wrong(path, "start", "alone: offset_ms says the same")
    try:
        return start_of(table["start"])
    except ValueError as error:
        raise _wrong(path, "start", f"a date such as 2026-11-20T14:03:11.250Z: {error}") from None


def _one_of(path: Path, table: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    said = table.get(key, "")
    if said == "" or (isinstance(said, str) and said in choices):
        return str(said)
    raise _wrong(path, key, f"one of {', '.join(map(repr, choices))}")


def _hold(path: Path, table: Mapping[str, Any]) -> bool | None:
    said = table.get("hold")
    if said is None or isinstance(said, bool):
        return said
    raise _wrong(path, "hold", "true or false")


def _tick_rate(path: Path, table: Mapping[str, Any]) -> int | None:
    said = table.get("tick_rate")
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | Decimal) or said != int(said):
        raise _wrong(path, "tick_rate", "a whole number of ticks a second, such as 10000000")
    if not 1 <= said <= MAX_TICK_RATE:
        raise _wrong(path, "tick_rate", f"between 1 and {MAX_TICK_RATE}")
    return int(said)


def _starts(path: Path, table: Mapping[str, Any]) -> tuple[int, ...] | None:
    """`starts_ms`: when each file of a session starts."""
    said = table.get("starts_ms")
    if said is None:
        return None
    if not isinstance(said, list):
        raise _wrong(path, "starts_ms", "a list of milliseconds, such as [0, 1800250]")
    each = (_number(path, {"starts_ms": start}, "starts_ms", MAX_OFFSET_MS) for start in said)
    return tuple(round(start * 1_000_000) for start in each)


def _wrong(path: Path, key: str, expected: str) -> RefusedInput:
    return RefusedInput(Reason.METADATA, f"{path.name}: {key} must be {expected}")


def _text(path: Path, table: Mapping[str, Any], key: str) -> str | None:
    """A text that is not too long; whole numbers (`player = 7`) are texts as well."""
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _wrong(path, key, "a text")
    text = str(value)
    if len(text) > MAX_TEXT:
        raise _wrong(path, key, f"a text of at most {MAX_TEXT} characters")
    return text or None


def _number(path: Path, table: Mapping[str, Any], key: str, most: Decimal) -> Decimal:
    value = table.get(key, 0)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        number = Decimal(value)
        if number.is_finite() and abs(number) <= most:
            return number
    raise _wrong(path, key, f"a number between -{most:g} and {most:g}")


def space_file(metadata_path: Path, actions: str | None) -> Path | None:
    """The file in which the metadata says the action space is, None if that is a bundled one.

    Raises:
        RefusedInput: UNSAFE_PATH, when it lies outside the folder of the metadata.
    """
    if actions is None or not actions.endswith(".toml"):
        return None
    inner = PurePosixPath(actions)
    if inner.is_absolute() or ".." in inner.parts or "\0" in actions:
        raise RefusedInput(
            Reason.UNSAFE_PATH,
            f"{metadata_path.name}: actions = {ascii(actions)[:80]} leads out of its folder",
        )
    return metadata_path.parent / inner


def load_named_space(metadata_path: Path | None, actions: str) -> ActionSpace:
    """The space that the metadata names.

    Raises:
        RefusedInput: METADATA, when there is no such space or its file is no space.
    """
    file = space_file(metadata_path, actions) if metadata_path is not None else None
    if file is not None:
        read_whole(file, MAX_METADATA_BYTES)  # a regular file that is not too large, or refused
    try:
        return load_space(str(file) if file is not None else actions)
    except UsageError as error:
        raise RefusedInput(Reason.METADATA, str(error).replace(str(file), actions)) from None


def read_columns(table: object) -> tuple[dict[str, str], dict[str, Scale], HatForm | None]:
    """What a [columns] table says: names paired with what they mean, scales by name, a hat's form.

    `A = "B"` pairs a column with a meaning, either way round. `A = { is = "B", ... }` and
    `B = { column = "A", ... }` do the same; without either, A is a column named as its dimension.
    A scale is known by both names.

    Raises:
        ValueError: what is wrong, in words that follow "columns".
    """
    if not isinstance(table, dict):
        raise ValueError("a table of names")
    pairs: dict[str, str] = {}
    scales: dict[str, Scale] = {}
    hat_form: HatForm | None = None
    for name, said in table.items():
        if isinstance(said, str):
            pairs[name] = said
            continue
        if not isinstance(said, dict):
            raise ValueError("a table of names")
        unknown = sorted(set(said) - set(RULE_KEYS))
        if unknown:
            raise ValueError(f"without {unknown[0]!r}: {name} can have {', '.join(RULE_KEYS)}")
        partner = said.get("is", said.get("column"))
        if partner is not None:
            if not isinstance(partner, str) or ("is" in said and "column" in said):
                raise ValueError(f"clear: {name} names one partner, with `is` or with `column`")
            pairs[name] = partner
        if "form" in said:
            hat_form = _hat_form(name, said, partner)
            continue
        scale = _scale(name, said)
        scales |= dict.fromkeys((name, partner) if partner else (name,), scale)
    return pairs, scales, hat_form


def _hat_form(name: str, said: Mapping[str, Any], partner: str | None) -> HatForm:
    """The form that a rule declares for a hat."""
    form = said["form"]
    if "hat" not in (name, partner) or len(said) > 2:
        raise ValueError(
            f'clear: {name}: form is of a hat, as in {name} = {{ is = "hat", form = "bits" }}'
        )
    if form not in HAT_FORMS:
        raise ValueError(f"clear: form of {name} is one of {', '.join(HAT_FORMS)}")
    return HAT_FORMS[HAT_FORMS.index(form)]


def _scale(name: str, said: Mapping[str, Any]) -> Scale:
    """The scale that a rule declares."""
    ends = said.get("range")
    if ends is not None:
        if "scale" in said or "offset" in said:
            raise ValueError(f"clear: {name} has a range, or scale and offset, not both")
        if not isinstance(ends, list) or len(ends) != 2:
            raise ValueError(f"clear: the range of {name} is two numbers, such as [-1, 1]")
        low, high = (_rule_number(name, "range", end) for end in ends)
        if low == high:
            raise ValueError(f"clear: the range of {name} has two different ends")
        ends = (low, high)
    invert = said.get("invert", False)
    if not isinstance(invert, bool):
        raise ValueError(f"clear: invert of {name} is true or false")
    factor = _rule_number(name, "scale", said.get("scale", 1))
    if factor == 0:
        raise ValueError(f"clear: scale of {name} is not 0")
    return Scale(factor, _rule_number(name, "offset", said.get("offset", 0)), ends, invert)


def _rule_number(name: str, key: str, value: object) -> float:
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not number or not math.isfinite(float(value)):  # type: ignore[arg-type]
        raise ValueError(f"clear: {key} of {name} needs numbers")
    return float(value)  # type: ignore[arg-type]
