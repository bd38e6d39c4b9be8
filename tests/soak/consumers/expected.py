"""What a corpus holds, for programs that know nothing of it, and the comparison with what they read.

`run.py` writes `expected.npz` from `Corpus.scan()`; the readers compare with it, step by step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FAR = 8.0
"""Mean difference of a picture's bytes after H.264 that is still close."""


class Expected:
    """The steps of a corpus by the name of their episode and their number in it.

    Each column is an array of a row per step: episode, split, step, time_ns, actions, known,
    frames, and tokens, state, reward and text if the corpus has them.
    """

    def __init__(self, export: Path) -> None:
        self.columns = dict(np.load(export.parent / "expected.npz", allow_pickle=False))
        lines = (export / "episodes.jsonl").read_text().splitlines()
        self.exported = [json.loads(line) for line in lines]
        self._pieces = {each["episode"]: each["of"] for each in self.exported}
        places = zip(self.columns["episode"].tolist(), self.columns["step"].tolist(), strict=True)
        self._rows = {place: row for row, place in enumerate(places)}

    def splits(self) -> list[str]:
        return sorted({each["split"] for each in self.exported})

    def episodes(self, split: str) -> list[dict[str, Any]]:
        """The lines of the exported episodes of a split, in the order of their numbers."""
        return [each for each in self.exported if each["split"] == split]

    def row(self, episode: str, step: int) -> int:
        """The row of a step of an exported episode, which may be a piece of one of the corpus."""
        piece = self._pieces[episode]
        return self._rows[piece["episode"], piece["first_step"] + step]

    def check(self, episode: str, step: int, **values: Any) -> None:
        """Compare the values of a step; `frames` exactly, `video` closely.

        Raises:
            SystemExit: one differs. The message says which.
        """
        row = self.row(episode, step)
        for name, found in values.items():
            if name == "video":
                self._check_video(row, np.asarray(found))
                continue
            want = self.columns[name][row]
            missing_is_equal = want.dtype.kind == "f"
            if not np.array_equal(np.asarray(found), want, equal_nan=missing_is_equal):
                said = f"{np.shape(found)}" if want.size > 100 else f"{found!r}, not {want!r}"
                raise SystemExit(f"{episode}, step {step}: {name} differs: {said}")

    def _check_video(self, row: int, found: np.ndarray) -> None:
        """A picture is close to its own, and to no other of the corpus closer."""
        frames = self.columns["frames"]
        height, width = frames.shape[1:3]
        found = found[:height, :width].astype(np.int16)  # H.264 has even sides

        def far(other: int) -> float:
            return float(np.abs(found - frames[other]).mean())

        near = [each for each in (row - 1, row + 1) if 0 <= each < len(frames)]
        if (own := far(row)) > FAR or any(far(each) < own - 0.5 for each in near):
            where = self.columns["episode"][row], self.columns["step"][row]
            others = [round(far(each), 1) for each in near]
            raise SystemExit(
                f"{where}: the picture is {own:.1f} from its own, {others} from others"
            )
