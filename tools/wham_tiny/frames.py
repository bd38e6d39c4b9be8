"""Convert recordings to arrays of 300x180 frames on the 10 Hz grid, as training data of `train.py`.

    python frames.py --recordings recordings --out frames

Writes `train.npy` and `held_out.npy` (uint8 [N, 180, 300, 3]), and for each a `.json` file with a list of
[recording, first frame, frame after the last].
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from wham_data.pipelines.video import decode_frames, index_video

TENTH_NS = 100_000_000


def frames_on_grid(video: Path) -> np.ndarray:
    """The frames on screen at every tenth of a second, uint8 [N, 180, 300, 3]."""
    index = index_video(video)
    ticks = np.arange(int(index.times_ns[0]), index.end_ns, TENTH_NS)
    on_screen = np.searchsorted(index.times_ns, ticks, side="right") - 1
    return np.concatenate(list(decode_frames(index, on_screen)))


def main() -> None:
    """Convert the shares `train` and `held_out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help="folder with the shares")
    parser.add_argument("--out", type=Path, required=True, help="folder for the arrays")
    folders = parser.parse_args()
    folders.out.mkdir(parents=True, exist_ok=True)
    for share in ("train", "held_out"):
        rows: list[tuple[str, int, int]] = []
        parts: list[np.ndarray] = []
        for video in sorted((folders.recordings / share).glob("*.mp4")):
            parts.append(frames_on_grid(video))
            start = rows[-1][2] if rows else 0
            rows.append((video.stem, start, start + len(parts[-1])))
        np.save(folders.out / f"{share}.npy", np.concatenate(parts))
        (folders.out / f"{share}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
