"""What is asked for, and the settings that this comes to for a source and a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from wham_data.inference.sampling import Sampling
from wham_data.pipelines.dream.actions import BY_MODEL, RECORDED, GivenActions, parse_actions
from wham_data.pipelines.dream.files import Look
from wham_data.pipelines.dream.pictures import FASTEST, LARGEST_UPSCALE
from wham_data.pipelines.dream.report import MODES, DreamMode, Kind
from wham_data.pipelines.dream.sources import Source
from wham_data.pipelines.dream.window import Need
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import UsageError

USUAL_CONTEXT: Final = 10
USUAL_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class DreamSettings:
    """What shapes the dreams of a run.

    mode      what the model makes
    context   the most steps that it sees, the published context length
    taken     steps that a dream starts from; `context` of them, but of pictures as many as there are
    steps     K, steps to dream
    actions   where given actions come from
    start     the step of the episode to start from; None: the first place that will do
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

    def need(self, save: Sequence[Kind]) -> Need:
        """What each dream takes of its episode, if it is to be saved like this."""
        return Need(
            context=self.taken,
            steps=self.steps,
            start=self.start,
            actions=self.actions == RECORDED,
            frames=self.mode == "policy",
            truth=bool({"npz", "overlay"} & set(save)),
        )

    def agreement(self) -> dict[str, object]:
        """What has to be equal for dreams to lie in one folder, beside the model."""
        return {
            "mode": self.mode,
            "context": self.context,
            "context_taken": self.taken,
            "steps": self.steps,
            "start": self.start,
            "actions": self.actions.told,
            "sampling": asdict(self.sampling),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for; None leaves it to the source and the model."""

    mode: str | None = None
    context: int | None = None
    steps: int | None = None
    actions: str | None = None
    start: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    look: Look = field(default_factory=Look)

    def settle(self, source: Source, holds: int) -> DreamSettings:
        """The settings for this source and a model that holds so many steps.

        A recording knows its actions, so it is dreamt in mode world unless said. Pictures don't:
        the model makes the actions unless they are given.

        Raises:
            UsageError: what is asked for does not go together, or not with the source or model.
        """
        given = None if self.actions is None else parse_actions(self.actions, self.seed)
        mode = self._mode(source, given)
        if given is None:
            given = RECORDED if mode == "world" else BY_MODEL
        if mode == "world" and given is RECORDED and source.kind == "pictures":
            raise UsageError(
                "pictures come without actions: give --actions fixed:..., random or FILE.csv, or "
                "--mode full, in which the model makes them"
            )
        if mode != "world" and given is not BY_MODEL:
            raise UsageError(
                f"mode {mode}: the model makes the actions, so --actions {given.kind} goes with "
                "--mode world only"
            )
        context = min(USUAL_CONTEXT, holds) if self.context is None else self.context
        if not 1 <= context <= holds:
            raise UsageError(
                f"context of {context} steps: this model holds {holds} steps, expected 1 to {holds} "
                f"(of {holds} it sees the newest {holds - 1}, for one is made)"
            )
        taken, steps = context, USUAL_STEPS if self.steps is None else self.steps
        if source.kind == "pictures":
            taken, steps = self._of_pictures(source.pictures, mode, context, steps)
        return DreamSettings(
            mode, context, taken, steps, given, self.start, self.sampling, self.seed, self.look
        )

    def _mode(self, source: Source, given: GivenActions | None) -> DreamMode:
        if self.mode is not None and self.mode not in MODES:
            raise UsageError(f"mode {self.mode[:40]!r}: expected one of {', '.join(MODES)}")
        by_model = given is BY_MODEL or (given is None and source.kind == "pictures")
        if self.mode is None:
            return "full" if by_model else "world"
        mode = MODES[self.mode]
        return "full" if mode == "world" and given is BY_MODEL else mode

    def _of_pictures(
        self, there: int, mode: DreamMode, context: int, steps: int
    ) -> tuple[int, int]:
        """How many pictures a dream starts from, and its steps."""
        if self.start is not None:
            raise UsageError(
                "--start is a step of a recording; of pictures, give those to start from"
            )
        if mode != "policy":
            return min(context, there), steps
        taken = 1 if self.context is None else context
        steps = there - taken if self.steps is None else steps
        if steps < 1:
            raise UsageError(
                f"mode policy finds the actions between pictures: {taken + 1} are needed, {there} "
                "given"
            )
        return taken, steps
