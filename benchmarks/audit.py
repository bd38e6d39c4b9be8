"""How exact and how fast `wham-data audit` is, against recordings whose true clock is known.

    python benchmarks/audit.py FOLDER... [--limit N] [--seed S]

Each FOLDER has recordings made by `wham-data collect`, whose logs are exact. From each recording are made:
the recording as it is, one with a log that is late or early by up to 300 ms (every second one drifts too, by
up to 2000 ppm, and every third video is encoded again at a low bit rate), one with an inverted turn where
there is one, and one with the log of another recording. All are audited, and the verdicts are compared.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np

from wham_data.pipelines.curate.job import audit
from wham_data.pipelines.curate.report import Audited
from wham_data.pipelines.ingest.decoder_process import close_idle
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import open_recording
from wham_data.pipelines.readers.video_log.reader import VideoLog
from wham_data.pipelines.video import VideoLimits, write_video

TURNS = ("TURN_LEFT_RIGHT_DELTA", "turn")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def write_log(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def shifted(rows: list[list[str]], lag_ms: float, drift: float) -> list[list[str]]:
    moved = [round(int(row[0]) * (1 + drift) + lag_ms * 1e6) for row in rows[1:]]
    return [rows[0], *([str(t), *row[1:]] for t, row in zip(moved, rows[1:], strict=True))]


def inverted(rows: list[list[str]], name: str) -> list[list[str]]:
    at = rows[0].index(name)
    return [rows[0], *([*r[:at], str(-float(r[at])), *r[at + 1 :]] for r in rows[1:])]


def low_bit_rate(source: Path, target: Path) -> None:
    (found,) = (r for r in VideoLog().find(tuple(source.parent.iterdir())) if r.path == source)
    opened = open_recording(found, VideoLimits(), 10**9, {}, (), None)
    times = opened.frame_times_ns
    rate = Fraction(10**9, int(np.median(np.diff(times)))).limit_denominator(100)
    if np.ptp(np.diff(times)) > 2_000_000:
        os.link(source, target)  # its clock would be lost
        return
    index = opened.clips[0].index  # type: ignore[attr-defined]
    size = index.picture.display_size
    frames = opened.frames(np.arange(len(times)), size, fit="stretch", batch=8, threads=1)
    each = (picture for batch in frames for picture in batch)
    write_video(target, each, rate, crf=38, preset="veryfast")


def make(
    recordings: list[Path], out: Path, dice: np.random.Generator
) -> dict[str, tuple[str, float, float]]:
    """Make the variants; file stem -> (kind, true lag at time 0 in ms, true drift in ppm)."""
    truth: dict[str, tuple[str, float, float]] = {}
    for number, video in enumerate(recordings):
        rows = rows_of(video.with_suffix(".csv"))
        same = [r for r in recordings if r.parent == video.parent and r != video]
        lag = float(dice.uniform(-300, 300))
        drift = float(dice.uniform(-2000, 2000)) * (number % 2)
        kinds = {"good": (rows, 0.0, 0.0), "moved": (shifted(rows, lag, drift * 1e-6), lag, drift)}
        for name in TURNS:
            if name in rows[0]:
                kinds["inverted"] = (inverted(rows, name), 0.0, 0.0)
        if same:
            other = same[int(dice.integers(len(same)))]
            kinds["wrong"] = (rows_of(other.with_suffix(".csv")), 0.0, 0.0)
        for kind, (log, lag_ms, ppm) in kinds.items():
            stem = f"{kind}_{video.parent.name}_{video.stem}"
            if kind == "moved" and number % 3 == 0:
                low_bit_rate(video, out / f"{stem}.mp4")
            else:
                os.link(video, out / f"{stem}.mp4")
            write_log(out / f"{stem}.csv", log)
            shutil.copy(video.with_suffix(".toml"), out / f"{stem}.toml")
            truth[stem] = (kind, lag_ms, ppm)
        for space in video.parent.glob("*.space.toml"):
            shutil.copy(space, out / space.name)
    return truth


def tell(of: str, found: list[tuple[Audited, float, float]]) -> None:
    verdicts = Counter(each.verdict for each, _, _ in found)
    print(f"  {of}: {len(found)} recordings: {dict(verdicts)}")
    judged = [(a, lag, ppm) for a, lag, ppm in found if a.measured.lag_ms is not None]
    kind = of.split()[0]
    if kind not in ("good", "moved") or not judged:
        return
    errors, held, drifts = [], [], []
    for each, lag, ppm in judged:
        m = each.measured
        assert m.lag_ms is not None
        assert m.lag_low_ms is not None
        assert m.lag_high_ms is not None
        # Without a claimed drift the lag is that of the middle.
        true = lag if m.drifts else lag + ppm * 1e-3 * each.length_s / 2
        errors.append(abs(m.lag_ms - true))
        held.append(m.lag_low_ms <= true <= m.lag_high_ms)
        drifts.append(m.drifts)
    share = len(judged) / len(found)
    print(
        f"    lag claimed for {share:.0%}; error median {np.median(errors):.1f} ms, 95 % "
        f"{np.quantile(errors, 0.95):.1f} ms, largest {max(errors):.1f} ms; interval holds the truth in "
        f"{np.mean(held):.0%}; drift claimed for {sum(drifts)}, true for {sum(p != 0 for _, _, p in judged)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=1000, help="recordings of each folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recordings = [v for f in options.folders for v in sorted(f.glob("*.mp4"))[: options.limit]]
    with tempfile.TemporaryDirectory(dir=options.folders[0].parent) as folder:
        truth = make(recordings, Path(folder), np.random.default_rng(options.seed))
        begun, worked = time.monotonic(), time.process_time()
        report = audit([folder], IngestSettings(rate=None, tokenizer=None), workers=0)
        wall = time.monotonic() - begun
        close_idle()
        cpu = time.process_time() - worked + sum(os.times()[2:4])
        kinds: dict[str, list[tuple[Audited, float, float]]] = defaultdict(list)
        for each in report.recordings:
            kind, lag, ppm = truth[Path(each.recording).stem]
            game = f"{kind} {Path(each.recording).stem.split('_')[1]}"
            for key in (kind, game):
                kinds[key].append((each, lag, ppm))
        for key in sorted(kinds):
            tell(key, kinds[key])
        hours = sum(each.length_s for each in report.recordings) / 3600
        print(
            f"{hours * 60:.1f} minutes of play, {cpu:.0f} CPU s, {wall:.0f} s: "
            f"{hours * 3600 / cpu:.1f} x real time per core"
        )
        for refused in report.refused:
            print("refused", refused)


if __name__ == "__main__":
    main()
