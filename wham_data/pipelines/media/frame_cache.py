"""The pictures of a corpus as memory-mapped arrays, for training a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.feed.held_out import held_out_stretches, no_split_note
from wham_data.feed.windows import Numbers
from wham_data.pipelines.video import decode_image
from wham_data.schemas.errors import IntegrityError, UsageError

MARGIN_STEPS: Final = 50
"""Steps between a stretch that is held out and what is trained on, if there are enough."""


@dataclass(frozen=True, slots=True)
class CorpusFrames:
    """The frames of a corpus, as uint8 [N, H, W, 3] memory maps.

    train     frames of the train split
    held_out  frames of the val and test splits
    note      what to say if one of them has no steps, and stretches of the other are held out
    """

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    note: str | None = None


def unpack_frames(corpus: Corpus, folder: Path, advance: Callable[[int], None]) -> CorpusFrames:
    """Decode every picture of the corpus into two files in `folder`.

    Args:
        corpus: a corpus with pictures (`ingest --frames jpeg` or `png`).
        folder: folder for the arrays, made if needed; a 300x180 step takes 162 KB.
        advance: called after each picture with the number of pictures decoded since the last call.

    Raises:
        UsageError: the corpus has no pictures, or too few steps.
        IntegrityError: a picture does not have the size of the corpus.
    """
    if corpus.info.frames == "none":
        raise UsageError(
            f"{corpus.location}: holds no pictures to train on; ingest with --frames png or jpeg"
        )
    folder.mkdir(parents=True, exist_ok=True)
    width, height = corpus.info.size
    parts, note = _parts(corpus)
    arrays: dict[str, NDArray[np.uint8]] = {}
    for name, steps in parts.items():
        total = sum(len(of_episode) for of_episode in steps.values())
        frames = open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(total, height, width, 3)
        )
        row = 0
        for episode, chosen in steps.items():
            images = corpus.read_episode(episode).frames or ()
            for step in chosen.tolist():
                picture = decode_image(images[step])
                if picture.shape != (height, width, 3):
                    raise IntegrityError(
                        f"{corpus.location}: episode {episode} holds a picture of "
                        f"{picture.shape[1]}x{picture.shape[0]}, expected {width}x{height}"
                    )
                frames[row] = picture
                row += 1
                advance(1)
        frames.flush()
        arrays[name] = frames
    return CorpusFrames(arrays["train"], arrays["held_out"], note)


def _parts(corpus: Corpus) -> tuple[dict[str, dict[str, Numbers]], str | None]:
    """The steps of each episode to train on and to judge by, and what to say if these are no splits."""
    every: dict[str, dict[str, Numbers]] = {"train": {}, "held_out": {}}
    for episode, split, count in corpus.episodes.select("episode", "split", "n_steps").rows():
        every["train" if split == "train" else "held_out"][episode] = np.arange(count)
    if all(every.values()):
        return every, None
    used = "train" if every["train"] else "val and test"
    missing = "val and test" if every["train"] else "train"
    there = every["train"] or every["held_out"]
    ends = np.cumsum([len(steps) for steps in there.values()])
    total = int(ends[-1]) if len(ends) else 0
    margin = min(MARGIN_STEPS, total // 20)
    chosen = held_out_stretches(total, margin, f"{corpus.location}: steps with a picture")
    parts = {
        name: {
            episode: numbers[(numbers >= end - len(steps)) & (numbers < end)] - (end - len(steps))
            for (episode, steps), end in zip(there.items(), ends.tolist(), strict=True)
        }
        for name, numbers in zip(every, chosen, strict=True)
    }
    return parts, no_split_note(corpus.location, missing, used)
