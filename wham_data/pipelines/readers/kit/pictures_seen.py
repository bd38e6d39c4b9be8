"""Which of the pictures that an observation holds is the recording's, and which are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

E = TypeVar("E")


def first_picture(
    found: Sequence[E], in_colour: Callable[[E], bool], dtype: Callable[[E], str]
) -> E | None:
    """The picture where nobody says which: the first in colour, else the first of 8 bits, else none.

    A depth map is no picture, though it is stored as one: it has 16 bits, or floats.
    """
    eight_bit = [each for each in found if dtype(each) == "uint8"]
    return next(filter(in_colour, eight_bit), eight_bit[0] if eight_bit else None)


def not_taken(paths: Sequence[str]) -> tuple[str, ...]:
    """The note that names pictures which were left out; () for none."""
    if not paths:
        return ()
    return (f"left out: {', '.join(paths)} (--option picture=NAME takes another)",)
