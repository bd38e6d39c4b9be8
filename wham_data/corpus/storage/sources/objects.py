"""What lies on an object store, by the paths of `schemas.paths.store_path`: lists, sizes, bytes.

An object is told from an earlier or later one under its name by its ETag, which every read names: a
store does not give bytes of another version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from wham_data.corpus.storage.store_client import AgainError, Answer, Request, ask
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, WhamDataError
from wham_data.schemas.paths import told

ARCHIVED: Final = "InvalidObjectState"
"""S3's code for an object that lies in an archive and has to be restored first."""


@dataclass(frozen=True, slots=True)
class About:
    """A version of an object.

    n_bytes     its size
    changed_ns  when it was written, in whole seconds (lists tell more of it than single answers)
    number      56 bits of a hash of its ETag; 0: the store gives none
    tag         its ETag; "": not known here
    """

    n_bytes: int
    changed_ns: int
    number: int
    tag: str = ""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> About:
        """From what the client says of an object."""
        when: datetime = answer["last_modified"]
        changed_ns = int(when.timestamp()) * SECOND_NS
        tag = answer["e_tag"] or ""
        name = tag.removeprefix("W/").strip('"')
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") if name else 0
        return cls(int(answer["size"]), changed_ns, number, tag)

    @property
    def stamp(self) -> tuple[int, int, int]:
        """As in `found.Listing`."""
        return self.n_bytes, self.changed_ns, self.number


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies directly in a folder.

    files    objects by name
    folders  names of folders, sorted
    """

    files: Mapping[str, About]
    folders: tuple[str, ...]


def about(path: Path) -> About:
    """The present version of an object.

    Raises:
        FileNotFoundError: there is none.
        WhamDataError: the store refuses, or did not answer in time.
    """
    return About.of(_ask(path, lambda api, store: api.head(store, _key(path))))


def folder(path: Path) -> Folder:
    """What lies directly in a folder; nothing, if there is no such folder.

    Raises:
        WhamDataError: the store refuses, or did not answer in time; or a name in the folder is no path
            (with an empty, `.` or `..` part, or a control character).
    """
    key = _key(path) or None

    def listed(api: Any, store: Any) -> Any:
        try:
            return api.list_with_delimiter(store, key)
        except api.exceptions.InvalidPathError as error:
            line = str(error).partition("\n\n")[0].partition(": ")[2] or "no path"
            raise WhamDataError(
                f"{told(path)}: holds an object whose name is no path ({line}): give the folders or "
                "files in it that you mean"
            ) from None

    found = _ask(path, listed)
    inside = {each["path"].rpartition("/")[2]: About.of(each) for each in found["objects"]}
    inside.pop("", None)
    folders = (each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"])
    return Folder(inside, tuple(sorted(folders)))


def start_of(path: Path, most: int) -> tuple[About, bytes]:
    """The present version of an object, and its first bytes, at most so many.

    Raises:
        As `about`.
    """
    try:
        return _get(path, 0, most, None)
    except _EmptyError:
        return about(path), b""


def read(path: Path, version: About, start: int, stop: int) -> bytes:
    """The bytes of a version of an object, from `start` to before `stop`, which are in it.

    Raises:
        RefusedInput: CHANGED_WHILE_READ, the object is gone or another one.
        WhamDataError: the store refuses, or did not answer in time.
    """
    try:
        now, data = _get(path, start, stop, version.tag)
    except (FileNotFoundError, _EmptyError, _AnotherError):
        raise changed(path) from None
    if now.stamp != version.stamp:
        raise changed(path)
    return data


def changed(path: Path) -> RefusedInput:
    """The refusal of an object that is not there any more as it was listed."""
    return RefusedInput(
        Reason.CHANGED_WHILE_READ,
        f"{path.name} was written or removed in the store after it was found",
    )


class _AnotherError(Exception):
    """The object under this name is another one than was asked for."""


class _EmptyError(Exception):
    """The object has no byte in the range."""


def _get(path: Path, start: int, stop: int, tag: str | None) -> tuple[About, bytes]:
    options: dict[str, Any] = {"range": (start, stop)}
    if tag:
        options["if_match"] = tag

    def once(api: Any, store: Any) -> tuple[About, bytes]:
        try:
            answer = api.get(store, _key(path), options=options)
            data = bytes(answer.bytes())
        except api.exceptions.PreconditionError:
            raise _AnotherError from None
        except api.exceptions.BaseError as error:
            if "416" in (text := str(error)) and "Range" in text:
                raise _EmptyError from None
            if ARCHIVED in text:
                raise RefusedInput(
                    Reason.NOT_DOWNLOADED,
                    f"{path.name} lies in the archive of its store: restore it there first",
                ) from None
            raise
        now = About.of(answer.meta)
        if len(data) != min(stop, now.n_bytes) - start:
            raise AgainError(f"{len(data)} bytes instead of {min(stop, now.n_bytes) - start}")
        return now, data

    return _ask(path, once)


def _ask(path: Path, request: Request[Answer]) -> Answer:
    scheme, bucket = path.parts[1:3]
    return ask(f"{scheme}//{bucket}", told(path), request)


def _key(path: Path) -> str:
    return "/".join(path.parts[3:])
