"""Which of its two times counts for a message: the stamp in its own header, or when it was recorded.

A driver stamps a picture when it was taken and a press when it was made; `log_time` is later, by what the
network and the recorder take. So stamps count, if those of all topics taken are of one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from wham_data.pipelines.readers.mcap.topics import NO_STAMP, Topic, times_of
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import plain_number

Times = Literal["stamp", "log"]
MOST_BACK_NS: Final = SECOND_NS
"""Messages of one topic may be recorded in another order than they were stamped, but by no more."""
MOST_APART_NS: Final = SECOND_NS
"""Topics whose stamps are behind their log_time by amounts that differ more are on two clocks."""
SUSPICIOUS_NS: Final = 100_000_000
"""What differs by more is told: a slow camera, or clocks of two machines."""
NOTICED_NS: Final = 20_000_000
MOSTLY: Final = 0.5


def times_that_count(topics: Sequence[Topic], wanted: Times) -> tuple[list[Nanos], tuple[str, ...]]:
    """The times of each topic's messages, on one clock, and a note where stamps cannot be used.

    Args:
        topics: one or two, each of at least one message.
        wanted: "stamp" falls back on log_time for all topics.

    Returns:
        int64 [N] for each topic, in the order of the file.
    """
    logged = [times_of(topic.log_ns) for topic in topics]
    if wanted == "log":
        return logged, ()
    why = next(filter(None, map(_unsound, topics)), None)
    notes: tuple[str, ...] = ()
    if why is None and len(topics) > 1:
        late_ns = [_late_ns(topic) for topic in topics]
        names = " and ".join(topic.name for topic in topics)
        why = _two_clocks(late_ns, names)
        if max(late_ns) - min(late_ns) > SUSPICIOUS_NS:
            late_s = " and ".join(plain_number(each / SECOND_NS) for each in late_ns)
            notes = (
                f"suspicious: {names} are recorded {late_s} s after their stamps: if those are of two "
                "machines, --option times=log takes the recorder's clock",
            )
    if why is not None:
        return logged, (f"times are log_time: {why}",)
    return [times_of(topic.stamps_ns) for topic in topics], notes


def _unsound(topic: Topic) -> str | None:
    """Why the stamps of a topic tell no time; None if they do."""
    stamps_ns = times_of(topic.stamps_ns)
    missing = int(np.count_nonzero(stamps_ns == NO_STAMP))
    if missing:
        return f"{missing} of {topic.count} messages of {topic.name} have no stamp"
    stamps_ns = stamps_ns[np.argsort(times_of(topic.log_ns), kind="stable")]
    back_ns = int((np.maximum.accumulate(stamps_ns) - stamps_ns).max())
    if back_ns > MOST_BACK_NS:
        return f"stamps of {topic.name} run back by {plain_number(back_ns / SECOND_NS)} s"
    if len(np.unique(stamps_ns)) < MOSTLY * len(stamps_ns):
        return f"most stamps of {topic.name} are alike"
    return None


def _late_ns(topic: Topic) -> float:
    """How long after its stamp a message is recorded."""
    return float(np.median(times_of(topic.log_ns) - times_of(topic.stamps_ns)))


def _two_clocks(late_ns: Sequence[float], names: str) -> str | None:
    """Why the stamps of two topics are not of one clock; None if they may be.

    A message is not recorded before its stamp, unless the recorder's clock is another one; and then
    that is so for both topics.
    """
    apart_ns = max(late_ns) - min(late_ns)
    impossible = min(late_ns) < 0 < max(late_ns) and apart_ns > NOTICED_NS
    if apart_ns <= MOST_APART_NS and not impossible:
        return None
    return f"stamps of {names} are of two clocks, {plain_number(apart_ns / SECOND_NS)} s apart"


def in_order(times_ns: Nanos, *, once: bool) -> Index:
    """Numbers of messages in order of time, those of one instant as they were written.

    Args:
        times_ns: int64 [N].
        once: of several of one instant keep the first.
    """
    order = np.argsort(times_ns, kind="stable")
    if once:
        order = order[np.append(True, np.diff(times_ns[order]) > 0)]
    return order
