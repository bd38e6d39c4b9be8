"""The samples of a tar file by WebDataset's rules, and the episodes that they belong to.

A file is named KEY.ENDING: the key ends at the first dot of the last part of the path. Files of one key
are one sample; they stand side by side. Names that begin with a dot, have no ending or lie below a
folder `__name__` belong to no sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from wham_data.files.found import open_regular
from wham_data.files.json_lines import json_value
from wham_data.files.tar_file import bytes_at, tar_places
from wham_data.schemas.errors import Reason, RefusedInput

PICTURES: Final = ("jpg", "jpeg", "png", "webp")
COMPANIONS: Final = ("json", "cls", "npy")
EPISODE_FIELDS: Final = ("episode", "episode_id", "episode_index")
MOST_NAME: Final = 300
MOST_JSON_BYTES: Final = 1 << 20
MOST_LISTED: Final = 8
TARS_KEPT: Final = 2
_FILE: Final = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_META: Final = re.compile(r"(?:.*/)?__[^/]*__(?:/.*)?", re.DOTALL)
_NUMBER: Final = re.compile(r"(.*?)[-_.]?([0-9]{1,18})", re.DOTALL)

Samples = Mapping[str, Mapping[str, str]]
"""For each key, in the order of the tar file: ending -> name of the file."""
Episodes = Mapping[str, Sequence[str]]
"""For each episode, its keys in the order of the tar file. The name "" is the whole tar file."""


def samples_in(path: Path) -> Samples:
    """The samples of a tar file. The result is cached, as that of `tar_places`.

    Raises:
        RefusedInput: as `tar_places`; ARCHIVE_UNSAFE, a key that is no plain name; METADATA, the files
            of a key are not side by side.
    """
    return _samples(path, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    """The values by which a changed file is recognised."""
    try:
        found = path.stat()
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"{path.name}: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=TARS_KEPT)
def _samples(path: Path, size: int, changed_ns: int) -> Samples:
    del size, changed_ns  # another file under the same name is another tar
    places = tar_places(path)
    samples: dict[str, dict[str, str]] = {}
    last = None
    for name in places:
        found = _FILE.fullmatch(name)
        if found is None or _META.fullmatch(found[1]):
            continue
        key, ending = found[1], found[2].lower()
        if key != last:
            if key in samples:
                raise RefusedInput(
                    Reason.METADATA,
                    f"the files of {key[:80]} are not side by side in the tar file: write it again in "
                    "the order of the keys",
                )
            _check_name(key)
            samples[key] = {}
        elif ending in samples[key]:
            raise RefusedInput(Reason.METADATA, f"{key[:80]} has two files .{ending[:40]}")
        samples[key][ending] = name
        last = key
    return samples


def _check_name(key: str) -> None:
    unsafe = key.startswith("/") or "\\" in key or ".." in key.split("/")
    if unsafe or not key.isprintable() or len(key) > MOST_NAME:
        raise RefusedInput(
            Reason.ARCHIVE_UNSAFE,
            f"the name {key[:80]!r} in the tar file: expected at most {MOST_NAME} printable characters, "
            "and no path that leads out of a folder",
        )


def ending_of(samples: Samples, endings: Sequence[str], chosen: str, option: str) -> str | None:
    """Which of a sample's files is meant, by its ending; None where there is none.

    Args:
        samples: decided by the first; what others have besides does not count.
        endings: the last parts of endings that may be meant.
        chosen: the ending that the user chose; "" for no choice.
        option: its name, for messages.

    Raises:
        RefusedInput: METADATA, there are several, or not the chosen one.
    """
    key, files = next(iter(samples.items()))
    found = [ending for ending in files if ending.rpartition(".")[2] in endings]
    if chosen:
        if chosen not in files:
            raise RefusedInput(
                Reason.METADATA,
                f"no {key[:80]}.{chosen[:40]} in the tar file; there are .{_listed(list(files))}",
            )
        return chosen
    if len(found) > 1:
        raise RefusedInput(
            Reason.METADATA,
            f"{key[:80]} has several: .{_listed(found)}. Choose one: --option {option}={found[0][:40]}",
        )
    return found[0] if found else None


def _listed(endings: Sequence[str]) -> str:
    more = f" and {len(endings) - MOST_LISTED} more" if len(endings) > MOST_LISTED else ""
    return ", .".join(each[:40] for each in endings[:MOST_LISTED]) + more


def number_of(key: str) -> int | None:
    """The number at the end of a key; None if there is none."""
    found = _NUMBER.fullmatch(key)
    return int(found[2]) if found else None


def episodes_in(path: Path, rule: str) -> tuple[str, Episodes]:
    """The rule by which the samples of a tar file are episodes, and the episodes in their order.

    Args:
        path: the tar file.
        rule: "auto", "folder", "prefix", "tar" or "field:NAME".

    Returns:
        The rule, never "auto".

    Raises:
        RefusedInput: as `tar_places` and `samples_in`; METADATA, the rule does not fit a key.
    """
    return _grouped(path, rule, *_state(path))


@lru_cache(maxsize=TARS_KEPT)
def _grouped(path: Path, rule: str, size: int, changed_ns: int) -> tuple[str, Episodes]:
    del size, changed_ns
    places, samples = tar_places(path), samples_in(path)
    with open_regular(path) as file:

        def content(key: str) -> object:
            name = samples[key].get("json")
            if name is None:
                return None
            return json_value(bytes_at(file, places, name, MOST_JSON_BYTES), name)

        rule = _usual_rule(samples, content) if rule == "auto" else rule
        name_of = _BY_KEY.get(rule) or (lambda key: _by_field(key, content(key), rule))
        episodes: dict[str, list[str]] = {}
        for key in samples:
            episodes.setdefault(name_of(key), []).append(key)
    return rule, episodes


def _usual_rule(samples: Samples, content: Callable[[str], object]) -> str:
    """A field of the JSON that is called as an episode; else folders; else what stands before numbers."""
    first = next(iter(samples), "")
    said = content(first) if first else None
    if isinstance(said, dict):
        field = next((each for each in EPISODE_FIELDS if each in said), None)
        if field is not None:
            return f"field:{field}"
    if any("/" in key for key in samples):
        return "folder"
    parts = [_NUMBER.fullmatch(key) for key in samples]
    return "prefix" if all(part and part[1] for part in parts) else "tar"


def _folder(key: str) -> str:
    folder, _, _ = key.rpartition("/")
    return folder or "."


def _prefix(key: str) -> str:
    found = _NUMBER.fullmatch(key)
    if found is None:
        raise RefusedInput(
            Reason.METADATA,
            f"the key {key[:80]} does not end in a number, which --option episodes=prefix needs",
        )
    return found[1] or "."


_BY_KEY: Final[Mapping[str, Callable[[str], str]]] = {
    "folder": _folder,
    "prefix": _prefix,
    "tar": lambda _: "",
}


def _by_field(key: str, content: object, rule: str) -> str:
    field = rule.removeprefix("field:")
    value = content.get(field) if isinstance(content, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RefusedInput(
            Reason.METADATA,
            f"{key[:80]}.json has no text or whole number {field[:80]}, which names its episode",
        )
    name = str(value)[: MOST_NAME + 1]
    if not name:
        raise RefusedInput(Reason.METADATA, f"{key[:80]}.json has an empty {field[:80]}")
    _check_name(name)
    return name


def parse_rule(text: str) -> str:
    """A value of the option `episodes`. Raises ValueError."""
    if text != "auto" and text not in _BY_KEY and not re.fullmatch(r"field:.{1,80}", text):
        raise ValueError
    return text
