"""`picture-tar`: tar files of pictures with the action of each beside it, as WebDataset reads them.

    NAME.tar    KEY.png, .jpg, .jpeg or .webp        a picture
                KEY.json, .cls or .npy               the action of its frame

The tar file says neither the times, nor what an episode is, nor what the numbers of an action mean.
Options say the first; the second is taken from the keys, and said in a note; for the third see
`actions.py`. Frames are in the order of the tar file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.files.found import open_regular
from wham_data.files.tar_file import bytes_at, tar_places
from wham_data.pipelines.readers.kit.frame_actions import even_times, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PictureRecording,
    audit_clock,
    check_length,
)
from wham_data.pipelines.readers.kit.options import choice, option, rate_option
from wham_data.pipelines.readers.picture_tar.actions import (
    MOST_BYTES,
    Action,
    in_space,
    read_action,
)
from wham_data.pipelines.readers.picture_tar.samples import (
    COMPANIONS,
    PICTURES,
    Samples,
    ending_of,
    episodes_in,
    number_of,
    parse_rule,
    samples_in,
)
from wham_data.pipelines.readers.webdataset import SHARD
from wham_data.pipelines.video import VideoLimits, decode_image
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Recording, RefusedFile

MOST_PICTURE_BYTES: Final = 64 << 20
NO_ACTION: Final = "none"
_RULES: Final = {
    "folder": "the folder of the key",
    "prefix": "what stands before the number of the key",
    "tar": "all of the tar file",
}


@dataclass(frozen=True, slots=True)
class PictureTar:
    """Reader of tar files of pictures.

    target  the space of the corpus; None: not known
    """

    name: ClassVar[str] = "picture-tar"
    about: ClassVar[str] = "WebDataset tar files of pictures, each with its action beside it"
    order: ClassVar[int] = 95
    frame_rate: Fraction | None = rate_option(
        None, about="frames per second; needed, the files do not say"
    )
    episodes: str = option(
        "auto",
        about="which keys are an episode",
        expects="auto, folder, prefix (before the number of the key), tar (all of it) or field:NAME of "
        "the .json",
        parse=parse_rule,
    )
    picture: str = option(
        "",
        about="the ending of the picture, where a key has several",
        expects="an ending",
        parse=str,
    )
    action: str = option(
        "",
        about="the ending of the action, where a key has several; none: read no actions",
        expects="an ending such as json or action.npy, or none",
        parse=str,
    )
    field: str = option(
        "",
        about="the field of the .json with the action; by default action or actions, else all of it",
        expects="a name, or a/b for b in a",
        parse=str,
    )
    space: ActionSpace | None = option(
        None,
        about="what the numbers of an action are, with their ranges",
        expects="the name of an action space, or the path of its .toml file",
        parse=load_space,
    )
    timing: str = choice("after", "leads", about="an action acts after its frame, or led to it")
    numbers: str = choice(
        "check", "ignore", about="whether the numbers of an episode's keys must go up evenly"
    )
    target: ActionSpace | None = None

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every episode of the tar files whose first sample has a picture."""
        for path in files:
            if path.suffix.lower() != ".tar":
                continue
            try:
                places = tar_places(path)
            except RefusedInput:
                continue  # whatever is in it, an archive is refused with its problem
            if SHARD in places:
                continue
            try:
                names = self._episodes(path, samples_in(path))
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            for name in names:
                yield Recording(path, (path,), self.name, part=name)

    def _episodes(self, path: Path, samples: Samples) -> Sequence[str]:
        """The names of the episodes; none if the tar file holds something else.

        Raises:
            RefusedInput: TIMESTAMPS_MISSING, there is no rate; METADATA, it is not clear what is the
                picture or the action; LOG_MISSING, there is no action.
        """
        if not samples:
            return ()
        first = next(iter(samples.values()))
        if not any(ending.rpartition(".")[2] in PICTURES for ending in first):
            return ()
        self._endings(samples)
        if self.frame_rate is None:
            raise RefusedInput(
                Reason.TIMESTAMPS_MISSING,
                "a tar file of pictures, which says nothing of times: give the frames per second, "
                "such as --option frame_rate=30",
            )
        return tuple(episodes_in(path, self.episodes)[1])

    def _endings(self, samples: Samples) -> tuple[str, str | None]:
        """The endings of the picture and of the action; None: no action is wanted."""
        picture = ending_of(samples, PICTURES, self.picture, "picture")
        if picture is None:
            raise RefusedInput(Reason.NO_FRAMES, f"{next(iter(samples))[:80]} has no picture")
        if self.action == NO_ACTION:
            return picture, None
        action = ending_of(samples, COMPANIONS, self.action, "action")
        if action is None:
            raise RefusedInput(
                Reason.LOG_MISSING,
                f"{next(iter(samples))[:80]} has a picture, but no .json, .cls or .npy with its action "
                "beside it; --option action=none reads the pictures without actions",
            )
        return picture, action

    def open(self, recording: Recording, limits: VideoLimits) -> PictureRecording:
        """Read the actions."""
        path = recording.path
        places = tar_places(path)
        samples = samples_in(path)
        rule, episodes = episodes_in(path, self.episodes)
        keys = episodes.get(recording.part)
        if keys is None or self.frame_rate is None:
            raise RefusedInput(Reason.CHANGED_WHILE_READ, f"{path.name} changed while read")
        picture, action = self._endings(samples)
        pictures = [_file(samples, key, picture, Reason.NO_FRAMES) for key in keys]
        by = _RULES.get(rule) or f"what {rule.removeprefix('field:')[:80]} of the .json says"
        notes = [f"an episode is {by} (--option episodes)", *self._check_numbers(keys)]
        times_ns, end_ns = even_times(len(keys), self.frame_rate)
        check_length(len(keys), end_ns, limits)
        track = None
        if action is not None:
            actions = self._read_actions(path, samples, keys, action)
            space, values, more = in_space(actions, self.space, self.target)
            leads = self.timing == "leads"
            track = per_frame_track(space, times_ns, end_ns, values, leads=leads)
            acts = "led to its frame" if leads else "acts after its frame"
            notes += [f"actions from .{action[:40]}", f"an action {acts} (--option timing)", *more]

        def shown(picks: Index) -> Iterator[Picture | None]:
            size = None
            with open_regular(path) as file:
                for pick in picks.tolist():
                    try:
                        found = decode_image(
                            bytes_at(file, places, pictures[pick], MOST_PICTURE_BYTES)
                        )
                    except RefusedInput:
                        yield None
                        continue
                    size = size or found.shape
                    if found.shape != size:
                        raise RefusedInput(
                            Reason.RESOLUTION_CHANGE,
                            f"{pictures[pick][:80]} has {found.shape[1]}x{found.shape[0]} pixels, but "
                            f"pictures before it {size[1]}x{size[0]}",
                        )
                    yield found

        return PictureRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=audit_clock(times_ns),
            data=FrameData(actions=track),
            notes=(f"no clock in the files: taken as {float(self.frame_rate):g} frames/s", *notes),
            pictures=shown,
            limits=limits,
        )

    def _read_actions(
        self, path: Path, samples: Samples, keys: Sequence[str], ending: str
    ) -> list[Action | None]:
        """One for each key. Only the last may be missing, as that of the frame after the last action."""
        places = tar_places(path)
        actions: list[Action | None] = []
        with open_regular(path) as file:
            for key in keys:
                if key == keys[-1] and len(keys) > 1 and ending not in samples[key]:
                    actions.append(None)
                    continue
                name = _file(samples, key, ending, Reason.LOG_MISSING)
                data = bytes_at(file, places, name, MOST_BYTES)
                actions.append(read_action(data, name, self.field))
        return actions

    def _check_numbers(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Refuse an episode whose keys are numbered, but not one after the other.

        Raises:
            RefusedInput: LOG_CLOCK, the tar file was shuffled, or frames are missing.
        """
        numbers = [number_of(key) for key in keys]
        if None in numbers or len(numbers) < 2:
            return ()
        steps = np.diff(np.array(numbers, np.int64))
        if (steps == steps[0]).all() and steps[0] > 0:
            return ()
        if self.numbers == "ignore":
            return ("the numbers of the keys do not go up evenly, which is ignored",)
        at = int(np.flatnonzero(steps != max(steps[0], 1))[0]) + 1
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"{keys[at][:80]} follows {keys[at - 1][:80]}: the numbers of an episode's keys do not go up "
            "evenly, so frames are missing, in another order, or of several episodes (--option "
            "episodes=...). --option numbers=ignore takes them in the order of the tar file",
        )


def _file(samples: Samples, key: str, ending: str, reason: Reason) -> str:
    name = samples[key].get(ending)
    if name is None:
        raise RefusedInput(reason, f"no {key[:80]}.{ending[:40]} in the tar file")
    return name
