"""Hashes of inputs that were read before: `hints/inputs.parquet` in a corpus.

    stamp   16 bytes  of a file: a digest of its path, size and times; of a unit: of all its files
    sha256  32 bytes  of the file's bytes; of a recording in the unit: its key
    files   int32     of a unit: count of the files that belong to the recording

A path is not stored, only a digest of it; in a corpus with pseudonyms the digest depends on the key of
the players, so that nobody without it can check a guess.

Everything here is a hint. A recording that is known may be left out because of it, if the corpus has it;
one that is ingested is hashed anew from the bytes that are read. The file may be deleted at any time. Of
two runs that write it at once, one may lose what it noted.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wham_data.corpus.storage.contract import HINTS, Storage
from wham_data.corpus.storage.sources.objects import about
from wham_data.schemas.errors import WhamDataError, short_message
from wham_data.schemas.paths import is_in_store
from wham_data.schemas.player_key import PlayerKey

NAME: Final = f"{HINTS}/inputs.parquet"
FORMAT: Final = b"1"
MOST_ENTRIES: Final = 8_000_000
RACY_NS: Final = 2_000_000_000
"""A file that was changed so shortly before it was read may change again without another time."""
SAVE_EVERY_SECONDS: Final = 60.0
SCHEMA: Final = pa.schema(
    [
        pa.field("stamp", pa.binary(16), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("files", pa.int32(), nullable=False),
    ],
    {b"wham_data.inputs": FORMAT},
)
SIZES: Final = {"stamp": 16, "sha256": 32}
ROW: Final = np.dtype([("stamp", "S16"), ("sha256", "S32"), ("files", "<i4")])
"""numpy cuts zeros at the end of a text; `_padded` puts them back."""


class FileStamp(NamedTuple):
    """What tells a version of a file from others: see `found.Listing`."""

    n_bytes: int
    changed_ns: int
    entry_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The stamp of a file, or of the file that a link leads to; or of an object in a store.

        Raises:
            OSError: there is no such file.
            WhamDataError: the store refuses, or did not answer in time.
        """
        if is_in_store(path):
            return cls(*about(path).stamp)
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def is_racy(self, now_ns: int) -> bool:
        """Whether the file may still change without another stamp."""
        return now_ns - self.changed_ns < RACY_NS


class KnownInputs:
    """The hints of a corpus, and those that a run adds.

    Args:
        storage: of the corpus; None: there are no hints, and none are kept.
        key: key of the players' pseudonyms; None: players are stored by name.
        rehash: believe no hint of earlier runs.
    """

    def __init__(
        self, storage: Storage | None = None, key: PlayerKey | None = None, *, rehash: bool = False
    ) -> None:
        self._storage = storage
        self._salt = b"wham-data inputs" if key is None else key.salt("inputs")
        self._new = bytearray()
        self._save_at = time.monotonic() + SAVE_EVERY_SECONDS
        self.problem: str | None = None
        table = SCHEMA.empty_table()
        if storage is not None and not rehash:
            table, self.problem = _read(storage)
        stamps = _texts(table, "stamp")
        if not (stamps[:-1] <= stamps[1:]).all():
            table = table.take(np.argsort(stamps, kind="stable"))
        self._stamps, self._hashes = (_texts(table, name) for name in SIZES)
        self._files = table.column("files").to_numpy()
        pa.default_memory_pool().release_unused()

    @property
    def is_empty(self) -> bool:
        """Whether earlier runs have left no hint."""
        return not len(self._stamps)

    @property
    def salt(self) -> bytes:
        """What digests of paths start with."""
        return self._salt

    def stamp(self, path: Path, found: FileStamp) -> bytes:
        """16 bytes for a version of a file."""
        told = hashlib.sha256(self._salt)
        told.update(b"%b\0%d %d %d" % (os.fsencode(path), *found))
        return told.digest()[:16]

    def hash_of(self, stamp: bytes) -> bytes | None:
        """The hash of a file's bytes; None: not known."""
        rows = self._rows_of(stamp)
        return _padded(self._hashes[rows.start], 32) if rows else None

    def in_unit(self, signature: bytes) -> tuple[tuple[bytes, ...], int]:
        """The keys of the recordings in a unit, and how many of its files belong to one; (): not known."""
        rows = self._rows_of(signature)
        keys = self._hashes[rows.start : rows.stop].tolist()
        return tuple(_padded(k, 32) for k in keys), int(self._files[rows.start : rows.stop].sum())

    def note(self, stamp: bytes, sha256: bytes, files: int = 0) -> None:
        """Add a hint."""
        self._new += stamp + sha256 + files.to_bytes(4, "little")

    def save_if_due(self) -> None:
        """Write what was added, about once a minute, less often if it takes long."""
        if time.monotonic() > self._save_at:
            self.save()

    def save(self) -> None:
        """Write what was added, beside what another run has written meanwhile.

        What cannot be written is only not known the next time: `problem` then says so.
        """
        if self._storage is None or not self._new:
            return
        started = time.monotonic()
        try:
            old, _ = _read(self._storage)
            self._storage.replace(NAME, _file_of(old, np.frombuffer(bytes(self._new), ROW)))
        except WhamDataError as error:
            self.problem = f"hints for the next run are not written: {error}"
            return
        self._new.clear()
        pa.default_memory_pool().release_unused()
        ended = time.monotonic()
        self._save_at = ended + max(SAVE_EVERY_SECONDS, 20 * (ended - started))

    def _rows_of(self, stamp: bytes) -> range:
        wanted = np.array(stamp, "S16")
        first, last = (int(np.searchsorted(self._stamps, wanted, s)) for s in ("left", "right"))
        return range(first, last)


def _file_of(old: pa.Table, new: NDArray[np.void]) -> bytes:
    """The file of both; of a stamp that both have, what is new. Old hints go first if they are too many."""
    old = old.filter(pa.array(~np.isin(_texts(old, "stamp"), new["stamp"])))
    columns = {name: _binary(new[name], size) for name, size in SIZES.items()}
    added = pa.table({**columns, "files": pa.array(new["files"])}, schema=SCHEMA)
    every = pa.concat_tables([old, added])
    last = every.slice(max(0, len(every) - MOST_ENTRIES))
    last = last.take(np.argsort(_texts(last, "stamp"), kind="stable"))
    content = pa.BufferOutputStream()
    pq.write_table(last, content, compression="none", use_dictionary=False)
    return bytes(content.getvalue())


def _read(storage: Storage) -> tuple[pa.Table, str | None]:
    """The hints, and what is wrong with their file."""
    nothing = SCHEMA.empty_table()
    try:
        if not storage.exists(NAME):
            return nothing, None
        with storage.fresh(NAME) as path, pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST_ENTRIES or not file.schema_arrow.equals(SCHEMA, True):
                return nothing, f"{storage.where(NAME)}: {IGNORED} of another kind"
            return file.read(), None
    except FileNotFoundError:
        return nothing, None
    except (WhamDataError, pa.ArrowException, OSError) as error:
        return nothing, f"{storage.where(NAME)}: {IGNORED} damaged ({short_message(error)})"


IGNORED: Final = "these hints are not used, so inputs are hashed again: the file is"


def _texts(table: pa.Table, name: str) -> NDArray[np.bytes_]:
    """A column of bytes of one length, as numpy has them."""
    chunks = table.column(name).chunks
    whole = pa.concat_arrays(chunks) if chunks else pa.array([], SCHEMA.field(name).type)
    if not len(whole):
        return np.zeros(0, f"S{SIZES[name]}")
    offset = whole.offset * SIZES[name]
    return np.frombuffer(whole.buffers()[1], f"S{SIZES[name]}", len(whole), offset)


def _binary(values: NDArray[np.bytes_], size: int) -> pa.Array:
    """The reverse of `_texts`."""
    data = pa.py_buffer(np.ascontiguousarray(values).tobytes())
    return pa.Array.from_buffers(pa.binary(size), len(values), [None, data])


def _padded(value: bytes, size: int) -> bytes:
    return value.ljust(size, b"\0")


CHUNK: Final = 1 << 14
HEX_DIGITS: Final = np.full(256, 255, np.uint8)
HEX_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class KeySet:
    """A set of SHA-256 hashes, 32 bytes for each."""

    def __init__(self, hashes: Iterable[str | None] | pa.ChunkedArray) -> None:
        """The set of these hashes, as hex digits; what is no hash is left out."""
        if not isinstance(hashes, pa.ChunkedArray):
            hashes = pa.chunked_array([pa.array(hashes, pa.string())])
        parts = [
            _bytes_of(chunk.slice(start, CHUNK))
            for chunk in hashes.chunks
            for start in range(0, len(chunk), CHUNK)
        ]
        self._hashes = np.unique(np.concatenate([np.zeros(0, "S32"), *parts]))
        pa.default_memory_pool().release_unused()

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: bytes) -> bool:
        return self.has_all((key,))

    def has_all(self, keys: Sequence[bytes]) -> bool:
        """Whether every key is in the set."""
        if not len(self._hashes):
            return not keys
        wanted = np.array(keys, "S32")
        places = np.searchsorted(self._hashes, wanted)
        there = self._hashes[np.minimum(places, len(self._hashes) - 1)] == wanted
        return bool(there.all())


def _bytes_of(texts: pa.Array) -> NDArray[np.bytes_]:
    """The bytes of those texts that are hashes in hex digits."""
    whole = texts.filter(pc.equal(pc.binary_length(texts), 64))
    if not len(whole):
        return np.zeros(0, "S32")
    codes = np.frombuffer(whole.buffers()[2], np.uint8, 64 * len(whole)).reshape(-1, 64)
    digits = HEX_DIGITS[codes]
    digits = digits[(digits < 16).all(axis=1)]
    packed = digits[:, ::2] << 4 | digits[:, 1::2]
    return np.ascontiguousarray(packed).view("S32").ravel()
