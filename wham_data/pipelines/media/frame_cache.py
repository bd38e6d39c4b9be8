"""The pictures of a corpus as memory-mapped arrays, for training a tokenizer."""

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
    """The frames of a corpus, as uint8 [N, H, W, 3] memory maps.

    train     frames of the train split
    held_out  frames of the val and test splits
    """

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


def unpack_frames(corpus: Corpus, folder: Path, advance: Callable[[int], None]) -> CorpusFrames:
    """Decode every picture of the corpus into two files in `folder`.

    Args:
        corpus: a corpus with pictures (`ingest --frames jpeg` or `png`).
        folder: folder for the arrays, made if needed; a 300x180 step takes 162 KB.
        advance: called after each picture with the number of pictures decoded since the last call.

    Raises:
        UsageError: the corpus has no pictures, or no steps in one of the two parts.
        IntegrityError: a picture does not have the size of the corpus.
    """
    if corpus.info.frames == "none":
        raise UsageError(
            f"{corpus.location}: holds no pictures to train on; ingest with --frames png or jpeg"
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
                "a tokenizer is trained on one part and tested on the other (ingest --split)"
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
