"""What shapes the steps of a corpus."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction

from wham_data.pipelines.ingest.decoder_process import DecodeLimits
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import SECOND_NS, TEN_HZ
from wham_data.schemas.conversion import Conversion
from wham_data.schemas.corpus_info import FrameFormat
from wham_data.schemas.errors import UsageError
from wham_data.schemas.mask import Mask
from wham_data.schemas.player_key import PlayerKey
from wham_data.schemas.recording import AxisRule, Fit


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """What shapes the steps. Equal settings, equal bytes; the corpus keeps them.

    rate         steps per second; None: every source frame is a step
    size, fit    (width, height) in pixels, and how a picture of another shape is brought to it
    actions      name of the corpus' action space; None: the one the recordings are in
    tokenizer    reference of the tokenizer; None: no tokens
    frames       whether to keep each step's picture too, and how it is coded
    axis_rule    how the values of a stick within a step become one
    max_gap_ns   longest time without a new frame, or without a log row, that is bridged
    split        shares of train, val and test
    split_seed   seed for assigning splits
    limits       what a video may be before it is refused, and how much of it must decode
    decoding     what one recording may cost before it is refused
    options      values of readers' options as (name, value), as written
    masks        rectangles that are blackened in every picture, sorted
    mapping      how keys and mouse, or whatever else, become the space of the corpus; its
                 target is then the space of the corpus, and `actions` may be left out
    """

    rate: Fraction | None = TEN_HZ
    size: tuple[int, int] = (300, 180)
    fit: Fit = "stretch"
    actions: str | None = None
    tokenizer: str | None = "wham-tiny"
    frames: FrameFormat = "none"
    axis_rule: AxisRule = "mean"
    max_gap_ns: int = SECOND_NS
    split: tuple[float, float, float] = (90, 5, 5)
    split_seed: int = 0
    limits: VideoLimits = field(default_factory=VideoLimits)
    decoding: DecodeLimits = field(default_factory=DecodeLimits)
    options: tuple[tuple[str, str], ...] = ()
    masks: tuple[Mask, ...] = ()
    mapping: Conversion | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= 1000:
            raise UsageError(f"rate {self.rate} Hz: expected more than 0 and at most 1000")
        if self.max_gap_ns <= 0:
            raise UsageError(f"longest gap {self.max_gap_ns} ns: expected more than 0")
        if not 0 < self.limits.min_decoded <= 1:
            raise UsageError(f"share of decoded frames {self.limits.min_decoded}: expected 0 to 1")
        if len(self.split) != 3 or min(self.split) < 0 or sum(self.split) <= 0:
            raise UsageError(f"split {self.split}: expected three shares, train, val and test")
        if self.mapping is not None and self.space != self.mapping.target:
            raise UsageError(
                f"the mapping leads to {self.mapping.target.name}, not to {self.actions}"
            )

    @property
    def space(self) -> ActionSpace | None:
        """The chosen action space; None: the one the recordings are in."""
        if self.actions is not None:
            return load_space(self.actions)
        return None if self.mapping is None else self.mapping.target


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestChoices:
    """Which recordings a run takes, and under which names. Nothing of it shapes a step.

    reader             "auto", or the name of the only reader to use
    limit              take only so many recordings, the first by path
    only               take just these sources, named as in the quarantine; None: all
    retry_quarantined  try again what an earlier run refused
    without_actions    take videos that have no log too: no action of them is known
    tie_to             split for recordings whose match or player ties two splits together
    license            of recordings whose source names none
    player_key         key of the pseudonyms by which players are stored; None: by name
    allow_forgotten    take in what `forget` has taken out; else it is left out, and the run says so
    """

    reader: str = "auto"
    limit: int | None = None
    only: Collection[str] | None = None
    retry_quarantined: bool = False
    without_actions: bool = False
    tie_to: str | None = None
    license: str | None = None
    player_key: PlayerKey | None = None
    allow_forgotten: bool = False
