"""The choices of a user, and the settings made from them for a source and a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from wham_data.inference.sampling import Sampling
from wham_data.inference.session import WorldModel
from wham_data.pipelines.dream.actions import BY_MODEL, RECORDED, GivenActions, parse_actions
from wham_data.pipelines.dream.files import Look
from wham_data.pipelines.dream.pictures import FASTEST, LARGEST_UPSCALE
from wham_data.pipelines.dream.report import MODES, DreamMode, FileKind
from wham_data.pipelines.dream.sources import DreamSource
from wham_data.pipelines.dream.window import Need
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import UsageError

USUAL_CONTEXT: Final = 10
USUAL_STEPS: Final = 10
PICTURED: Final = ("pictures", "demonstrator")
"""Kinds of sources that are a context, with no recorded actions for the steps after it."""


@dataclass(frozen=True, slots=True)
class DreamSettings:
    """Settings that determine the dreams of a run.

    mode      what the model makes
    context   largest number of steps that it sees, the published context length
    taken     number of steps in the context: `context`, or fewer if there are fewer pictures
    steps     K, number of steps to dream
    actions   source of the given actions
    start     first step of the context in the episode; None: the first suitable step
    sampling  how tokens are drawn
    seed      of all random numbers
    look      settings of videos and pictures
    """

    mode: DreamMode
    context: int
    taken: int
    steps: int
    actions: GivenActions
    start: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps to dream: expected at least 1")
        if self.start is not None and self.start < 0:
            raise UsageError(f"start {self.start}: expected a step from 0 up")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: expected a number from 0 up")
        if not 1 <= self.look.upscale <= LARGEST_UPSCALE:
            raise UsageError(f"upscale {self.look.upscale}: expected 1 to {LARGEST_UPSCALE}")
        rate = self.look.interpolate
        if rate is not None and (not TEN_HZ < rate <= FASTEST or rate % TEN_HZ):
            raise UsageError(
                f"interpolate {rate}: expected a multiple of {TEN_HZ} above it and up to {FASTEST}"
            )

    def need(self, save: Sequence[FileKind]) -> Need:
        """The data that each dream needs of its episode, for these kinds of files."""
        return Need(
            context=self.taken,
            steps=self.steps,
            start=self.start,
            actions=self.actions == RECORDED,
            frames=self.mode == "policy",
            truth=bool({"npz", "overlay"} & set(save)),
        )

    def agreement(self) -> dict[str, object]:
        """The settings that must be equal for all dreams in a folder; the model must be too."""
        return {
            "mode": self.mode,
            "context": self.context,
            "context_taken": self.taken,
            "steps": self.steps,
            "start": self.start,
            "actions": self.actions.description,
            "sampling": asdict(self.sampling),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class DreamChoices:
    """The choices of a user; None: the default for the source and the model."""

    mode: str | None = None
    context: int | None = None
    steps: int | None = None
    actions: str | None = None
    start: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    look: Look = field(default_factory=Look)

    def settle(self, source: DreamSource, model: WorldModel) -> DreamSettings:
        """The settings for this source and this model.

        By default the mode is "world" for a recording, because its actions are known. For pictures
        the model makes the actions unless they are given.

        Raises:
            UsageError: the choices contradict each other, the source or the model.
        """
        given, holds = None, model.spec.steps
        if self.actions is not None:
            given = parse_actions(self.actions, self.seed, load_space(model.action_space))
        mode = self._mode(source, given)
        if given is None:
            given = RECORDED if mode == "world" else BY_MODEL
        if mode == "world" and given is RECORDED and source.kind == "pictures":
            raise UsageError(
                "pictures have no actions: use --actions fixed:..., random or FILE.csv, or --mode "
                "full, in which the model makes them"
            )
        if mode != "world" and given is not BY_MODEL:
            raise UsageError(
                f"mode {mode}: the model makes the actions, so --actions {given.kind} needs "
                "--mode world"
            )
        context = min(USUAL_CONTEXT, holds) if self.context is None else self.context
        if not 1 <= context <= holds:
            raise UsageError(
                f"context of {context} steps: this model holds {holds} steps, expected 1 to {holds} "
                f"(of {holds} it sees the newest {holds - 1}, for one is made)"
            )
        taken, steps = context, USUAL_STEPS if self.steps is None else self.steps
        if source.kind == "demonstrator" and mode != "policy" and given is not RECORDED:
            taken = min(context, source.pictures)
        if source.kind == "pictures":
            taken, steps = self._of_pictures(source.pictures, mode, context, steps)
        return DreamSettings(
            mode, context, taken, steps, given, self.start, self.sampling, self.seed, self.look
        )

    def _mode(self, source: DreamSource, given: GivenActions | None) -> DreamMode:
        if self.mode is not None and self.mode not in MODES:
            raise UsageError(f"mode {self.mode[:40]!r}: expected one of {', '.join(MODES)}")
        by_model = given is BY_MODEL or (given is None and source.kind in PICTURED)
        if self.mode is None:
            return "full" if by_model else "world"
        mode = MODES[self.mode]
        return "full" if mode == "world" and given is BY_MODEL else mode

    def _of_pictures(
        self, there: int, mode: DreamMode, context: int, steps: int
    ) -> tuple[int, int]:
        """The number of pictures in the context, and the number of steps."""
        if self.start is not None:
            raise UsageError(
                "--start is a step of a recording; for pictures, name only those to start from"
            )
        if mode != "policy":
            return min(context, there), steps
        taken = 1 if self.context is None else context
        steps = there - taken if self.steps is None else steps
        if steps < 1:
            raise UsageError(
                f"mode policy finds the actions between pictures: at least {taken + 1} are needed, "
                f"{there} were given"
            )
        return taken, steps
