"""Guesses tokens ahead of the model, without changing its result.

Most tokens of a frame equal those of the frame before, perhaps moved a little. So a block of guesses
is fed at once, and the model makes its own choice after each of them. While guess and choice agree,
the choices are valid, because each was made after the right tokens. The first choice that differs is
valid too. The choices after it were made after a wrong token: they are dropped, but they are better
guesses than before, and are used in the next block.

The result is the same: a choice is a fixed function of the past and of the noise of its place
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
"""The search for motion goes up to this many tokens."""

SHORTEST_BLOCK, LONGEST_BLOCK = 2, 64
USUAL_AT_FIRST = 8.0

FREE_TOKENS, FREE_TOKENS_IN_FLOAT32 = 192, 64
"""On a GPU, so many tokens of all dreams together take about as long as one, in half precision and in
float32. Estimated from an H200's figures: 790 and 50 TFLOP/s, 4.3 TB/s."""

_LONGEST_IN_FLOAT32, _MULTIPLE = 16, 8


def guess_frame(last: Ids, before: Ids | None, grid: tuple[int, int] | None) -> Ids:
    """The next frame, if the motion of the last two frames continues.

    Args:
        last: int64 [N], the newest frame.
        before: int64 [N], the frame before it; None if there is none.
        grid: rows and columns of tokens; None if unknown: then nothing is moved.

    Returns:
        int64 [N]: the newest frame, moved by whole tokens, with the motion that best fits the last
        two frames. Tokens that move in from outside repeat the edge.
    """
    if before is None or grid is None:
        return last
    rows, columns = find_motion(before.reshape(grid), last.reshape(grid))
    return moved(last.reshape(grid), rows, columns).reshape(-1)


def find_motion(before: Ids, last: Ids) -> tuple[int, int]:
    """How many tokens down and to the right the picture moved, int64 [rows, columns] each.

    It is the motion for which the largest share of the overlapping tokens agree. Of two motions with
    the same share, the smaller one counts.
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
    """How many choices are valid: those after right guesses, including the first that differs.

    Args:
        guesses: int64 [m - 1], the guesses that were fed.
        choices: int64 [m]; choices[i] was made after guesses[:i].

    Returns:
        1..m.
    """
    wrong = np.flatnonzero(guesses != choices[:-1])
    return int(wrong[0]) + 1 if len(wrong) else len(choices)


def block_lengths(rows: int, *, on_gpu: bool, half: bool) -> tuple[int, int]:
    """The smallest and the largest number of tokens of one dream in a pass with guesses.

    On a CPU, a pass for 64 tokens takes about 6 times as long as a pass for one token, and a pass for
    8 tokens twice as long, so the length follows the luck of the guesses. On a GPU, all passes of few
    tokens take as long as reading the weights and the cache: in half precision up to about 200 tokens
    of all dreams together, and in float32, without tensor cores, up to a few dozen. There a block has
    as many as that, and always the same number, because passes of few shapes are recorded.

    Args:
        rows: number of dreams that share a pass.
        half: the model computes in bf16.
    """
    if not on_gpu:
        return SHORTEST_BLOCK, LONGEST_BLOCK
    longest = LONGEST_BLOCK if half else _LONGEST_IN_FLOAT32
    free = (FREE_TOKENS if half else FREE_TOKENS_IN_FLOAT32) // rows // _MULTIPLE * _MULTIPLE
    block = max(_MULTIPLE, min(free, longest))
    return block, block


class BlockLength:
    """Number of tokens for the next pass, from the number that the latest passes gave.

    A long block is useful even if a guess is wrong: choices after a wrong token are often right in
    the next pass. So a block is long unless passes give few tokens: it has 12 more tokens than the
    shortest block for each token that a pass usually gives after the first.
    """

    def __init__(
        self,
        shortest: int = SHORTEST_BLOCK,
        usual: float = USUAL_AT_FIRST,
        longest: int = LONGEST_BLOCK,
    ) -> None:
        self._shortest, self._longest = shortest, longest
        self.usual = usual

    @property
    def tokens(self) -> int:
        """Number of tokens for the next pass."""
        return min(self._shortest + round(12 * (self.usual - 1)), self._longest)

    def came(self, accepted: int) -> None:
        """Record how many tokens a pass gave."""
        self.usual += (accepted - self.usual) / 8
