"""An archive is never unpacked; what is wrong with it is said before a person unpacks it."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason

Members = list[tuple[str, bytes]]
GOOD: Members = [("session/clip.mp4", b"pictures" * 50), ("session/clip.csv", b"time_s,a\n0,1\n")]


def zipped(members: Members, *, store: bool = False) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED if store else zipfile.ZIP_DEFLATED) as out:
        for name, content in members:
            out.writestr(name, content)
    return body.getvalue()


def tarred(members: Members, mode: str = "w", **header: object) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode=mode) as out:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in header.items():
                setattr(info, field, value)
            out.addfile(info, io.BytesIO(content))
    return body.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped(GOOD))
    at = 0
    while (at := data.find(b"PK\x01\x02", at + 1)) > 0:
        data[at + 8] |= 1
    return bytes(data)


def with_a_link() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as out:
        link = zipfile.ZipInfo("log.csv")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
    return body.getvalue()


def flipped(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


def claiming_terabytes() -> bytes:
    data = bytearray(tarred([("clip.mp4", b"x")]))
    data[124:136] = b"\x80" + (8 << 40).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "make", "reason", "words"),
    [
        ("a.zip", lambda: zipped(GOOD), Reason.FORMAT_NOT_ALLOWED, "unpack it first"),
        ("a.tar", lambda: tarred(GOOD), Reason.FORMAT_NOT_ALLOWED, "unpack it first"),
        ("a.tgz", lambda: tarred(GOOD, "w:gz"), Reason.FORMAT_NOT_ALLOWED, "unpack it first"),
        ("a.7z", lambda: b"7z\xbc\xaf\x27\x1c" * 9, Reason.FORMAT_NOT_ALLOWED, "unpack it first"),
        ("a.zip", lambda: zipped([("../a", b"")]), Reason.ARCHIVE_UNSAFE, "outside"),
        ("a.zip", lambda: zipped([("C:\\a", b"")]), Reason.ARCHIVE_UNSAFE, "outside"),
        ("a.tar", lambda: tarred([("/tmp/a", b"")]), Reason.ARCHIVE_UNSAFE, "outside"),
        ("a.txz", lambda: tarred([("a/../../b", b"")], "w:xz"), Reason.ARCHIVE_UNSAFE, "outside"),
        ("a.zip", with_a_link, Reason.ARCHIVE_UNSAFE, "link"),
        (
            "a.tar",
            lambda: tarred([("a", b"")], type=tarfile.SYMTYPE, linkname="/etc"),
            Reason.ARCHIVE_UNSAFE,
            "link",
        ),
        ("a.zip", lambda: zipped([("a", b""), ("A", b"")]), Reason.ARCHIVE_UNSAFE, "duplicate"),
        ("a.tar", lambda: tarred([("a", b""), ("a", b"")]), Reason.ARCHIVE_UNSAFE, "duplicate"),
        (
            "a.zip",
            lambda: zipped([(str(k), b"") for k in range(5001)]),
            Reason.ARCHIVE_UNSAFE,
            "too many members: 5001",
        ),
        ("a.zip", lambda: zipped([("a", bytes(50 << 20))]), Reason.TOO_LARGE, "200 times"),
        ("a.tgz", lambda: tarred([("a", bytes(40 << 20))], "w:gz"), Reason.TOO_LARGE, "200 times"),
        ("a.tar", claiming_terabytes, Reason.TOO_LARGE, "8796093022208 bytes"),
        ("a.zip", encrypted, Reason.ARCHIVE_ENCRYPTED, "encrypted"),
        ("a.zip", lambda: zipped(GOOD)[:-30], Reason.TRUNCATED, "directory"),
        ("a.zip", lambda: flipped(zipped(GOOD, store=True)), Reason.ARCHIVE_CORRUPT, "CRC"),
        ("a.tar.gz", lambda: tarred(GOOD, "w:gz")[:40], Reason.ARCHIVE_CORRUPT, "damaged"),
    ],
)
def test_an_archive_is_refused_with_what_is_wrong_with_it(
    tmp_path: Path, name: str, make: Callable[[], bytes], reason: Reason, words: str
) -> None:
    (tmp_path / name).write_bytes(make())

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is reason
    assert words in why.message
    assert "\n" not in why.message
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_log_of_nonsense_that_is_compressed_is_no_tar_file(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(zlib.compress(struct.pack("<9I", *range(9)), wbits=31))

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.FORMAT_NOT_ALLOWED
