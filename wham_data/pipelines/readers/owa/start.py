"""What a desktop recording's messages tell before they are read in order: how late they lie in the
file, which mouse tells what, and which keys were down when it began."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from wham_data.schemas.errors import Reason, RefusedInput

MOST_WAITING: Final = 4_000_000


class Timed(Protocol):
    """Whatever has a time.

    Attributes:
        time_ns: when it happened.
    """

    @property
    def time_ns(self) -> int: ...  # noqa: D102


T = TypeVar("T", bound=Timed)


def by_time(messages: Iterable[T], lateness_ns: int) -> Iterator[T]:
    """Messages by their time, those of one instant in the order in which they were written.

    Args:
        messages: as they lie in the file.
        lateness_ns: no message is this much earlier than one that was written before it.

    Raises:
        RefusedInput: TOO_LARGE, over `MOST_WAITING` of them wait for an earlier one.
    """
    if lateness_ns <= 0:
        yield from messages
        return
    waiting: list[tuple[int, int, T]] = []
    newest_ns = -1
    for number, message in enumerate(messages):
        newest_ns = max(newest_ns, message.time_ns)
        heapq.heappush(waiting, (message.time_ns, number, message))
        if len(waiting) > MOST_WAITING:
            raise RefusedInput(Reason.TOO_LARGE, f"over {MOST_WAITING} messages out of order")
        while waiting[0][0] < newest_ns - lateness_ns:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


@dataclass(slots=True)
class HeldAtStart:
    """Finds which buttons were down when the recording began, from messages in any order.

    A snapshot tells of all buttons of its device; what happened to a button before it tells more.

    settled_ns  a snapshot and an event of the same button this close may be of either order
    """

    settled_ns: int
    _snapshots: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    _changes: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def snapshot(self, device: str, time_ns: int, down: frozenset[str]) -> None:
        """All buttons of a device that were down at an instant."""
        if device not in self._snapshots or time_ns < self._snapshots[device][0]:
            self._snapshots[device] = time_ns, down

    def change(self, name: str, time_ns: int, pressed: bool) -> None:
        """A button went down or up."""
        if name not in self._changes or time_ns < self._changes[name][0]:
            self._changes[name] = time_ns, pressed

    def down(self) -> frozenset[str]:
        """The buttons that were down: in the first snapshot, or first told of when released."""
        released = {name for name, (_, pressed) in self._changes.items() if not pressed}
        held = set(released)
        for time_ns, down in self._snapshots.values():
            for name in down:
                first = self._changes.get(name)
                if first is None or first[0] >= time_ns + self.settled_ns:
                    held.add(name)
        return frozenset(held)
