"""Files of a source folder: listed in a fixed order, opened safely, recognised by first bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, Literal

from wham_data.files import elsewhere
from wham_data.files.links import holds_blobs, target_of
from wham_data.schemas.errors import Reason, RefusedInput

VIDEO_ENDINGS: Final = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".flv", ".wmv", ".3gp", ".ogv", ".ivf", ".h264", ".264", ".h265", ".265", ".hevc", ".av1",
    ".m3u8", ".m3u", ".mpd",
})  # fmt: skip
PICTURE_ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg"})
ARCHIVE_ENDINGS: Final = frozenset({
    ".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".7z", ".rar", ".gz", ".bz2", ".xz",
    ".zst", ".lz4", ".cab", ".iso",
})  # fmt: skip
LINKED_ENDINGS: Final = (
    VIDEO_ENDINGS
    | ARCHIVE_ENDINGS
    | {
        ".npz",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".parquet",
        ".h5",
        ".hdf5",
        ".mcap",
        ".mdb",
        ".tfrecord",
    }
)
"""A link so named is refused if it is not followed; other such links are ignored."""
DEEPEST_FOLDER: Final = 32
MOST_PICTURE_BYTES: Final = 64 << 20
"""Largest coded picture that is read."""
HOLLOW_FROM_BYTES: Final = 64 << 20
HOLLOW_TIMES: Final = 20
HOLLOW_ENDINGS: Final = VIDEO_ENDINGS | {".npz", ".m4s"}
NOT_OPENED: Final = RefusedInput(Reason.UNSAFE_PATH, "neither a file nor a folder: not opened")
SNIFFED_BYTES: Final = 400

LARGEST_POINTER: Final = 1024
"""A file that only names another is small: Git LFS allows fewer bytes than this."""

Content = Literal[
    "video", "zip", "parquet", "gzip", "unknown", "empty", "lfs", "xet", "annex", "html", "server_error"
]  # fmt: skip

STAND_INS: Final[Mapping[Content, str]] = MappingProxyType({
    "empty": "empty file (0 bytes): copy or download it again",
    "lfs": "a Git LFS pointer, not the file itself. Run `git lfs pull` in the folder of the clone",
    "xet": "a Xet pointer, not the file itself. Install git-xet and run `git xet checkout`, or "
    "download the file",
    "annex": "a git-annex pointer, not the file itself. Run `git annex get`",
    "html": "an HTML page, not the file itself. The download failed or needs a login: download it "
    "again",
    "server_error": "the error message of a server, not the file itself. The download failed or "
    "needs a login: download it again",
})  # fmt: skip
"""What may be in the place of a file that was not copied or downloaded, and what to do."""

_POINTERS: Final[tuple[tuple[bytes, Content], ...]] = (
    (b"version https://git-lfs.github.com/spec/", "lfs"),
    (b"version https://hawser.github.com/spec/", "lfs"),
    (b"version http://git-media.io/v/", "lfs"),
    (b"# xet version ", "xet"),
    (b"/annex/objects/", "annex"),
)
_PAGES: Final = (b"<!doctype html", b"<html", b"<head>", b"<head ")
_SERVER_ERRORS: Final = (
    *(b"entry not found", b"repository not found", b"revision not found", b"file not found"),
    *(
        b"access to model ",
        b"access to dataset ",
        b"access denied",
        b"invalid username or password",
    ),
    *(b"404: not found", b"404 page not found", b"404 not found", b"not found", b"unauthorized"),
    *(b"forbidden", b'{"error":', b'{"errors":', b'{"message":', b"<error>"),
)
"""Texts that file servers and object stores answer with instead of a file, in lower case."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; never blocks on a FIFO. Links are followed as `links` says.

    Raises:
        RefusedInput: UNREADABLE or UNSAFE_PATH.
    """
    if (remote := elsewhere.opened(path)) is not None:
        return remote
    try:
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(target_of(path), os.O_RDONLY | safe)
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RefusedInput(Reason.UNSAFE_PATH, f"{path.name} is not a regular file")
    return os.fdopen(handle, "rb")


def read_whole(path: Path, most_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        RefusedInput: TOO_LARGE, UNREADABLE or UNSAFE_PATH.
    """
    with open_regular(path) as file:
        size = elsewhere.size_of(file)
        if size > most_bytes:
            raise RefusedInput(
                Reason.TOO_LARGE, f"{path.name} has {size} bytes, limit {most_bytes}: too large"
            )
        return file.read(size)


_heads: Final[ContextVar[dict[Path, bytes] | None]] = ContextVar("_heads", default=None)
REMEMBERED_BYTES: Final = 512


@contextmanager
def heads_remembered() -> Iterator[None]:
    """Inside this block each file is opened once, whoever asks `head_of` for its first bytes.

    For a search, in which a score of readers look at every file.
    """
    token = _heads.set({})
    try:
        yield
    finally:
        _heads.reset(token)


def head_of(path: Path, count: int) -> bytes:
    """The first bytes of a regular file, as many as there are, at most `count`.

    Raises:
        RefusedInput: UNREADABLE or UNSAFE_PATH.
    """
    heads = _heads.get()
    if heads is None or count > REMEMBERED_BYTES:
        return _read_head(path, count)
    if path not in heads:
        heads[path] = _read_head(path, REMEMBERED_BYTES)
    return heads[path][:count]


def _read_head(path: Path, count: int) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(count)
    except OSError as error:
        raise RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror}") from None


def sniff(path: Path) -> Content:
    """The kind of a file, judged by its first bytes. A file that cannot be opened is "unknown"."""
    try:
        return content_of(head_of(path, SNIFFED_BYTES))
    except RefusedInput:
        return "unknown"


def content_of(head: bytes) -> Content:
    """The kind of a file with these first bytes; SNIFFED_BYTES of them are enough."""
    if not head:
        return "empty"
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if (stand_in := _stand_in_kind(head)) is not None:
        return stand_in
    return "video" if _is_video(head) else "unknown"


def stand_in(path: Path) -> str | None:
    """What is in the place of a file that was not copied or downloaded, and what to do; else None.

    Ask this where a file is refused: a Git LFS pointer is a better reason than "no whole zip file".
    The file is opened through symbolic links, as of a model that the user names.
    """
    try:
        with open_regular(Path(os.path.realpath(path))) as file:
            return stand_in_of(file.read(SNIFFED_BYTES))
    except (RefusedInput, OSError):
        return None


def stand_in_of(head: bytes) -> str | None:
    """As `stand_in`, for a file with these first bytes."""
    return STAND_INS.get(content_of(head))


def is_pointer(path: Path) -> bool:
    """Whether a file only names another: a pointer of Git LFS, Xet or git-annex."""
    try:
        small = path.stat().st_size <= LARGEST_POINTER
    except OSError:
        return False
    return small and sniff(path) in {kind for _, kind in _POINTERS}


def _stand_in_kind(head: bytes) -> Content | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, kind in _POINTERS:
        if text.startswith(start):
            return kind
    if text.startswith(_PAGES):
        return "html"
    xml_error = text.startswith(b"<?xml") and b"<error>" in text
    whole = len(head) < SNIFFED_BYTES
    return "server_error" if xml_error or (whole and text.startswith(_SERVER_ERRORS)) else None


def _is_video(head: bytes) -> bool:
    """Whether these are the first bytes of a video container."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return True  # ISO base media: mp4, mov, 3gp
    if head[:4] in (b"\x1a\x45\xdf\xa3", b"OggS", b"FLV\x01", b"\x30\x26\xb2\x75"):
        return True  # Matroska and WebM; Ogg; Flash; ASF
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return True
    if head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"):
        return True  # MPEG program and elementary streams
    # MPEG transport streams: a sync byte at every packet of 188, or of 192 with a time code.
    return (head[:1] + head[188:189] == b"\x47\x47") or (head[4:5] + head[196:197] == b"\x47\x47")


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies directly in a folder, each kind sorted by name.

    files    names of the files that may be opened: regular ones, and links that are followed
    stamps   of each file: size in bytes, and times of the last change of its bytes and of its entry, ns
    links    names of those files that are links
    folders  names of folders to be searched
    refused  what must not be opened, by name, with the reason; "": the folder itself
    """

    files: tuple[str, ...]
    stamps: tuple[tuple[int, int, int], ...]
    links: frozenset[str]
    folders: tuple[str, ...]
    refused: Mapping[str, RefusedInput]


def listed(folder: Path, depth: int = 0) -> Listing:
    """List a folder as `walk` does.

    Args:
        folder: absolute path.
        depth: of the folder below the one that was given.
    """
    files: dict[str, tuple[int, int, int]] = {}
    links: set[str] = set()
    folders: list[str] = []
    refused: dict[str, RefusedInput] = {}

    def add(entry: os.DirEntry[str]) -> None:
        path, name = folder / entry.name, entry.name
        about = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(about.st_mode):
            about = target_of(path).lstat()
            links.add(name)
        if stat.S_ISREG(about.st_mode):
            too_large = _hollow(name, about)
            if too_large is not None and elsewhere.remote_of(path) is None:
                raise too_large
            files[name] = about.st_size, about.st_mtime_ns, about.st_ctime_ns
        elif name in links:
            return
        elif not stat.S_ISDIR(about.st_mode):
            if _ending(name) in VIDEO_ENDINGS:
                raise NOT_OPENED
        elif depth >= DEEPEST_FOLDER and not holds_blobs(path):
            why = f"folders nested deeper than {DEEPEST_FOLDER}"
            raise RefusedInput(Reason.UNSAFE_PATH, why)
        elif not holds_blobs(path):
            folders.append(name)

    try:
        with os.scandir(folder) as entries:
            every = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        every = []
        refused[""] = RefusedInput(Reason.UNREADABLE, f"folder: {error.strerror}")
    for entry in every:
        path = folder / entry.name
        try:
            add(entry)
        except RefusedInput as why:
            # Links to other things are no inputs.
            like_data = _ending(entry.name) in LINKED_ENDINGS | HOLLOW_ENDINGS
            if like_data or not path.is_symlink() or path.is_dir():
                refused[entry.name] = why
        except OSError as error:
            refused[entry.name] = RefusedInput(Reason.UNREADABLE, str(error.strerror))
    names = tuple(sorted(files))
    return Listing(
        names,
        tuple(files[name] for name in names),
        frozenset(links & files.keys()),
        tuple(sorted(folders)),
        refused,
    )


def walk(
    root: Path, list_folder: Callable[[Path, int], Listing] = listed
) -> Iterator[tuple[Path, RefusedInput | None]]:
    """Every file below a folder, sorted by path; for a file that must not be opened, the reason.

    Hidden files and folders are skipped, and the nameless files of a hub's cache. A link to a file is
    followed as `links` says, and listed under its own name. Other links to files that are named like
    data are refused, and links to folders that lead out of this one. Named pipes, devices and sockets
    are skipped, or refused if they are named like a video.

    Args:
        root: absolute path of a folder, which `links.follow_within` was told.
        list_folder: lists a folder of a depth.
    """
    seen: set[tuple[int, int]] = set()

    def below(folder: Path, depth: int) -> Iterator[tuple[Path, RefusedInput | None]]:
        if loops(folder, seen):
            return
        listing = list_folder(folder, depth)
        subfolders = set(listing.folders)
        for name in sorted({*listing.files, *listing.refused, *subfolders}):
            path = folder / name
            if name in subfolders:
                yield from below(path, depth + 1)
            else:
                yield path, listing.refused.get(name)

    yield from below(root, 0)


def loops(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was seen before, and note that it is seen: bind mounts loop without any link."""
    try:
        here = folder.stat()
    except OSError:
        return False
    known = (here.st_dev, here.st_ino) in seen
    seen.add((here.st_dev, here.st_ino))
    return known


def hollow(path: Path) -> RefusedInput | None:
    """The refusal of a file that claims far more bytes than it takes up on disk, else None.

    A sparse file of a terabyte costs nothing to make and hours to read.
    """
    return _hollow(path.name, path.stat())


def _hollow(name: str, found: os.stat_result) -> RefusedInput | None:
    if found.st_size < HOLLOW_FROM_BYTES or _ending(name) not in HOLLOW_ENDINGS:
        return None
    on_disk = found.st_blocks * 512
    if on_disk * HOLLOW_TIMES > found.st_size:
        return None
    return RefusedInput(
        Reason.TOO_LARGE, f"a sparse file: {found.st_size} bytes, of which {on_disk} are on disk"
    )


def _ending(name: str) -> str:
    """As `Path.suffix`, in lower case."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (a path each for 100,000 names is slow)
