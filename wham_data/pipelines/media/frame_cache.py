"""A corpus' pictures as one memory-mapped array, for training a tokenizer on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.pipelines.video import decode_image
from wham_data.schemas.errors import IntegrityError, UsageError


@dataclass(frozen=True, slots=True)
class CorpusFrames:
    """Frames of the train split, and those of val and test; uint8 [N, H, W, 3] memory maps."""

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


def unpack_frames(corpus: Corpus, folder: Path, advance: Callable[[int], None]) -> CorpusFrames:
    """Decode every picture of the corpus into two files in `folder`.

    Args:
        corpus: with pictures (`ingest --frames jpeg` or `png`).
        folder: holds the arrays afterwards; 162 KB for each 300x180 step.
        advance: called with the number of pictures that were just decoded.

    Raises:
        UsageError: the corpus has no pictures, or nothing in one of the two parts.
        IntegrityError: a picture is not of the corpus' size.
    """
    if corpus.info.frames == "none":
        raise UsageError(
            f"{corpus.location}: holds no pictures to learn from; ingest with --frames png or jpeg"
        )
    folder.mkdir(parents=True, exist_ok=True)
    width, height = corpus.info.size
    parts: dict[str, NDArray[np.uint8]] = {}
    for name, splits in (("train", ("train",)), ("held_out", ("val", "test"))):
        episodes = corpus.episodes.select("episode", "split", "n_steps").rows()
        chosen = [(episode, count) for episode, split, count in episodes if split in splits]
        total = sum(count for _, count in chosen)
        if not total:
            raise UsageError(
                f"{corpus.location}: no steps in {' or '.join(splits)}; "
                "a tokenizer is trained on one part and judged by the other (ingest --split)"
            )
        frames = open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(total, height, width, 3)
        )
        row = 0
        for episode, _ in chosen:
            for image in corpus.read_episode(episode).frames or ():
                picture = decode_image(image)
                if picture.shape != (height, width, 3):
                    raise IntegrityError(
                        f"{corpus.location}: episode {episode} holds a picture of "
                        f"{picture.shape[1]}x{picture.shape[0]}, expected {width}x{height}"
                    )
                frames[row] = picture
                row += 1
                advance(1)
        frames.flush()
        parts[name] = frames
    return CorpusFrames(parts["train"], parts["held_out"])
