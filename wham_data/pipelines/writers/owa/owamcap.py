"""`owamcap`: recordings as Open World Agents keep them, messages in MCAP beside a video.

    <split>/<episode>.mcap    topics screen, keyboard, keyboard/state, mouse/raw; log_time is the clock
    <split>/<episode>.mkv     H.264; a message of a screen names the time of its frame, `pts_ns`

Frames keep their times: `log_time` is the time of the recording's own clock, and the video has them in
whole milliseconds from its first frame on. What Open World Agents train on are the topics `screen`,
`keyboard` and `mouse/raw`. There is no `mouse`: a corpus does not know where the pointer was.

Source: the packages `owa-msgs` and `mcap-owa-support`, and the documentation of OWAMcap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.pipelines.readers.owa.inputs import SPACE
from wham_data.pipelines.readers.owa.owamcap import PROFILE
from wham_data.pipelines.video import VideoWriter
from wham_data.pipelines.writers.clips import crf_option
from wham_data.pipelines.writers.owa.mcap_file import McapWriter
from wham_data.pipelines.writers.owa.messages import SCREEN, TOPICS, input_of
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, one_each
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.errors import Reason

TAKEN: Final = (SPACE, load_space("keyboard_mouse"))
UNIT: Final = Fraction(1, 1000)
"""The unit of the video's times in seconds: Matroska has no finer one."""
UNIT_NS: Final = 1_000_000
"""The same. No step is shorter: the changes of all keys lie around its frame, in microseconds."""


@dataclass(frozen=True, slots=True)
class OwamcapWriter:
    """Writer of OWAMcap recordings."""

    name: ClassVar[str] = "owamcap"
    about: ClassVar[str] = "desktop recordings of Open World Agents, an .mcap beside an .mkv"
    order: ClassVar[int] = 140
    demands: ClassVar[Demands] = Demands(steady=False)
    crf: int = crf_option()

    def space(self, native: ActionSpace) -> ActionSpace:
        """`desktop`, or `keyboard_mouse`, which is a part of it."""
        return native if native in TAKEN else SPACE

    def check(self, content: Content) -> Sequence[str]:
        """Notes what the messages do not say."""
        del content
        return [
            "log_time is the clock of the recording, which need not be the date; there are no "
            "messages of the pointer's place (mouse), which a corpus does not know",
            "mouse motion is written in whole counts, and the rest of a step goes to the next one",
        ]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A recording each."""
        return one_each(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one recording: its messages, and its video beside."""
        del place
        (stretch,) = part.stretches
        edges_ns = edges_of(stretch)
        shown_ms = (edges_ns - edges_ns[0] + UNIT_NS // 2) // UNIT_NS
        log, video = (folder / part.split / f"{part.name}{end}" for end in (".mcap", ".mkv"))
        log.parent.mkdir()
        size = list(content.size)
        with (
            McapWriter(log, PROFILE, TOPICS) as messages,
            VideoWriter(
                video, rate_of_steps(edges_ns), unit=UNIT, crf=self.crf, reproducible=True
            ) as film,
        ):
            inputs = input_of(stretch.actions(), content.space, edges_ns)
            for step, (frame, events) in enumerate(zip(stretch.frames(), inputs, strict=True)):
                at_ns, at_ms = int(edges_ns[step]), int(shown_ms[step])
                film.add(frame, at_ms)
                screen = {
                    "utc_ns": at_ns,
                    "source_shape": size,
                    "shape": [side + side % 2 for side in size],
                    "media_ref": {"uri": video.name, "pts_ns": at_ms * UNIT_NS},
                }
                messages.add(SCREEN.name, at_ns, screen)
                for event in events:
                    messages.add(*event)
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Does nothing: no file describes the whole export."""


def rate_of_steps(edges_ns: Nanos) -> Fraction:
    """The usual number of steps per second: what a player shows as the rate of the video."""
    return Fraction(SECOND_NS, int(np.median(np.diff(edges_ns)))).limit_denominator(1001)


def edges_of(stretch: Stretch) -> Nanos:
    """When the steps begin, and the last one ends, int64 [T + 1]; never before 0.

    The last step is as long as steps usually are; a step alone lasts a second.

    Raises:
        Unfit: two steps are less than a millisecond apart.
    """
    times_ns = stretch.times_ns()
    times_ns = times_ns + max(0, -int(times_ns[0]))
    lasts_ns = np.diff(times_ns)
    if len(lasts_ns) and int(lasts_ns.min()) < UNIT_NS:
        step = int(lasts_ns.argmin())
        raise stretch.refuse(
            Reason.LOG_CLOCK,
            f"step {step} lasts {lasts_ns[step] / UNIT_NS:.3f} ms, and the video has times "
            "in whole milliseconds. Ingest with --rate",
        )
    last_ns = int(np.median(lasts_ns)) if len(lasts_ns) else SECOND_NS
    return np.append(times_ns, times_ns[-1] + last_ns)
