"""The settings of an ingest: those that determine the steps, and the choices of one run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from wham_data.corpus.splits import SPLIT_BY, SplitBy
from wham_data.pipelines.ingest.decoder_process import DecodeLimits
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import NO_ACTIONS, ActionSpace, load_space
from wham_data.schemas.clock import SECOND_NS, TEN_HZ
from wham_data.schemas.conversion import Conversion
from wham_data.schemas.corpus_info import FrameFormat
from wham_data.schemas.errors import UsageError
from wham_data.schemas.mask import Mask
from wham_data.schemas.player_key import PlayerKey
from wham_data.schemas.recording import AxisRule, Fit

WITHOUT_LOG_READER: Final = "video-alone"


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Settings that determine the steps. Equal settings give equal bytes; the corpus stores them.

    rate         steps per second; None: every source frame is a step
    size         (width, height) of a stored picture in pixels
    fit          how a picture with another aspect ratio is changed to that size
    actions      name of the corpus' action space; "none": no action is known, and no log is needed or
                 used; None: that of the recordings
    tokenizer    name or path of the tokenizer; None: no tokens
    frames       whether to store the picture of each step too, and in which format
    axis_rule    how the values of a stick within a step are combined into one
    max_gap_ns   longest time without a new frame, or without a log row, inside one episode
    split        shares of train, val and test
    split_seed   seed for assigning splits
    split_by     what stays in one split: all of a player and of a match, of a match, or each recording;
                 "time": each recording is divided itself, see `time_blocks.py`
    limits       limits on a video, and the share of its frames that must decode
    decoding     limits on time and memory for one recording
    options      options of readers as (name, value), as written by the user
    masks        rectangles that are blackened in every picture, sorted
    mapping      conversion of the recordings' actions; its target is the action space of the
                 corpus, and `actions` may then be None
    stage        fetch the files of an object store whole before they are read; changes no step
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
    split_by: SplitBy = "player"
    limits: VideoLimits = field(default_factory=VideoLimits)
    decoding: DecodeLimits = field(default_factory=DecodeLimits)
    options: tuple[tuple[str, str], ...] = ()
    masks: tuple[Mask, ...] = ()
    mapping: Conversion | None = None
    stage: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= 1000:
            raise UsageError(f"rate {self.rate} Hz: expected more than 0 and at most 1000")
        if self.max_gap_ns <= 0:
            raise UsageError(f"longest gap {self.max_gap_ns} ns: expected more than 0")
        if not 0 < self.limits.min_decoded <= 1:
            raise UsageError(f"share of decoded frames {self.limits.min_decoded}: expected 0 to 1")
        if len(self.split) != 3 or min(self.split) < 0 or sum(self.split) <= 0:
            raise UsageError(f"split {self.split}: expected three shares, train, val and test")
        if self.split_by not in SPLIT_BY:
            raise UsageError(f"split by {self.split_by!r}: expected {', '.join(SPLIT_BY)}")
        if self.mapping is not None and self.space != self.mapping.target:
            raise UsageError(
                f"the mapping converts to {self.mapping.target.name}, not to {self.actions}"
            )

    @property
    def space(self) -> ActionSpace | None:
        """The chosen action space; None: that of the recordings."""
        if self.actions is not None:
            return load_space(self.actions)
        return None if self.mapping is None else self.mapping.target

    @property
    def log_space(self) -> ActionSpace | None:
        """The action space in which logs are best read: no conversion is needed from it."""
        if self.actions == NO_ACTIONS:
            return None
        return self.space if self.mapping is None else self.mapping.source

    def options_of_search(self, reader: str) -> dict[str, str]:
        """The options with which recordings are looked for: without actions, videos need no log.

        Args:
            reader: "auto", or the name of the only reader.
        """
        takes_all = self.actions == NO_ACTIONS and reader in ("auto", WITHOUT_LOG_READER)
        return {**({"without_log": "take"} if takes_all else {}), **dict(self.options)}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestChoices:
    """Which recordings a run ingests, and how players are named. They do not change the steps.

    reader             "auto", or the name of the only reader to use
    limit              ingest at most this many recordings, the first by path
    only               ingest just these sources, named as in the quarantine; None: all
    retry_quarantined  try recordings again that an earlier run refused
    tie_to             split for recordings whose match or player is already in two splits
    license            licence of recordings whose source states none
    player_key         key for storing players under pseudonyms; None: they are stored by name
    rehash             read every file to identify it, also those that an earlier run knew by size and time
    allow_forgotten    ingest recordings that `forget` has removed; if False, they are left out
                       with a message
    merge_shards       merge small shards at the end of the run, if there are many
    """

    reader: str = "auto"
    limit: int | None = None
    only: Collection[str] | None = None
    retry_quarantined: bool = False
    tie_to: str | None = None
    license: str | None = None
    player_key: PlayerKey | None = None
    rehash: bool = False
    allow_forgotten: bool = False
    merge_shards: bool = True
