"""`minari`: data sets of Farama's Minari, of which each episode is a recording.

    <name>-v<N>/data/metadata.json           what observations and actions are
    <name>-v<N>/data/main_data.hdf5          episode_<i>/{observations, actions, rewards, ...}
    <name>-v<N>/data/<i>/part-0.arrow        or so, or as .parquet: a table for each episode

`actions[k]` was taken on `observations[k]`; there is one observation more than there are actions. What
an observation holds is declared: one entry of it is the picture, its numbers are the state. Pictures
are arrays, or JPEGs. Nothing in the files tells the time: frames are taken as steady, at the rate of
the option `frame_rate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.files.found import Listing
from wham_data.files.hdf5 import is_hdf5
from wham_data.files.json_lines import read_json
from wham_data.files.links import is_plain_file
from wham_data.pipelines.readers.kit.declared_actions import chosen_picture, space_of, values_of
from wham_data.pipelines.readers.kit.fixed_rate import open_fixed_rate
from wham_data.pipelines.readers.kit.gymnasium_spaces import action_part, entries_of, space_in
from wham_data.pipelines.readers.kit.options import picture_option, rate_option
from wham_data.pipelines.readers.kit.pictures_seen import first_picture, not_taken
from wham_data.pipelines.readers.minari.arrow_form import ArrowEpisode
from wham_data.pipelines.readers.minari.hdf5_form import Hdf5Episode, episodes_in
from wham_data.pipelines.readers.minari.tables import EpisodeForm, states_of
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, OpenRecording, Provenance, Recording, RefusedFile

METADATA: Final = "metadata.json"
_TABLE: Final = re.compile(r"part-(\d{1,9})\.(?:arrow|feather|parquet)", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Minari:
    """Reader of Minari's data sets."""

    name: ClassVar[str] = "minari"
    about: ClassVar[str] = "data sets of Minari, in its HDF5, Arrow and Parquet forms"
    order: ClassVar[int] = 60
    frame_rate: Fraction = rate_option("10", about="frames per second; the files do not say")
    picture: str = picture_option(of="an observation", example="camera/front")

    def spans(self, folder: Path, listing: Listing) -> bool:  # noqa: ARG002  by the names alone
        """Whether there are folders of numbered tables beside the metadata of them all."""
        return METADATA in listing.files and any(map(_NUMBER.fullmatch, listing.folders))

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every episode of the HDF5 files that hold numbered ones, and of folders of tables."""
        declared: dict[Path, Mapping[str, object]] = {}
        for path in files:
            if is_hdf5(path):
                yield from self._in_hdf5(path)
            elif (table := _TABLE.fullmatch(path.name)) and _NUMBER.fullmatch(path.parent.name):
                beside = path.parent.with_name(METADATA)
                if beside not in declared:
                    declared[beside] = _declared(beside)
                if {"action_space", "observation_space"} <= declared[beside].keys():
                    yield self._in_table(path, beside, int(table[1]), _game(declared[beside]))

    def _in_hdf5(self, path: Path) -> Iterator[Recording | RefusedFile]:
        try:
            numbers = episodes_in(path)
        except RefusedInput as why:
            if path.name == "main_data.hdf5":
                yield RefusedFile(path, why)
            return
        beside = path.with_name(METADATA)
        there = is_plain_file(beside)
        game = _game(_declared(beside)) if numbers else None
        for number in numbers:
            yield Recording(
                path=path,
                files=(path, beside) if there else (path,),
                format=self.name,
                provenance=Provenance(game=game),
                part=f"episode_{number}",
            )

    def _in_table(
        self, path: Path, beside: Path, place: int, game: str | None
    ) -> Recording | RefusedFile:
        if place:
            why = f"episode {path.parent.name} is in several files: write it again as one"
            return RefusedFile(path, RefusedInput(Reason.FORMAT_NOT_ALLOWED, why))
        return Recording(
            path=path,
            files=(path, beside),
            format=self.name,
            provenance=Provenance(game=game),
            companions=(path.with_name(METADATA),),
        )

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read everything but the pictures."""
        declared = _metadata(recording)
        parts = [action_part(each) for each in entries_of(space_in(declared, "action_space"))]
        observations = entries_of(space_in(declared, "observation_space"))
        pictured = [entry for entry in observations if entry.channels is not None]
        picture = chosen_picture(pictured, self.picture, "an observation")
        if not self.picture:
            picture = first_picture(pictured, lambda entry: entry.is_colour, lambda _: "uint8")
        numbers = [each.path for each in observations if each.is_numbers and not each.is_map]
        episode: EpisodeForm = (
            Hdf5Episode(recording.path, recording.part)
            if recording.part
            else ArrowEpisode(recording.path)
        )
        tables = episode.tables([part.path for part in parts], numbers, picture)
        if any(not len(array) for array in tables.actions.values()):
            raise RefusedInput(Reason.LOG_EMPTY, f"{recording.part} has no steps")
        values = values_of(parts, tables.actions)
        count = len(values) + 1
        if tables.pictures not in (None, count):
            raise RefusedInput(
                Reason.LOG_COVERAGE, f"{len(values)} actions for {tables.pictures} observations"
            )
        rewards = tables.rewards
        return open_fixed_rate(
            count,
            self.frame_rate,
            limits,
            FrameData(
                states=states_of(tables, count),
                rewards=None if rewards is None else np.append(rewards, np.float32(0)),
            ),
            space=space_of(parts, str(declared.get("dataset_id") or self.name)),
            values=values,
            pictures=None if picture is None else lambda picks: episode.pictures(picture, picks),
            size=(1, 1) if picture is None else picture.size,
            notes=not_taken(
                [entry.path for entry in observations if entry.is_map and entry is not picture]
            ),
        )


def _metadata(recording: Recording) -> Mapping[str, object]:
    """The declarations of a data set.

    Raises:
        RefusedInput: METADATA, there are none; or they are no sound JSON.
    """
    beside = next((each for each in recording.files if each.name == METADATA), None)
    declared = None if beside is None else read_json(beside)
    if not isinstance(declared, dict):
        raise RefusedInput(
            Reason.METADATA, f"no {METADATA} beside it, which says what its actions are"
        )
    return declared


def _declared(metadata: Path) -> Mapping[str, object]:
    """What a metadata file declares; nothing where it is missing or damaged."""
    try:
        declared = read_json(metadata) if is_plain_file(metadata) else None
    except RefusedInput:
        return {}
    return declared if isinstance(declared, dict) else {}


def _game(declared: Mapping[str, object]) -> str | None:
    """The environment that a data set was made in."""
    try:
        made_in = space_in(declared, "env_spec")
    except RefusedInput:
        return None
    game = made_in.get("id") or declared.get("dataset_id")
    return game if isinstance(game, str) else None
