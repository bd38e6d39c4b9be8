"""Values of CDR: each at a multiple of its size, in either order of bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from wham_data.files.messages.cdr import CdrValues
from wham_data.schemas.errors import Reason, RefusedInput

BIG, LITTLE = b"\0\0\0\0", b"\0\1\0\0"


@pytest.mark.parametrize(("head", "order"), [(BIG, ">"), (LITTLE, "<")])
def test_a_number_lies_at_a_multiple_of_its_size_after_the_head(head: bytes, order: str) -> None:
    data = head + struct.pack(f"{order}I2s2xd", 2, b"a\0", 0.25)
    values = CdrValues(data)

    assert values.text() == "a"
    assert values.numbers(np.dtype("f8"), 1).tolist() == [0.25]
    values.check_end()


def test_an_empty_sequence_needs_no_room_for_its_elements() -> None:
    values = CdrValues(LITTLE + struct.pack("<III", 0, 1, 7))

    assert values.numbers(np.dtype("f8")).tolist() == []
    assert values.numbers(np.dtype("i4")).tolist() == [7]


def test_a_time_is_of_seconds_and_nanoseconds() -> None:
    assert CdrValues(LITTLE + struct.pack("<iI", 3, 5)).time_ns() == 3_000_000_005


@pytest.mark.parametrize("size", [5, 1 << 20, (1 << 32) - 1])
def test_a_length_beyond_the_message_is_refused_before_anything_is_allocated(size: int) -> None:
    values = CdrValues(LITTLE + struct.pack("<I", size) + b"1234")

    with pytest.raises(RefusedInput) as refused:
        values.octets()

    assert refused.value.reason == Reason.LOG_SYNTAX


@pytest.mark.parametrize("head", [b"", b"\0\1", b"\0\3\0\0", b"\0\x11\0\0"])
def test_anything_else_than_plain_cdr_is_refused(head: bytes) -> None:
    with pytest.raises(RefusedInput, match="not plain CDR"):
        CdrValues(head)


def test_more_values_than_the_type_has_are_refused() -> None:
    values = CdrValues(LITTLE + bytes(12))
    values.numbers(np.dtype("u4"), 1)

    with pytest.raises(RefusedInput, match="8 bytes more than its type has"):
        values.check_end()
