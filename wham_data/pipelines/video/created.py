"""When a container says that it was made: a hint for a person, too vague to set a clock by."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from wham_data.pipelines.video.source import Source, VideoLimits
from wham_data.schemas.errors import RefusedInput

TAGS: Final = ("creation_time", "date")


def created_ns(path: Path, limits: VideoLimits) -> int | None:
    """The container's `creation_time` in nanoseconds since 1970; None if it has none that is a date.

    Args:
        path: a video that has been indexed.
        limits: the limits that it was checked against.
    """
    try:
        with Source(path, limits, stream=None) as source:
            tags = source.container.metadata
            found = next((tags[name] for name in TAGS if name in tags), "")
    except RefusedInput:
        return None
    try:
        date = datetime.datetime.fromisoformat(found)
    except ValueError:
        return None
    since = date.replace(tzinfo=date.tzinfo or datetime.UTC) - datetime.datetime(
        1970, 1, 1, tzinfo=datetime.UTC
    )
    whole_s = since.days * 86400 + since.seconds
    return whole_s * 1_000_000_000 + since.microseconds * 1000 if whole_s > 0 else None
