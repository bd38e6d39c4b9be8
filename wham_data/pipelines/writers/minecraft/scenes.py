"""Videos with a table of actions beside them, as GF-Minecraft and Micro-World share it.

    <folder>/video/<name>.mp4                    H.264, a frame per step
    <folder>/<metadata folder>/<name>.json       {"biome": ..., "actions": {"0": {...}, "1": {...}}}

Entry i led to frame i, so it holds the action of step i - 1; entry 0 has no meaning and is at rest.

    ws       0, 1 forward, 2 back               scs  0, 1 jump, 2 sneak, 3 sprint
    ad       0, 1 left, 2 right
    pitch_delta, yaw_delta                      the camera's motion, 1 is 15 degrees; + is down, right
    pos, pitch, yaw                             where the player is at frame i, where that is known
    collision, jump_invalid                     Micro-World only: the motion, or the jump, was stopped

Source of the layout: the card of GameFactory's dataset, and the class that reads it in Micro-World's
public training code, which also gives factor, order and signs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.minecraft.gf_minecraft import (
    DEGREES_PER_DELTA,
    KEYS,
    MOTIONS,
    SPACE,
)
from wham_data.pipelines.video import write_video
from wham_data.pipelines.writers.minecraft.way import way_to
from wham_data.pipelines.writers.parts import Content
from wham_data.pipelines.writers.stretches import Stretch

TABLED: Final = frozenset({"gf-minecraft", "micro-world"})
"""Readers whose states are those of a table: x, y, z, pitch, yaw, and perhaps two more."""
LAST_LOST: Final = (
    "an entry led to its frame, so the action after the last frame of an episode is not written"
)
ONE_OF: Final = (
    "a table has one of jump, sneak and sprint at a time (the first of them that is down), and no "
    "key of two that are against each other; keys left out are counted as clamped"
)


def write_scene(
    stretch: Stretch, content: Content, folder: Path, metadata: str, name: str, crf: int
) -> int:
    """Write the video and the table of an episode.

    Args:
        stretch: the episode.
        content: what its steps hold.
        folder: the folder of the split.
        metadata: name of the folder of tables; `metadata-detection` has the two columns of
            Micro-World's detection, 0 where the corpus does not know them.
        name: of both files, without ending.
        crf: of the video.

    Returns:
        The number of keys that were down and have no place in the table.
    """
    detection = metadata != "metadata"
    way = way_to(SPACE, content.space)
    entries, dropped = entries_of(way.apply(stretch.actions()))
    states = stretch.states() if stretch.row.format in TABLED else None
    for entry, place in zip(entries[1:], _places_of(states, detection), strict=False):
        entry.update(place)
    biome = {"biome": stretch.row.map} if stretch.row.format in TABLED and stretch.row.map else {}
    actions = {str(number): entry for number, entry in enumerate(entries)}
    table, video = folder / metadata / f"{name}.json", folder / "video" / f"{name}.mp4"
    for path in (table, video):
        path.parent.mkdir(parents=True)
    if detection:
        actions = {n: {"collision": 0, "jump_invalid": 0} | entry for n, entry in actions.items()}
    table.write_text(json.dumps({**biome, "actions": actions}, allow_nan=False) + "\n")
    write_video(video, stretch.frames(), content.steady_rate, crf=crf, reproducible=True)
    return dropped


def entries_of(actions: NDArray[np.float32]) -> tuple[list[dict[str, Any]], int]:
    """The entries of a table, one for each frame, and how many keys that are down have no place.

    Args:
        actions: float32 [T, 9] in `microworld9`; the last row is not used.
    """
    codes = np.zeros((len(actions), len(KEYS)), np.int64)
    dropped = 0
    for column, (name, keys) in enumerate(KEYS.items()):
        down = actions[:-1, [SPACE.index(key) for key in keys[1:]]] > 0
        first = np.where(down.any(axis=1), down.argmax(axis=1) + 1, 0)
        if name != "scs":
            first[down.all(axis=1)] = 0
        codes[1:, column] = first
        dropped += int(down.sum() - np.count_nonzero(first))
    deltas = np.zeros((len(actions), len(MOTIONS)))
    columns = [SPACE.index(dimension) for dimension in MOTIONS.values()]
    deltas[1:] = actions[:-1, columns].astype(np.float64) / DEGREES_PER_DELTA
    names = (*KEYS, *MOTIONS)
    rows = zip(codes.tolist(), deltas.tolist(), strict=True)
    return [dict(zip(names, (*code, *delta), strict=True)) for code, delta in rows], dropped


def _places_of(states: NDArray[np.float32] | None, detection: bool) -> Iterator[Mapping[str, Any]]:
    """What the entries from 1 on tell of the player: nothing where a number is not known."""
    names = ("pitch", "yaw", *(("collision", "jump_invalid") if detection else ()))
    for state in [] if states is None else states[1:].tolist():
        place = {"pos": state[:3]} | dict(zip(names, state[3:], strict=False))
        yield {
            name: int(value) if name in ("collision", "jump_invalid") else value
            for name, value in place.items()
            if np.isfinite(value).all()
        }
