"""The seam of every world model: `begin` starts dreams, `step` makes their next step.

A step k is a frame o_k and the action a_k that is taken on seeing it; o_k+1 follows from both and
from all that came before. One call of `step` makes one frame of each dream, and says who decides the
action on that frame:

    step(actions)   the caller, who knows it beforehand
    step(None)      the model
    step(LATER)     whoever has seen the frame: `act` tells, before the next `step`

So a person at a pad plays like this:

    session = model.begin([context], [seed])
    while playing:
        show(session.step(LATER).frames[0])
        session.act(read_the_pad())
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.sampling import Sampling
from wham_data.inference.tokenizers.contract import Tokenizer
from wham_data.schemas.errors import UsageError

LATER: Final = "later"
"""The action on seeing a frame is decided after the frame was seen."""

Actions = NDArray[np.floating]
"""Actions as a caller gives them: float [..., A], measured."""

Frames = NDArray[np.integer]
"""Frames as a caller gives them: integer [..., N] tokens, or uint8 [..., H, W, 3] RGB."""


@dataclass(frozen=True, slots=True)
class Context:
    """The steps that a dream starts from, oldest first: each a frame and the action on seeing it.

    actions  float [C, A] measured, in the model's action space
    tokens   integer [C, N] image tokens of the model's own tokenizer, or
    frames   uint8 [C, H, W, 3] RGB, which that tokenizer encodes

    Raises:
        UsageError: tokens and frames are both given or both missing, there are no steps, or the
            number of actions differs from the number of frames.
    """

    actions: Actions
    tokens: NDArray[np.integer] | None = None
    frames: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        pictures = self.tokens if self.tokens is not None else self.frames
        if pictures is None or (self.tokens is not None and self.frames is not None):
            raise UsageError("a context holds either tokens or frames: give exactly one of them")
        if self.actions.ndim != 2 or len(self.actions) != len(pictures):
            raise UsageError(
                f"a context of {len(pictures)} frames has actions of shape {self.actions.shape}: "
                f"expected ({len(pictures)}, A)"
            )
        if not len(pictures):
            raise UsageError("a context of no steps: expected at least 1")


@dataclass(slots=True)
class DreamStats:
    """What a dream cost so far, in work and not in time.

    context_steps  the most steps that the model saw when it made one
    passes         forward passes
    prefills       those that read a window in from its start
    fed            tokens fed, prefills and refused guesses included
    generated      tokens made
    guessed        guesses fed
    accepted       guesses that the model agreed with
    clamped        stick values of the given actions that were out of range
    """

    context_steps: int = 0
    passes: int = 0
    prefills: int = 0
    fed: int = 0
    generated: int = 0
    guessed: int = 0
    accepted: int = 0
    clamped: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the guesses that were right; 0 where none was made."""
        return self.accepted / self.guessed if self.guessed else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens made per forward pass; 1 is what decoding without guesses reaches."""
        return self.generated / self.passes if self.passes else 0.0


@dataclass(frozen=True)
class Step:
    """One step of each dream of a session.

    tokens   uint16 [B, N], the frames as image tokens
    actions  float32 [B, A] measured, as the model reads them; NaN where they are decided later
    stats    per dream, what it has cost so far; a copy
    frames   uint8 [B, H, W, 3], decoded when first asked for
    """

    tokens: NDArray[np.uint16]
    actions: NDArray[np.float32]
    stats: tuple[DreamStats, ...]
    _tokenizer: Tokenizer | None = field(repr=False)

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """The pictures.

        Raises:
            UsageError: the model has no tokenizer.
        """
        return need_tokenizer(self._tokenizer).decode(self.tokens)


class Session(Protocol):
    """Dreams under way, B of them side by side. What it makes depends on what it was given alone:
    not on the batch, nor on when it was saved, restored or cloned.

    Every method but `close` raises `UsageError` once the session is closed. Arguments are checked
    before anything is changed.
    """

    def step(
        self, actions: Actions | Literal["later"] | None = None, *, frames: Frames | None = None
    ) -> Step:
        """Make the next frame of each dream.

        Args:
            actions: float [B, A] measured, taken on seeing the frames that this call makes; None:
                the model chooses them; `LATER`: `act` tells them before the next step.
            frames: the frames themselves, where they are known and not to be made: [B, ...].

        Raises:
            UsageError: of another shape or out of range, or the actions on the newest frames are
                still to be decided.
        """
        ...

    def act(self, actions: Actions | None = None) -> NDArray[np.float32]:
        """Decide the actions on the newest frames, which `step(LATER)` made.

        Args:
            actions: float [B, A] measured; None: the model chooses them now.

        Returns:
            float32 [B, A], as the model reads them.

        Raises:
            UsageError: of another shape or out of range, or there is nothing to decide.
        """
        ...

    def steps(
        self,
        count: int,
        actions: Sequence[Actions] | None = None,
        *,
        frames: Sequence[Frames] | None = None,
    ) -> Iterator[Step]:
        """The same steps as `count` calls of `step`, where all is known beforehand.

        A session may use what it knows to work ahead. It may be left at any step and used on.
        `one_by_one` is all that a simple kind of model needs here.

        Args:
            actions: per dream float [count, A]; None: the model chooses them.
            frames: per dream [count, ...]; None: the model makes them.
        """
        ...

    def clone(self) -> Session:
        """Another session at the same place: a branch. Each goes on as if the other were not there."""
        ...

    def save(self) -> bytes:
        """All that `WorldModel.restore` needs to go on from here: plain data, without the model."""
        ...

    def close(self) -> None:
        """Free its memory. Closing a closed session does nothing."""
        ...


class ModelSpec(Protocol):
    """The sizes of a world model's steps."""

    @property
    def image_tokens(self) -> int:
        """N, image tokens of a step."""
        ...

    @property
    def image_vocab(self) -> int:
        """V; image tokens are 0..V-1."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step, those of its action included."""
        ...

    @property
    def steps(self) -> int:
        """S, the most steps that the model can hold, the one that it makes included."""
        ...


class WorldModel(Protocol):
    """What dreams, whatever is inside."""

    @property
    def name(self) -> str:
        """The file's or folder's name, or that of a bundled model."""
        ...

    @property
    def wham(self) -> bool:
        """A WHAM checkpoint, as it is or converted: what it makes has to say so."""
        ...

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Parts of the file that nobody knows and that were left out."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Frames to tokens and back; None where the model came without one."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """The sizes of its steps."""
        ...

    @property
    def action_space(self) -> str:
        """The name of the space that its actions are in (`wham_data.load_space`)."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0", ..."""
        ...

    @property
    def dtype(self) -> str:
        """In what it computes: "float32" or "bf16"."""
        ...

    def fingerprint(self) -> str:
        """Hex SHA-256 over sizes and weights."""
        ...

    def dream_bytes(self, context_steps: int) -> int:
        """Bytes of memory that one dream takes beside the weights, if it sees so many steps."""
        ...

    def begin(
        self,
        contexts: Sequence[Context],
        seeds: Sequence[int],
        *,
        indices: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        context_steps: int | None = None,
        speculate: bool = True,
    ) -> Session:
        """Begin dreams, one per context.

        Args:
            contexts: where each dream starts, at least one; they may differ in length.
            seeds: per dream, from 0 up.
            indices: per dream, from 0 up; 0 for each by default. Seed and index together give a
                dream all its randomness.
            sampling: how tokens are drawn; None is `Sampling()`.
            context_steps: the most steps that the model sees, at most S; S and None mean S - 1.
            speculate: guess ahead. It changes the time that a dream takes and nothing else.

        Raises:
            UsageError: an argument that does not fit the others or the model.
        """
        ...

    def restore(self, saved: bytes) -> Session:
        """The session that `Session.save` saved, at the same place.

        Raises:
            IntegrityError: damaged, or no saved session.
            MismatchError: saved with another model.
        """
        ...


def one_by_one(
    session: Session,
    count: int,
    actions: Sequence[Actions] | None = None,
    frames: Sequence[Frames] | None = None,
) -> Iterator[Step]:
    """`Session.steps` for a session that does not work ahead."""
    for k in range(count):
        yield session.step(
            None if actions is None else np.stack([given[k] for given in actions]),
            frames=None if frames is None else np.stack([given[k] for given in frames]),
        )


def need_tokenizer(tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer.

    Raises:
        UsageError: there is none.
    """
    if tokenizer is None:
        raise UsageError("this model has no tokenizer: frames can be neither read nor shown")
    return tokenizer
