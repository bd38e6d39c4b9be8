"""`diamond`: the episodes that DIAMOND trains its world models on, for Atari and Counter-Strike.

    <split>/{000,100..}/{00,10..}/{0..9}/<id>.pt    obs (T, 3, H, W), act, rew, end, trunc, info
    <split>/info.pt                                 number of episodes and steps, length of each

If the actions are numbered (`atari18`, `procgen15`, `discrete...`), `act` holds their numbers, int64
(T,); otherwise it holds the vectors, (T, A). In `csgo51` no episode has more than 1000 steps, and
`info` names the file that `hdf5-csgo` writes for the same steps, because DIAMOND's upsampler needs it.

What reads them: DIAMOND's model for Atari looks numbers up in a table; that of the branch for
Counter-Strike takes numbers, or vectors of nothing but 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.pipelines.writers.hdf5_csgo import CSGO, FILE_FRAMES, file_id
from wham_data.pipelines.writers.parts import (
    Content,
    Demands,
    Part,
    Place,
    Written,
    action_numbers,
    cut,
    is_numbered,
    one_each,
)
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.pipelines.writers.torch_file import Tensor, write_torch_file
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.manifest import SPLITS

UNREWARDED: Final = "the corpus has no rewards: they are written as 0"


@dataclass(frozen=True, slots=True)
class DiamondWriter:
    """Writer of DIAMOND's episodes."""

    name: ClassVar[str] = "diamond"
    about: ClassVar[str] = "DIAMOND's episodes, a .pt file each"
    order: ClassVar[int] = 40
    demands: ClassVar[Demands] = Demands(numbered=True)

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any space."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """Refuses nothing. Notes say what DIAMOND expects."""
        width, height = content.size
        notes = [f"the files keep no rate; steps are {content.rate} a second"]
        if content.space == CSGO and (width, height) != (56, 30):
            notes.append(f"pictures are {width}x{height}; DIAMOND's of Counter-Strike are 56x30")
        elif is_numbered(content.space) and (width, height) != (64, 64):
            notes.append(f"pictures are {width}x{height}; DIAMOND's of Atari are 64x64")
        if len(content.space.of_kind("button")) < content.space.size:
            notes.append(
                "DIAMOND's models take numbered actions, or vectors of 0 and 1; these vectors "
                f"({content.space.name}) have other values too, for a model of your own"
            )
        return notes if content.reward else [*notes, UNREWARDED]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A file each."""
        for stretch in stretches:
            csgo = stretch.source.conversion.target == CSGO
            yield from one_each(cut([stretch], FILE_FRAMES) if csgo else [stretch])

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one `.pt` file. Its pictures are written as a stream."""
        (stretch,) = part.stretches
        count, (width, height) = stretch.n_steps, content.size
        csgo = content.space == CSGO
        actions = stretch.actions()
        act = action_numbers(stretch, actions) if is_numbered(content.space) else actions
        rewards = stretch.rewards()
        rew = np.zeros(count, np.float32) if rewards is None else rewards
        frames = (frame.transpose(2, 0, 1) for frame in stretch.frames())
        path = folder / part.split / place_of(place.split_episodes)
        path.parent.mkdir(parents=True)
        write_torch_file(
            path,
            {
                "obs": Tensor((count, 3, height, width), np.dtype(np.uint8), frames),
                "act": Tensor.of(act.astype(np.float64) if csgo else act),
                "rew": Tensor.of(rew),
                "end": Tensor.of(np.zeros(count, np.uint8)),
                "trunc": Tensor.of(np.zeros(count, np.uint8)),
                "info": {"original_file_id": file_id(stretch)} if csgo else {},
            },
        )
        signs, counts = np.unique(np.sign(rew), return_counts=True)
        return {"rewards": list(zip(signs.tolist(), counts.tolist(), strict=True))}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write `info.pt` of each split, as in DIAMOND's own data set."""
        del content
        for split in SPLITS:
            mine = [each for each in written if each.split == split]
            if not mine:
                continue
            lengths = np.array([steps for each in mine for steps in each.steps], np.int64)
            rewards = Counter[float]()
            for sign, count in (pair for each in mine for pair in each.facts["rewards"]):
                rewards[float(sign)] += count
            (folder / split).mkdir()
            write_torch_file(
                folder / split / "info.pt",
                {
                    "is_static": False,
                    "num_episodes": len(lengths),
                    "num_steps": int(lengths.sum()),
                    "start_idx": np.cumsum(lengths) - lengths,
                    "lengths": lengths,
                    "counter_rew": rewards,
                    "counter_end": Counter({0: int(lengths.sum())}),
                },
            )


def place_of(number: int) -> Path:
    """The path of an episode by its number, below the split's folder: 123 is 100/20/3/123.pt."""
    hundreds, tens, ones = (number % 10**n // 10 ** (n - 1) * 10 ** (n - 1) for n in (3, 2, 1))
    return Path(f"{hundreds:03d}/{tens:02d}/{ones}/{number}.pt")
