"""Guessing tokens ahead of the model, without changing what it says.

Most tokens of a frame are those of the frame before, perhaps a little further along. So a block of
guesses is fed at once, and the model's own choice is made behind each of them. As long as guess and
choice agree, the choices stand, for each was made behind the right past; so does the first choice
that disagrees. What comes after it was chosen behind a wrong past: it is dropped, but is a better
guess than the one before, and goes into the next block.

Nothing is lost: a choice is a fixed function of the past and of the noise of its place
(`sampling.Noise`), so the tokens are those of plain decoding, one at a time, with the same seed. In
the words of speculative sampling: a guessed token x is accepted with probability p(x), and otherwise
the token comes from p without x, renormalised. Only rounding differs between a block and single
tokens, as it does between any two ways of splitting up a matrix product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

MOST_SHIFT_ROWS, MOST_SHIFT_COLUMNS = 2, 4
"""Motion is looked for up to this many tokens."""

SHORTEST_BLOCK, LONGEST_BLOCK = 2, 64
USUAL_AT_FIRST = 8.0


def guess_frame(last: Ids, before: Ids | None, grid: tuple[int, int] | None) -> Ids:
    """The frame that would follow if things went on as they were.

    Args:
        last: int64 [N], the newest frame.
        before: int64 [N], the frame before it, None where there is none.
        grid: rows and columns of tokens; None where unknown, and nothing is then moved.

    Returns:
        int64 [N]: the newest frame, moved by the whole-token motion that best explains it from the
        one before. What moves in from outside repeats the edge.
    """
    if before is None or grid is None:
        return last
    rows, columns = find_motion(before.reshape(grid), last.reshape(grid))
    return moved(last.reshape(grid), rows, columns).reshape(-1)


def find_motion(before: Ids, last: Ids) -> tuple[int, int]:
    """How many tokens down and to the right the picture moved, int64 [rows, columns] each.

    The motion under which most tokens of the overlap agree, compared by their share of it; the
    smaller motion where two agree alike.
    """
    height, width = last.shape
    shifts = [
        (down, right)
        for down in range(-MOST_SHIFT_ROWS, MOST_SHIFT_ROWS + 1)
        for right in range(-MOST_SHIFT_COLUMNS, MOST_SHIFT_COLUMNS + 1)
        if abs(down) < height and abs(right) < width
    ]
    shifts.sort(key=lambda shift: abs(shift[0]) + abs(shift[1]))

    def agreement(shift: tuple[int, int]) -> float:
        down, right = shift
        old = before[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
        new = last[max(down, 0) : height - max(-down, 0), max(right, 0) : width - max(-right, 0)]
        return float(np.mean(old == new))

    return max(shifts, key=agreement)


def moved(frame: Ids, down: int, right: int) -> Ids:
    """`frame`, int64 [rows, columns], moved by whole tokens; the edge is repeated."""
    height, width = frame.shape
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frame[np.ix_(rows, columns)]


def agreed(guesses: Ids, choices: Ids) -> int:
    """How many of the choices stand: those behind right guesses, and the first that differs.

    Args:
        guesses: int64 [m - 1], what was fed.
        choices: int64 [m]; choices[i] was made behind guesses[:i].

    Returns:
        1..m.
    """
    wrong = np.flatnonzero(guesses != choices[:-1])
    return int(wrong[0]) + 1 if len(wrong) else len(choices)


class BlockLength:
    """How many tokens to ask for in one pass, from how many came of the latest ones.

    On a CPU a pass for 64 tokens takes about 6 times as long as one for a single token, one for 8
    already twice as long; on a GPU all take about the same. And a long block is not lost where it
    fails: what was chosen behind a wrong past is often right the next time, so that more comes of
    long blocks even where few first guesses are right. So a block is long unless little comes of
    it: beyond the shortest, 12 tokens are asked for each that usually comes after the first.
    """

    def __init__(self, shortest: int = SHORTEST_BLOCK, usual: float = USUAL_AT_FIRST) -> None:
        self._shortest = shortest
        self.usual = usual

    @property
    def tokens(self) -> int:
        """Tokens for the next pass."""
        return min(self._shortest + round(12 * (self.usual - 1)), LONGEST_BLOCK)

    def came(self, accepted: int) -> None:
        """Learn how many tokens a pass gave."""
        self.usual += (accepted - self.usual) / 8
