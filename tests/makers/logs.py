"""Controller logs read as beside a video of four seconds at 25 frames per second, without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.video_log.controller_log import ControllerLog, read_controller_log
from wham_data.pipelines.readers.video_log.log_metadata import LogMetadata, read_metadata
from wham_data.schemas.actions import ActionSpace, load_space

SPACE = load_space("xinput16")
FRAME_TIMES_NS = np.arange(100) * 40_000_000


def sampled(times_ms: Iterable[float], **columns: Iterable[object]) -> str:
    """A log with a row per time; dimensions without a column are 0, other columns come last."""
    cells = {name: list(column) for name, column in columns.items()}
    others = [name for name in cells if name not in SPACE.names]
    lines = [",".join(["time_ms", *SPACE.names, *others])]
    for row, time_ms in enumerate(times_ms):
        values = [cells[name][row] if name in cells else 0 for name in (*SPACE.names, *others)]
        lines.append(",".join([repr(time_ms), *map(str, values)]))
    return "\n".join(lines) + "\n"


def events(*lines: str, head: str = "time_ms,control,value") -> str:
    """An event log of these lines."""
    return "\n".join([head, *lines]) + "\n"


def read_log(
    folder: Path,
    text: str | bytes,
    toml: str = "",
    part: str = "",
    name: str = "log.csv",
    space: ActionSpace | None = SPACE,
    target: ActionSpace | None = None,
) -> ControllerLog:
    """What the reader of logs makes of a text and of its metadata."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    metadata = LogMetadata()
    if toml:
        (folder / "log.toml").write_text(toml)
        metadata = read_metadata(folder / "log.toml")
    return read_controller_log(
        folder / name, metadata, space, FRAME_TIMES_NS, 4_000_000_000, part, target
    )


def column(log: ControllerLog, name: str) -> NDArray[np.float64]:
    """What the hands did with one control, row by row."""
    return log.track.values[:, SPACE.index(name)]


def by_ms(log: ControllerLog, name: str) -> Mapping[float, float]:
    """The same, by time in milliseconds."""
    return dict(zip((log.track.times_ns / 1e6).tolist(), column(log, name).tolist(), strict=True))
