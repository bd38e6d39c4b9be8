"""`minari`: a data set of Farama's Minari for each split, in its HDF5 form.

    <name>/<split>-v0/data/main_data.hdf5    episode_<i>/{observations, actions, rewards, ...}
    <name>/<split>-v0/data/metadata.json     what observations and actions are

With `MINARI_DATASETS_PATH` at the folder of the export, `minari.load_dataset("<name>/train-v0")` finds
it. An episode of T steps has T observations and T - 1 actions: the last action led nowhere that was
seen, and the format wants an observation after each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.hdf5 import create_blobs, created_hdf5
from wham_data.pipelines.readers.kit.options import option
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, a_split_each
from wham_data.pipelines.writers.stretches import Numbers, Stretch
from wham_data.schemas.actions import ActionSpace, generic_space
from wham_data.schemas.errors import Reason

MINARI_VERSION: Final = "0.5.4"
PICTURE: Final = "frame"
STATE: Final = "state"
_NAME: Final = re.compile(r"[A-Za-z0-9][-\w]{0,62}[A-Za-z0-9]", re.ASCII)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError
    return text


@dataclass(frozen=True, slots=True)
class MinariWriter:
    """Writer of Minari's data sets."""

    name: ClassVar[str] = "minari"
    about: ClassVar[str] = "a data set of Minari for each split, in its HDF5 form"
    order: ClassVar[int] = 80
    demands: ClassVar[Demands] = Demands(numbered=True)
    dataset: str = option(
        "wham-data",
        about="what the data sets are called before the /",
        expects="2 to 64 letters, digits, _ and -",
        parse=_name,
    )

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """Says what the format has no place for."""
        return [
            "the last action of each episode is not written: minari wants an observation after each",
            f"minari has no clock: steps are {content.steady_rate} a second",
        ]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """All episodes of a split are in one file."""
        return a_split_each(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write the file of a split."""
        del place
        data = self._data_folder(folder, part.split)
        data.mkdir(parents=True)
        with created_hdf5(data / "main_data.hdf5") as file:
            for number, stretch in enumerate(part.stretches):
                group = file.create_group(f"episode_{number}")
                group.attrs.update({"id": number, "total_steps": stretch.n_steps - 1})
                _write_episode(group, stretch, content)
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write what each data set declares."""
        for each in written:
            data = self._data_folder(folder, each.split)
            data.mkdir(parents=True)
            said = {
                "dataset_id": f"{self.dataset}/{each.split}-v0",
                "minari_version": MINARI_VERSION,
                "data_format": "hdf5",
                "jpeg_encoding": _as_jpegs(content),
                "total_episodes": len(each.episodes),
                "total_steps": sum(each.steps) - len(each.steps),
                "action_space": json.dumps(_action_space(content.space)),
                "observation_space": json.dumps(_observation_space(content)),
                "description": f"{content.steady_rate} steps per second; actions in "
                f"{content.space.name}: {', '.join(content.space.names)}",
            }
            (data / "metadata.json").write_text(json.dumps(said))

    def _data_folder(self, folder: Path, split: str) -> Path:
        return folder / self.dataset / f"{split}-v0" / "data"


def _write_episode(group: Any, stretch: Stretch, content: Content) -> None:
    """Fill an empty HDF5 group."""
    count = stretch.n_steps
    if count < 2:
        raise stretch.refuse(Reason.TOO_SHORT, "one step: no observation after its action")
    seen = group.create_group("observations") if content.state_size else group
    name = PICTURE if content.state_size else "observations"
    if _as_jpegs(content):
        blobs = create_blobs(seen, name, count)
        for step, data in enumerate(stretch.coded_frames()):
            blobs[step] = np.frombuffer(data, np.uint8)
    else:
        shape = _shape(content)
        images = seen.create_dataset(
            name, (count, *shape), np.uint8, chunks=(1, *shape), compression="gzip",
            compression_opts=1,
        )  # fmt: skip
        for step, frame in enumerate(stretch.frames()):
            images[step] = frame
    if content.state_size:
        states = stretch.states()
        missing = np.full((count, content.state_size), np.nan, np.float32)
        seen[STATE] = missing if states is None else states
    group["actions"] = _acted(stretch, content.space)[:-1]
    rewards = stretch.rewards()
    group["rewards"] = (np.zeros(count) if rewards is None else rewards.astype(np.float64))[:-1]
    group["terminations"] = np.zeros(count - 1, np.bool_)
    group["truncations"] = np.arange(count - 1) == count - 2


def _acted(stretch: Stretch, space: ActionSpace) -> NDArray[np.int64] | Numbers:
    """Actions as declared: numbers of actions int64 [T], or all values float32 [T, A]."""
    actions = stretch.actions()
    if not _is_numbered(space):
        return actions
    if (several := np.flatnonzero(actions.sum(axis=1) != 1)).size:
        raise stretch.refuse(
            Reason.LOG_RANGE, f"step {several[0]}: not one action, as {space.name} is written"
        )
    return np.asarray(actions.argmax(axis=1), np.int64)


def _is_numbered(space: ActionSpace) -> bool:
    """Whether a source numbered its actions, of which each step has one."""
    return space.name.startswith("discrete") and space == generic_space(space.name)


def _action_space(space: ActionSpace) -> dict[str, Any]:
    if _is_numbered(space):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": space.size}
    low, high = space.ranges().T
    deltas = space.of_kind("delta")  # of a whole step: without bounds
    low[deltas], high[deltas] = -np.inf, np.inf
    return _box("float32", low, high)


def _observation_space(content: Content) -> dict[str, Any]:
    shape = _shape(content)
    picture = _box("uint8", np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8))
    if not content.state_size:
        return picture
    bounds = np.full(content.state_size, np.inf)
    state = _box("float32", -bounds, bounds)
    return {"type": "Dict", "subspaces": {PICTURE: picture, STATE: state}}


def _box(dtype: str, low: NDArray[Any], high: NDArray[Any]) -> dict[str, Any]:
    shape = list(low.shape)
    return {
        "type": "Box", "dtype": dtype, "shape": shape, "low": low.tolist(), "high": high.tolist(),
    }  # fmt: skip


def _shape(content: Content) -> tuple[int, int, int]:
    width, height = content.size
    return height, width, 3


def _as_jpegs(content: Content) -> bool:
    """Whether the corpus keeps JPEGs, which are then passed on as they are."""
    return content.pictures == "stored" and content.coding == "jpeg"
