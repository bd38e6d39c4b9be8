"""Ways in which bytes go wrong: pure functions of the bytes and a random generator."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

EDGES = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
WORDS = (
    b"null true false NaN Infinity -Infinity -0 1e999 1e-999 0.1 99999999999999999999 18446744073709551616 "
    b'"" [] {} [[]] {"a":{}} "\\u0000" "../../x" "\\ud800" -1 1.5 "NaN" \xff \x00'
).split(b" ")
NUMBER = re.compile(rb"-?\d+(\.\d+)?")
VALUE = re.compile(rb'-?\d+(\.\d+)?|"[^"\n]{0,40}"|true|false|null|\[[^\[\]\n]{0,60}\]')
MOST_CHANGES = 4


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` after one to four things went wrong with it; in the members of a zip file, mostly."""
    if content.startswith(b"PK\3\4") and rng.random() < 0.7:
        return _in_a_zip(content, rng)
    for _ in range(rng.integers(1, MOST_CHANGES + 1)):
        content = MUTATIONS[rng.integers(len(MUTATIONS))](content, rng)
    return content


def _in_a_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """The same archive with one member changed and every checksum right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        members = old.infolist()
        weights = np.array([3.0 if m.file_size < 1 << 16 else 1.0 for m in members])
        chosen = rng.choice(len(members), p=weights / weights.sum())
        for number, member in enumerate(members):
            data = old.read(member)
            changed = mutated(data, rng) if number == chosen and data[:4] != b"PK\3\4" else data
            new.writestr(member.filename, changed, member.compress_type)
    return out.getvalue()


def _flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    for place in rng.integers(0, len(changed), rng.integers(1, 9)).tolist():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _overwrite_number(content: bytes, rng: np.random.Generator) -> bytes:
    """A whole number of an interesting size, in either byte order, wherever it falls."""
    width, code = (("1", "b"), ("2", "h"), ("4", "i"), ("8", "q"))[rng.integers(4)]
    size = int(width)
    if len(content) < size:
        return content
    value = EDGES[rng.integers(len(EDGES))] & (1 << 8 * size) - 1
    packed = struct.pack(("<" if rng.random() < 0.7 else ">") + code.upper(), value)
    place = int(rng.integers(0, len(content) - size + 1))
    return content[:place] + packed + content[place + size :]


def _cut_off(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def _take_out(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = _stretch(content, rng)
    return content[:first] + content[last:]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = _stretch(content, rng)
    return content[:last] + content[first:last] * int(rng.integers(1, 5)) + content[last:]


def _exchange(content: bytes, rng: np.random.Generator) -> bytes:
    """Two neighbouring stretches change places."""
    first, middle = _stretch(content, rng)
    last = min(len(content), middle + int(rng.integers(0, 64)))
    return content[:first] + content[middle:last] + content[first:middle] + content[last:]


def _put_noise(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = _stretch(content, rng)
    noise = rng.integers(0, 256, int(rng.integers(0, 64)), np.uint8).tobytes()
    return content[:first] + noise + content[last:]


def _replace_value(content: bytes, rng: np.random.Generator) -> bytes:
    """A JSON value, or what looks like one, becomes another."""
    return _replace(VALUE, content, WORDS[rng.integers(len(WORDS))], rng)


def _replace_number(content: bytes, rng: np.random.Generator) -> bytes:
    value = EDGES[rng.integers(len(EDGES))] * int(rng.choice([1, 1, 1, 1000, 10**12]))
    return _replace(NUMBER, content, str(value).encode(), rng)


def _exchange_lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    if not 1 < len(lines) < 10_000:
        return content
    one, other = rng.integers(0, len(lines), 2).tolist()
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _overwrite_number,
    _cut_off,
    _take_out,
    _repeat,
    _exchange,
    _put_noise,
    _replace_value,
    _replace_value,
    _replace_number,
    _replace_number,
    _exchange_lines,
)


def _stretch(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    first = int(rng.integers(0, len(content) + 1))
    return first, min(len(content), first + int(rng.integers(0, 256)))


def _replace(
    pattern: re.Pattern[bytes], content: bytes, word: bytes, rng: np.random.Generator
) -> bytes:
    """One match in a stretch of text, with `word` in its place."""
    start = int(rng.integers(0, max(1, len(content) - 4096)))
    matches = list(pattern.finditer(content, start, start + 8192))
    if not matches:
        return content
    match = matches[rng.integers(len(matches))]
    return content[: match.start()] + word + content[match.end() :]
