"""Folders of WHAM Demonstrator as inputs of dreams: the newest pictures, with their actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus.storage.sources.at_hand import name_of
from wham_data.files.found import MOST_PICTURE_BYTES, read_whole
from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.dream.inputs import (
    RefusedEpisode,
    conversion_between,
    identity_of,
    safe_name,
)
from wham_data.pipelines.dream.prompt_pictures import decoded
from wham_data.pipelines.dream.window import Need, Window, place, read_window
from wham_data.pipelines.readers import discover, follow_links_of
from wham_data.pipelines.readers.demonstrator import (
    ACTIONS_FILE,
    open_demonstrator,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import UsageError
from wham_data.schemas.recording import Recording
from wham_data.schemas.wham_tokens import ACTION_SPACE


@dataclass(frozen=True, slots=True)
class DemonstratorEpisode:
    """The pictures of a folder, in order, with their actions; NaN for one that is not known."""

    name: str
    recording: Recording
    limits: VideoLimits

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The pictures, in order."""
        return self.recording.files[1:]

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.recording.path.parent.name

    @property
    def source(self) -> str:
        """Path of the folder."""
        return name_of(self.recording.path.parent)

    def identity(self) -> str:
        """A hash over the actions and all pictures."""
        return identity_of(read_whole(path, MOST_PICTURE_BYTES) for path in self.recording.files)

    def read(self, need: Need, tokenizer: Tokenizer, space: ActionSpace) -> Window:
        """Encode the last C pictures; or from a start, or with K more steps, if these are needed."""
        follow_links_of(self.recording)
        opened = open_demonstrator(self.recording, self.limits)
        assert opened.actions is not None
        recorded = opened.actions.values.astype(np.float32)
        actions = conversion_between(load_space(ACTION_SPACE), space).apply(recorded)
        known: NDArray[np.bool_] = np.array(np.isfinite(actions).all(axis=1))
        if need.actions or need.frames or need.start is not None:
            start = place(known if need.actions else np.ones_like(known), need)
        else:
            start = len(known) - need.context
        rows = need.picture_steps(start, len(known))
        acted = need.action_steps(start, len(known))
        notes: dict[str, None] = {}
        window = read_window(
            start,
            decoded(self.pictures[rows.start : rows.stop], notes),
            actions[acted.start : acted.stop],
            need.context,
            tokenizer,
        )
        return replace(window, notes=tuple(notes))


def demonstrator_episodes(paths: Sequence[Path]) -> list[DemonstratorEpisode | RefusedEpisode]:
    """Every folder of WHAM Demonstrator among folders and below them, by name; damaged ones refuse.

    Raises:
        UsageError: two would have one name.
    """
    discovery = discover(paths, "demonstrator")
    recordings = {recording.path: recording for recording in discovery.recordings}
    refusals = {path: why for path, why in discovery.refused if path.name == ACTIONS_FILE}
    episodes: dict[str, DemonstratorEpisode | RefusedEpisode] = {}
    for path in sorted([*recordings, *refusals]):
        folder = path.parent
        root = next((root for root in paths if folder.is_relative_to(root)), folder)
        name = safe_name(folder.relative_to(root).parts or (folder.name,))
        if name in episodes:
            raise UsageError(
                f"{folder} and {episodes[name].source} would both be called {name}: dream them into "
                "different folders"
            )
        episodes[name] = (
            DemonstratorEpisode(name, recordings[path], VideoLimits())
            if path in recordings
            else RefusedEpisode(name, name_of(folder), folder.name, refusals[path])
        )
    return list(episodes.values())


def pictures_in(episode: DemonstratorEpisode | RefusedEpisode) -> tuple[Path, ...]:
    """The pictures of an episode; none of a refused one."""
    return episode.pictures if isinstance(episode, DemonstratorEpisode) else ()
