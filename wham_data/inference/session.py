"""The interface of every world model: `begin` starts dreams, `step` makes their next step.

Step k is a frame o_k and the action a_k taken after seeing it. The next frame o_k+1 depends on both and on
all earlier steps. One call of `step` makes one frame of each dream. Its argument says who chooses
the action taken after this frame:

    step(actions)   the caller, before the frame is made
    step(None)      the model
    step(LATER)     the caller, after the frame is made: call `act` before the next `step`

A person with a gamepad plays like this:

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
"""The action after a frame is chosen when the frame has been made, with `act`."""

Actions = NDArray[np.floating]
"""Actions from a caller: float [..., A], in the units of the action space."""

Frames = NDArray[np.integer]
"""Frames from a caller: integer [..., N] tokens, or uint8 [..., H, W, 3] RGB."""


@dataclass(frozen=True, slots=True)
class Context:
    """The steps that a dream starts from, oldest first; each is a frame and the action after it.

    Exactly one of `tokens` and `frames` is given.

    actions  float [C, A], in the model's action space and its units
    tokens   integer [C, N], image tokens of the model's own tokenizer
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
            raise UsageError("a context needs tokens or frames: give exactly one of them")
        if self.actions.ndim != 2 or len(self.actions) != len(pictures):
            raise UsageError(
                f"a context of {len(pictures)} frames has actions of shape {self.actions.shape}: "
                f"expected ({len(pictures)}, A)"
            )
        if not len(pictures):
            raise UsageError("a context of no steps: expected at least 1")


@dataclass(slots=True)
class DreamStats:
    """The work that a dream has needed so far, as counts.

    context_steps  largest number of steps that the model saw when it made one
    passes         forward passes
    prefills       forward passes that read a whole window from its start
    fed            tokens fed to the model, with those of prefills and of rejected guesses
    generated      tokens made
    guessed        guesses fed to the model
    accepted       guesses that the model confirmed
    clamped        stick values of the given actions that were outside their range
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
        """Share of the guesses that were accepted, 0 to 1; 0 if there were none."""
        return self.accepted / self.guessed if self.guessed else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens made per forward pass; without guesses it is at most 1."""
        return self.generated / self.passes if self.passes else 0.0


@dataclass(frozen=True)
class Step:
    """One step of each dream of a session.

    tokens   uint16 [B, N], the frames as image tokens
    actions  float32 [B, A], the values that the model reads; NaN for an action chosen later
    stats    the work for each dream so far; a copy
    frames   uint8 [B, H, W, 3], decoded at the first access
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
    """B dreams that are made together.

    The result of each dream depends only on its own inputs. It does not depend on the other dreams
    of the session, or on whether the session was saved, restored or cloned.

    After `close`, every other method raises `UsageError`. Arguments are checked before any state
    changes.
    """

    def step(
        self, actions: Actions | Literal["later"] | None = None, *, frames: Frames | None = None
    ) -> Step:
        """Make the next frame of each dream.

        Args:
            actions: float [B, A], the actions taken after the frames of this call; None: the model
                chooses them; `LATER`: the caller gives them with `act` before the next step.
            frames: [B, ...], known frames to use; None: the model makes the frames.

        Raises:
            UsageError: an argument has another shape or a value out of range, or the actions after
                the newest frames are not chosen yet.
        """
        ...

    def act(self, actions: Actions | None = None) -> NDArray[np.float32]:
        """Choose the actions after the newest frames, which `step(LATER)` made.

        Args:
            actions: float [B, A]; None: the model chooses them now.

        Returns:
            float32 [B, A], the values that the model reads.

        Raises:
            UsageError: `actions` has another shape or a value out of range, or the actions are
                already chosen.
        """
        ...

    def steps(
        self,
        count: int,
        actions: Sequence[Actions] | None = None,
        *,
        frames: Sequence[Frames] | None = None,
    ) -> Iterator[Step]:
        """The same steps as `count` calls of `step`, with all arguments known in advance.

        A session may use this knowledge to compute several steps together. The caller may stop after
        any step and continue with other methods. For a simple model, `one_by_one` implements this.

        Args:
            count: number of steps.
            actions: for each dream float [count, A]; None: the model chooses them.
            frames: for each dream [count, ...]; None: the model makes them.
        """
        ...

    def clone(self) -> Session:
        """A copy of this session in the same state. The two continue independently."""
        ...

    def save(self) -> bytes:
        """The state for `WorldModel.restore`, as plain data without the model."""
        ...

    def close(self) -> None:
        """Free its memory. Closing a closed session does nothing."""
        ...


class ModelSpec(Protocol):
    """The sizes of a world model's steps."""

    @property
    def image_tokens(self) -> int:
        """N, number of image tokens in a step."""
        ...

    @property
    def image_vocab(self) -> int:
        """V, number of different image tokens; they are 0..V-1."""
        ...

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens in a step, those of its action included."""
        ...

    @property
    def steps(self) -> int:
        """S, largest number of steps in the model's window, with the one that it makes."""
        ...


class WorldModel(Protocol):
    """A model that makes dreams, of any architecture."""

    @property
    def name(self) -> str:
        """Name of its file or folder, or of a bundled model."""
        ...

    @property
    def wham(self) -> bool:
        """Whether it is a WHAM checkpoint, original or converted; its outputs must state that."""
        ...

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Names of unknown parts of the file, which are not used."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer between frames and tokens; None if the model has none."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """The sizes of its steps."""
        ...

    @property
    def action_space(self) -> str:
        """Name of the space of its actions (see `wham_data.load_space`)."""
        ...

    @property
    def device(self) -> str:
        """The device on which it runs: "cpu", "cuda:0", ..."""
        ...

    @property
    def dtype(self) -> str:
        """The type in which it computes: "float32" or "bf16"."""
        ...

    def fingerprint(self) -> str:
        """Hex SHA-256 over sizes and weights."""
        ...

    def dream_bytes(self, context_steps: int) -> int:
        """Memory for one dream, without the weights, in bytes.

        Args:
            context_steps: largest number of steps that the model sees.
        """
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
            contexts: the start of each dream, at least one; they may differ in length.
            seeds: for each dream, at least 0.
            indices: for each dream, at least 0; None: 0 for each. All random numbers of a dream
                depend on its seed and index only.
            sampling: how tokens are drawn; None: `Sampling()`.
            context_steps: largest number of steps that the model sees, at most S; S and None mean
                S - 1.
            speculate: use speculative decoding. It changes the speed of a dream, not the result.

        Raises:
            UsageError: an argument does not fit the others or the model.
        """
        ...

    def restore(self, saved: bytes) -> Session:
        """Make a session again from the result of `Session.save`.

        Raises:
            IntegrityError: `saved` is damaged, or is not a saved session.
            MismatchError: it was saved with another model.
        """
        ...


def one_by_one(
    session: Session,
    count: int,
    actions: Sequence[Actions] | None = None,
    frames: Sequence[Frames] | None = None,
) -> Iterator[Step]:
    """Implements `Session.steps` with one call of `step` after another."""
    for k in range(count):
        yield session.step(
            None if actions is None else np.stack([given[k] for given in actions]),
            frames=None if frames is None else np.stack([given[k] for given in frames]),
        )


def need_tokenizer(tokenizer: Tokenizer | None) -> Tokenizer:
    """Return the tokenizer.

    Raises:
        UsageError: it is None.
    """
    if tokenizer is None:
        raise UsageError("this model has no tokenizer, so it cannot encode or decode frames")
    return tokenizer
