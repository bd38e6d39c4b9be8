"""What is fuzzed: whole files that are good, and what reads them to the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import test_reader_csgo_hdf5 as csgo
import test_reader_diamond_atari as diamond_atari
import test_reader_diamond_csgo as diamond_csgo
import test_reader_doom_parquet as doom
import test_reader_dreamer_replay as dreamer
import test_reader_gf_minecraft as gf
import test_reader_lerobot as lerobot
import test_reader_matrix_game as matrix
import test_reader_mcap as mcap
import test_reader_melting_pot_lmdb as melting_pot
import test_reader_minari as minari
import test_reader_minari_tables as minari_tables
import test_reader_mineworld as mineworld
import test_reader_multi_agent_jsonl as agents
import test_reader_nitrogen as nitrogen
import test_reader_open_oasis as oasis
import test_reader_owamcap as owamcap
import test_reader_p2p as p2p
import test_reader_picture_tar as picture_tar
import test_reader_retro_movie as retro_movie
import test_reader_rlds as rlds
import test_reader_video_log as video_log
import test_reader_vpt as vpt
import test_reader_wham_npz as wham_npz
from makers import corpora as corpus_makers
from makers import wham_checkpoints
from makers.mcap_files import coded, json_image, json_joy, video
from makers.mcap_files import write as write_mcap
from makers.video_clips import write_clip

from wham_data.corpus import Corpus
from wham_data.feed import WindowDataset
from wham_data.inference.checkpoints.lightning import open_checkpoint
from wham_data.pipelines.align import place_steps, resample_actions
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.retro_movie.movie import RetroMovie
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Recording

NEVER_CHANGED = (".mp4", ".mkv")
"""Videos: codecs are fuzzed by others, and run in a child of their own."""

OPTIONS: Final = {"frame_rate": "20"}
"""Given to every reader; one of them needs a rate."""

SHOWN = 3
"""Frames read of each recording."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that opens strangers' files.

    make  writes good files into an empty folder
    read  reads them to the end; may raise nothing but the error family
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


def read_recordings(folder: Path) -> None:
    """Everything that ingest asks of recordings short of writing them.

    Raises:
        RefusedInput: of the last one that was refused.
    """
    refused = None
    for recording in discover([folder], options=OPTIONS).recordings:
        try:
            read_recording(recording)
        except RefusedInput as why:
            refused = why
    if refused:
        raise refused


def read_recording(recording: Recording) -> None:
    """Clocks, actions on the grid, and a few pictures.

    Raises:
        RefusedInput: of the recording.
    """
    opened = open_recording(recording, options=OPTIONS)
    times, track = opened.frame_times_ns, opened.actions
    span = None if track is None else (int(track.times_ns[0]), track.end_ns)
    for plan in place_steps(times, opened.frame_end_ns, span, Fraction(10)):
        if track is not None:
            resample_actions(track, plan.edges_ns)
        if not opened.pictureless:
            some = np.unique(plan.picks[:SHOWN])
            list(opened.frames(some, (40, 24), fit="stretch", batch=2, threads=1))


def read_checkpoint(folder: Path) -> None:
    """Open a checkpoint and touch every weight."""
    checkpoint = open_checkpoint(folder / "model.ckpt")
    for _, weights in checkpoint.world_model_tensors():
        weights.sum()
    for _, values in checkpoint.tokenizer.tensors():
        values.sum()


def read_corpus(folder: Path) -> None:
    """Everything that reads a corpus."""
    corpus = Corpus.open(folder)
    corpus.episodes.height  # noqa: B018  # reads the manifest
    corpus.verify()
    corpus.scan().collect()
    for batch in WindowDataset(corpus, length=2, split=None, batch_size=4, shuffle=False):
        np.asarray(batch["actions"]).sum()


def _german(rows: Sequence[video_log.Row]) -> bytes:
    """As a spreadsheet exports it: UTF-16, semicolons, decimal commas, units, a comment."""
    lines = video_log.as_csv(rows).replace(",", ";").replace(".", ",").splitlines()
    return "\r\n".join(["sep=;", lines[0], "s" + ";" * 16, "# pad 1", *lines[1:]]).encode("utf-16")


def _dated(rows: Sequence[video_log.Row]) -> bytes:
    """As numpy saves it, with dates."""
    zero = datetime(2026, 3, 1, 12, tzinfo=UTC)
    dated = [
        {**row, "t": (zero + timedelta(seconds=float(str(row["t"])))).isoformat()} for row in rows
    ]
    return f"# made by a tool\n# {video_log.as_csv(dated)}".encode()


def _keys(_: Sequence[video_log.Row]) -> bytes:
    """As a script with pynput writes it."""
    names = ("'w'", "Key.shift_l", "<87>", "KeyD", "0x20")
    rows = [
        {"timestamp": 0.1 * k, "key": names[k // 2 % 5], "event": "up" if k % 2 else "down"}
        for k in range(20)
    ]
    return json.dumps({"version": 1, "events": rows}, indent=1).encode()


LOGS: Final[dict[str, tuple[str, Callable[[Sequence[video_log.Row]], bytes], str]]] = {
    "csv": ("a.csv", lambda rows: video_log.as_csv(rows).encode(), ""),
    "jsonl": ("a.jsonl", lambda rows: video_log.as_jsonl(rows).encode(), ""),
    "parquet": ("a.parquet", video_log.as_parquet, ""),
    "german": ("a.csv", _german, ""),
    "dated": ("a.tsv", _dated, "start = 2026-03-01T12:00:00Z\n"),
    "list": ("a.json", lambda rows: json.dumps(rows).encode(), ""),
    "keys": ("a.json", _keys, 'actions = "keyboard_mouse"\n'),
}
"""Name of a log's form -> its file, what writes it, and metadata besides those of `rows`."""


def _logs(form: str) -> Callable[[Path], object]:
    name, text, metadata = LOGS[form]

    def make(folder: Path) -> None:
        write_clip(folder / "a.mp4", range(0, 2000, 50))
        (folder / name).write_bytes(text(video_log.rows(2.0)))
        columns = "" if form == "keys" else video_log.TOML
        (folder / "a.toml").write_text(metadata + columns)

    return make


RECORDINGS: dict[str, Callable[[Path], object]] = {
    "csgo-hdf5": lambda folder: csgo.write(folder / csgo.NAME, 4),
    "diamond-atari": lambda folder: diamond_atari.saved(
        diamond_atari.episode(), folder / "000/00/0/0.pt"
    ),
    "diamond-csgo": lambda folder: diamond_csgo.saved(folder / "0/0.pt"),
    "doom-parquet": lambda folder: doom.first(folder / "episode_0.parquet", [0, 1, 2]),
    "dreamer-replay": lambda folder: dreamer.write(folder, dreamer.stream([5, 6])),
    "gf-minecraft": lambda folder: gf.written(folder, captions="seed_1_part_1.mp4,0,4,a desert\n"),
    "lerobot-v2": lerobot.v2,
    "lerobot-v3": lerobot.v3,
    "matrix-game": matrix.labelled,
    "matrix-game-npz": matrix.conditioned,
    "mcap": lambda folder: write_mcap(
        folder / "a.mcap", [*mcap.PICTURES, *mcap.PAD], chunked=False
    ),
    "mcap-json": lambda folder: write_mcap(
        folder / "a.mcap",
        [
            message
            for ms in mcap.TIMES_MS
            for message in (json_image(ms, mcap.PNGS[0]), json_joy(ms, [0.5], [1]))
        ],
        chunked=False,
    ),
    "mcap-video": lambda folder: write_mcap(
        folder / "a.mcap",
        [video(50 * number, data, "h264") for number, data in enumerate(coded("h264", 20))],
        chunked=False,
    ),
    "melting-pot-lmdb": melting_pot.shard,
    "minari": lambda folder: minari.write(folder, {"episode_0": minari.episode([0, 1, 2])}),
    "minari-arrow": lambda folder: minari_tables.write(
        folder, {0: ([1, 2], minari.images(3))}, "arrow"
    ),
    "minari-parquet": lambda folder: minari_tables.write(
        folder, {0: ([1, 2], minari.images(3))}, "parquet"
    ),
    "mineworld": lambda folder: mineworld.written(folder, mineworld.LINES),
    "multi-agent-jsonl": lambda folder: agents.write(folder, "video", [agents.both(1, 0)] * 6),
    "nitrogen": nitrogen.chunk,
    "open-oasis": lambda folder: oasis.saved(folder, oasis.binned()),
    "open-oasis-one-hot": lambda folder: oasis.saved(folder, oasis.one_hot(), "one_hot_actions"),
    "owamcap": lambda folder: (
        write_clip(folder / "a.mkv", range(0, 400, 50)),
        owamcap.mcap(
            folder / "a.mcap",
            [*owamcap.screens(0, 50, 100), owamcap.key(20, 0x57), *owamcap.screens(150, 200)],
        ),
    ),
    "p2p": lambda folder: p2p.session(folder / "id", [p2p.action("w", dx=3)] * 5),
    "picture-tar": lambda folder: picture_tar.tar_of(
        folder / "a.tar", picture_tar.samples(3, "npy", lambda i: picture_tar.npy([0.5, i]), "e/")
    ),
    "picture-tar-json": lambda folder: picture_tar.tar_of(
        folder / "a.tar",
        picture_tar.samples(
            3, "json", lambda i: json.dumps({"episode": i // 2, "action": {"up": True, "x": i}})
        ),
    ),
    "rlds": lambda folder: rlds.write(folder, rlds.episode(3)),
    "vpt": lambda folder: vpt.record(folder, [vpt.line("w", motion=(3, 4))] * 5),
    "wham-npz": lambda folder: wham_npz.write(folder / wham_npz.NAME, wham_npz.episode(3)),
}

TARGETS: dict[str, tuple[Target, ...]] = {
    "readers": tuple(Target(name, make, read_recordings) for name, make in RECORDINGS.items()),
    "logs": tuple(Target(form, _logs(form), read_recordings) for form in LOGS),
    "checkpoints": (
        Target(
            "vit",
            lambda folder: wham_checkpoints.write_checkpoint(folder / "model.ckpt"),
            read_checkpoint,
        ),
        Target(
            "taming",
            lambda folder: wham_checkpoints.write_checkpoint(
                folder / "model.ckpt", wham_checkpoints.TAMING
            ),
            read_checkpoint,
        ),
    ),
    "movies": (
        Target(
            "retro-movie",
            lambda folder: shutil.copy(retro_movie.REAL, folder / "a.bk2"),
            lambda folder: RetroMovie.read(folder / "a.bk2"),
        ),
    ),
    "corpora": (Target("corpus", corpus_makers.small_corpus, read_corpus),),
}
"""What is fuzzed, in groups."""
