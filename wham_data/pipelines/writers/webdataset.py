"""`webdataset`: tar files of which a sample is a step.

    <split>/<part>.tar    __wham_data__/shard.json            episodes, action space, rate
                          <episode>/<step>.png or .jpg        and so on for every step:
                          <episode>/<step>.actions.npy        float32 (A,)
                          <episode>/<step>.tokens.npy         uint16 (rows, columns)
                          <episode>/<step>.state.npy          float32 (S,)
                          <episode>/<step>.step.json          time_ns, action_known, reward, text

Libraries of WebDataset pass over the first member, whose name marks it as metadata. Whole episodes
lie in a tar, step after step, so that windows can be put together while reading.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.webdataset import SHARD, ShardEpisode, ShardInfo
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, grouped
from wham_data.pipelines.writers.samples import Sample, samples_of
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.recording import Provenance

ENDINGS = {"png": "png", "jpeg": "jpg"}


@dataclass(frozen=True, slots=True)
class WebdatasetWriter:
    """Writer of WebDataset's tar files."""

    name: ClassVar[str] = "webdataset"
    about: ClassVar[str] = "tar files of WebDataset, a sample per step"
    order: ClassVar[int] = 60
    demands: ClassVar[Demands] = Demands(pictures=False, known=False, steady=False, numbered=True)

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """Nothing is lost but tokens, for our own reader."""
        del content
        return []

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A tar of some thousand steps each."""
        return grouped(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one tar."""
        del place
        path = folder / part.split / f"{part.name}.tar"
        path.parent.mkdir()
        episodes = tuple(map(_episode, part.stretches))
        told = ShardInfo(content.space, content.rate, content.state_size, episodes)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            _put(tar, SHARD, json.dumps(told.to_dict()).encode())
            for stretch in part.stretches:
                for sample in samples_of(stretch, content):
                    for ending, data in _members(sample, content):
                        _put(tar, f"{sample.episode}/{sample.step:06d}.{ending}", data)
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Nothing: every tar speaks for itself."""


def _episode(stretch: Stretch) -> ShardEpisode:
    row = stretch.row
    who = Provenance(row.game, row.map, row.match, row.player, row.subject, row.license)
    return ShardEpisode(stretch.name, stretch.n_steps, who)


def _members(sample: Sample, content: Content) -> Iterator[tuple[str, bytes]]:
    """The files of a sample."""
    if sample.frame is not None:
        yield ENDINGS[content.coding], sample.frame
    yield "actions.npy", _npy(sample.actions)
    if sample.tokens is not None:
        yield "tokens.npy", _npy(sample.tokens.reshape(content.grid))
    if sample.state is not None:
        yield "state.npy", _npy(sample.state)
    told = {
        "time_ns": sample.time_ns,
        "action_known": sample.action_known,
        "reward": None if math.isnan(sample.reward) else sample.reward,
        "text": sample.text,
    }
    yield "step.json", json.dumps(told).encode()


def _npy(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
