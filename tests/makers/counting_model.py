"""A world model that is no transformer and is played in another action space than WHAM's.

Its frames are grey blocks. Each step in which `forward` is down makes every block one shade lighter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wham_data import Step, UsageError
from wham_data.inference.session import Context, DreamStats, one_by_one
from wham_data.schemas.actions import load_space
from wham_data.schemas.corpus_info import TokenizerInfo

VPT = load_space("vpt")
FORWARD = VPT.index("forward")
SHADES = 86


class GreyBlocks:
    """A picture of 3 x 5 blocks of 6 pixels; the grey of a block is three times its id."""

    info = TokenizerInfo("grey", "1" * 64, (3, 5), SHADES, (30, 18))
    fingerprint, grid, vocab_size, frame_size = info.fingerprint, info.grid, SHADES, (30, 18)

    def encode(self, frames_u8: NDArray[np.uint8]) -> NDArray[np.uint16]:
        return (frames_u8[:, ::6, ::6, 0] // 3).reshape(-1, 15).astype(np.uint16)

    def decode(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        blocks = (tokens.reshape(-1, 3, 5, 1) * 3).astype(np.uint8)
        return blocks.repeat(6, axis=1).repeat(6, axis=2).repeat(3, axis=3)


class CountingSession:
    """Shows each frame, and makes the next one of it and the action on it."""

    def __init__(self, frames: NDArray[np.int64], waiting: bool = False) -> None:
        self.frames, self.waiting, self.closed = frames, waiting, False

    def step(self, actions: Any = None, *, frames: NDArray[np.integer] | None = None) -> Step:
        self._check(waiting=False)
        if frames is not None:
            self.frames = frames.astype(np.int64)
        shown, stats = self.frames.astype(np.uint16), tuple(DreamStats() for _ in self.frames)
        taken = np.full((len(shown), VPT.size), np.nan, np.float32)
        self.waiting = True
        if not isinstance(actions, str):
            taken = self.act(actions)
        return Step(shown, taken, stats, GreyBlocks())

    def act(self, actions: NDArray[np.floating] | None = None) -> NDArray[np.float32]:
        self._check(waiting=True)
        if actions is None:
            actions = np.tile(VPT.null(), (len(self.frames), 1))
        if actions.shape != (len(self.frames), VPT.size):
            raise UsageError(f"actions of shape {actions.shape}")
        self.frames = (self.frames + actions[:, FORWARD : FORWARD + 1].astype(np.int64)) % SHADES
        self.waiting = False
        return actions.astype(np.float32)

    def steps(self, count: int, actions: Any = None, *, frames: Any = None) -> Iterator[Step]:
        return one_by_one(self, count, actions, frames)

    def clone(self) -> CountingSession:
        return CountingSession(self.frames.copy(), self.waiting)

    def save(self) -> bytes:
        return json.dumps([self.frames.tolist(), self.waiting]).encode()

    def close(self) -> None:
        self.closed = True

    def _check(self, *, waiting: bool) -> None:
        if self.closed or self.waiting != waiting:
            raise UsageError("closed, or an action is still to be decided")


class CountingModel:
    """Played in `vpt`; an action is read as one thing, so a step has 15 tokens and one more."""

    name, wham, unexpected, tokenizer = "counting", False, (), GreyBlocks()
    action_space, device, dtype = "vpt", "cpu", "float32"
    spec = SimpleNamespace(image_tokens=15, image_vocab=SHADES, tokens_per_step=16, steps=4)

    def fingerprint(self) -> str:
        return "2" * 64

    def dream_bytes(self, context_steps: int) -> int:
        return 1024 * context_steps

    def begin(
        self, contexts: Sequence[Context], _seeds: Sequence[int], **_: object
    ) -> CountingSession:
        newest = [(c.tokens[-1].astype(np.int64), c.actions[-1]) for c in contexts]  # type: ignore[index]
        session = CountingSession(np.stack([tokens for tokens, _ in newest]), waiting=True)
        session.act(np.stack([actions for _, actions in newest]))
        return session

    def restore(self, saved: bytes) -> CountingSession:
        frames, waiting = json.loads(saved)
        return CountingSession(np.array(frames), waiting)
