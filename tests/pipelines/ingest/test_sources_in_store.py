"""Recordings on an object store give the corpus that a copy on this disk gives, whatever goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import torch
from makers.commands import ROOT, Run
from makers.fault_proxy import Fault, FaultProxy
from makers.object_stores import Bucket
from makers.once import made_once
from makers.recordings import PLAIN, cut, cuts, digest, ingest_here
from makers.video_clips import write_clip

from wham_data.corpus import Corpus
from wham_data.corpus.storage.sources import at_hand, ranged
from wham_data.corpus.storage.sources.at_hand import LaidOut, here
from wham_data.corpus.storage.sources.folders import listed, walk
from wham_data.files.found import open_regular
from wham_data.pipelines.dream.sources import open_dream_source
from wham_data.pipelines.export.job import export
from wham_data.pipelines.ingest.job import ingest
from wham_data.pipelines.ingest.retry import retry
from wham_data.pipelines.ingest.settings import IngestChoices
from wham_data.pipelines.ingest.shown.explain import explain
from wham_data.pipelines.readers import SourceSearch, discover, nitrogen, open_recording
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.pipelines.video import write_video
from wham_data.schemas.errors import RefusedInput, UsageError, WhamDataError
from wham_data.schemas.paths import store_path, told

FORMATS = ("wham-npz", "lerobot", "webdataset", "minari", "diamond")
"""Files that are read in parts (npz, tar, Parquet, videos) and such as are fetched whole (HDF5, pt)."""


def as_of(place: str, found: dict[str, Any]) -> dict[str, Any]:
    """A digest in which a folder of recordings has another name."""

    def elsewhere(value: object) -> object:
        return value.replace(place, "HERE") if isinstance(value, str) else value

    return {
        **found,
        **{
            part: [{name: elsewhere(value) for name, value in row.items()} for row in found[part]]
            for part in ("episodes", "quarantine")
        },
    }


@pytest.fixture(scope="session")
def in_every_form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same play in FORMATS, a folder each. Only to be read."""

    def make(folder: Path) -> Path:
        for number, piece in enumerate(cuts(2)):
            cut(folder / "played", f"play{number}", piece)
        ingest_here(folder / "played", folder / "corpus", replace(PLAIN, frames="png"))
        for name in FORMATS[:-1]:
            export(folder / "corpus", to=name, out=folder / name)
        atari = {
            "obs": torch.zeros((40, 3, 64, 64)).byte(),
            "act": torch.arange(40) % 6,
            "rew": torch.zeros(40),
            "end": torch.zeros(40).byte(),
            "trunc": torch.zeros(40).byte(),
            "info": {"final_observation": torch.zeros(3, 64, 64)},
        }
        (folder / "diamond").mkdir()
        torch.save(atari, folder / "diamond" / "episode_0.pt")
        return folder

    return made_once(tmp_path_factory, "forms", make)


@pytest.fixture
def mixed(six_recordings: Path, tmp_path: Path) -> Path:
    """Recordings, a copy of one, files that are refused, and files that are none."""
    folder = tmp_path / "mixed"
    shutil.copytree(six_recordings, folder / "day 1 ü#%20")
    shutil.copytree(six_recordings, folder / "copies")
    (folder / "page.mp4").write_text("<!doctype html><h1>404</h1>")
    (folder / "empty.mp4").write_bytes(b"")
    write_clip(folder / "without-log.mp4", [0, 1, 2], size=(32, 32))
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.mp4").write_text("nobody's")
    return folder


def test_recordings_in_a_store_give_the_same_corpus_and_the_same_refusals(
    bucket: Bucket, mixed: Path, tmp_path: Path
) -> None:
    url = bucket.put(mixed, "in")

    here_too = ingest_here(mixed, tmp_path / "local")
    report = ingest_here(Path(url), tmp_path / "stored")

    assert (report.found, report.ingested, report.quarantined) == (15, 6, 3)
    assert replace(report, corpus="", seconds=0, cpu_hours=None) == replace(
        here_too, corpus="", seconds=0, cpu_hours=None
    )
    stored, local = digest(tmp_path / "stored"), digest(tmp_path / "local")
    assert as_of(url, stored) == as_of(str(mixed), local)
    assert all(row["source"].startswith(url) for row in stored["episodes"])
    assert {row["path"] for row in stored["quarantine"]} == {
        f"{url}/{name}" for name in ("page.mp4", "empty.mp4", "without-log.mp4")
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("stage", [False, True], ids=["in parts", "staged"])
def test_every_way_to_read_a_file_reads_a_store(
    bucket: Bucket, in_every_form: Path, tmp_path: Path, form: str, stage: bool
) -> None:
    folder = in_every_form / form
    url = bucket.put(folder, "in")

    for source, out in ((folder, "local"), (url, "stored")):
        ingest([source], out=tmp_path / out, tokenizer=None, workers=0, rate=None, stage=stage)

    assert Corpus.open(tmp_path / "stored").n_episodes > 0
    stored, local = digest(tmp_path / "stored"), digest(tmp_path / "local")
    assert as_of(url, stored) == as_of(str(folder), local)


def test_a_recording_is_found_by_the_name_of_its_video_alone(
    bucket: Bucket, six_recordings: Path, tmp_path: Path
) -> None:
    url = bucket.put(six_recordings, "in")

    report = ingest(
        [f"{url}/play1.mp4", six_recordings / "play2.mp4"], out=tmp_path / "c", tokenizer=None
    )

    assert (report.found, report.ingested) == (2, 2)
    assert {Path(source).name for source in Corpus.open(tmp_path / "c").episodes["source"]} == {
        "play1.mp4",
        "play2.mp4",
    }


def test_what_an_earlier_run_knows_is_not_read_again(
    faulty: FaultProxy, bucket: Bucket, six_recordings: Path, tmp_path: Path
) -> None:
    url = bucket.put(six_recordings, "in")
    ingest_here(Path(url), tmp_path / "c")
    faulty.seen.clear()

    again = ingest_here(Path(url), tmp_path / "c")

    assert (again.already_there, again.known, again.hashed) == (6, 6, 0)
    assert [path for _, path in faulty.seen if "list-type" not in path] == []


def test_an_object_that_was_written_anew_is_another_recording(
    bucket: Bucket, six_recordings: Path, tmp_path: Path
) -> None:
    url = bucket.put(six_recordings, "in")
    ingest_here(Path(url), tmp_path / "c")
    # The same size: the ETag alone tells.
    log = (six_recordings / "play0.csv").read_bytes()
    obstore.put(bucket.raw, "in/play0.csv", log[:-2] + bytes([log[-2] ^ 1]) + log[-1:])

    again = ingest_here(Path(url), tmp_path / "c")

    assert (again.ingested, again.already_there) == (1, 5)


def test_a_run_through_a_bad_line_ends_as_one_through_a_good_one(
    faulty: FaultProxy, bucket: Bucket, six_recordings: Path, tmp_path: Path
) -> None:
    url = bucket.put(six_recordings, "in")
    ingest_here(six_recordings, tmp_path / "local")
    faulty.share, faulty.kinds = 0.15, ("500", "503", "refused", "cut", "slow")

    ingest_here(Path(url), tmp_path / "stored")

    assert faulty.injected > 3
    stored, local = digest(tmp_path / "stored"), digest(tmp_path / "local")
    assert as_of(url, stored) == as_of(str(six_recordings), local)


@pytest.mark.parametrize("kind", ["refused", "403", "expired"])
def test_a_store_that_fails_ends_the_run_and_refuses_no_recording(
    faulty: FaultProxy,
    bucket: Bucket,
    six_recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    url = bucket.put(six_recordings, "in")
    monkeypatch.setenv("WHAM_DATA_STORE_TIMEOUT", "1")
    for name in ("play0.mp4", "play1.mp4"):
        big = (six_recordings / name).read_bytes()
        assert len(big) < 1 << 18  # else it would be read in parts
    faulty.faults = [Fault(kind, times=1e9, method="GET", part="play4", skip=2)]

    with pytest.raises(WhamDataError, match=r"play4.*(the store failed|access denied)"):
        ingest_here(Path(url), tmp_path / "c")

    faulty.faults = []
    report = ingest_here(Path(url), tmp_path / "c")
    assert report.quarantined == 0
    assert Corpus.open(tmp_path / "c").n_episodes == 6


def test_a_video_that_is_replaced_while_it_is_read_is_refused(
    bucket: Bucket, six_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged, "KEPT", 1)
    monkeypatch.setattr(ranged, "AHEAD", 0)
    folder = big_recording(six_recordings / "play0", tmp_path / "big")
    url = bucket.put(folder, "in")
    (found,) = discover([url]).recordings

    opened = open_recording(found)
    video = (folder / "noise.mp4").read_bytes()
    obstore.put(bucket.raw, "in/noise.mp4", video[:-1] + b"\1")

    with pytest.raises(RefusedInput, match=r"noise\.mp4 was written or removed in the store"):
        list(frames_of(opened))


def test_of_a_large_file_only_what_is_read_is_got_and_nothing_lies_on_the_disk(
    bucket: Bucket,
) -> None:
    content = np.random.default_rng(0).bytes(9_000_001)
    obstore.put(bucket.raw, "in/big.bin", content)
    path = store_path(f"{bucket.location}/in/big.bin")
    assert path is not None

    with LaidOut([path]):
        place = here(path)
        assert place.stat().st_size == len(content)
        with open_regular(place) as file:
            for start in (8_999_990, 0, 3_000_000, 1_048_570, 4):
                file.seek(start)
                assert file.read(700_000) == content[start : start + 700_000]
        assert place.stat().st_blocks == 0
        with open_regular(place) as file:
            file.fileno()  # somebody who needs a file of the operating system
            assert place.read_bytes() == content


def test_of_very_many_files_only_the_first_bytes_are_got_to_recognise_them(
    bucket: Bucket, six_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_hand, "MANY", 3)
    url = bucket.put(six_recordings, "in")
    stored = discover([url])

    assert [Path(each.path).name for each in stored.recordings] == [
        f"play{number}.mp4" for number in range(6)
    ]
    ingest_here(Path(url), tmp_path / "stored")
    ingest_here(six_recordings, tmp_path / "local")
    assert digest(tmp_path / "stored")["shards"] == digest(tmp_path / "local")["shards"]


def test_files_are_found_page_by_page(bucket: Bucket) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [f"many/{number:04}.txt" for number in range(1005)]
        list(pool.map(lambda name: obstore.put(bucket.raw, name, b"x"), names))
    for number in range(15):
        obstore.put(bucket.raw, f"deep/{number:02}/a/b.txt", b"x")
    many, deep = (store_path(f"{bucket.location}/{name}") for name in ("many", "deep"))
    assert many is not None
    assert deep is not None

    assert len(listed(many).files) == 1005
    assert [told(path).rpartition("deep/")[2] for path, _ in walk(deep)] == [
        f"{number:02}/a/b.txt" for number in range(15)
    ]


def test_a_file_and_a_folder_of_one_name_are_told_apart(
    bucket: Bucket, six_recordings: Path
) -> None:
    url = bucket.put(six_recordings, "in/play.mp4")
    obstore.put(bucket.raw, "in/play.mp4", b"a file")
    obstore.put(bucket.raw, "in/marked", b"")
    obstore.put(bucket.raw, "in/marked/notes.txt", b"mine")

    found = discover([f"{bucket.location}/in"])

    assert len(found.recordings) == 6
    ((path, why),) = found.refused
    assert told(path) == url
    assert "a folder of the same name" in why.message


def test_a_search_that_was_given_up_hides_nothing_from_the_next_one(
    bucket: Bucket, six_recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nitrogen, "MOST_FOLDERS", 2)  # else this reader lists them all once
    bucket.put(six_recordings, "in/0")
    for number in range(1, 9):
        obstore.put(bucket.raw, f"in/{number}/notes.txt", b"mine")
    url = bucket.put(six_recordings, "in/9")

    given_up = SourceSearch([f"{bucket.location}/in"]).found()
    next(given_up)
    time.sleep(0.5)  # the last folder is listed by now
    bucket.put(six_recordings, "in/9/later")
    obstore.delete(bucket.raw, "in/9/play0.mp4")

    assert len(discover([url]).recordings) == 5 + 6


def test_processes_that_begin_at_once_do_not_take_one_another_for_dead(bucket: Bucket) -> None:
    obstore.put(bucket.raw, "in/a.txt", b"x")
    script = (
        "import sys, time; from pathlib import Path;"
        "from wham_data.corpus.storage.sources.at_hand import LaidOut, here;"
        "path = Path(sys.argv[1]); files = LaidOut([path]); time.sleep(1.5);"
        "assert here(path).read_bytes() == b'x'"
    )
    path = store_path(f"{bucket.location}/in/a.txt")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    begun = [subprocess.Popen([sys.executable, "-c", script, str(path)], env=env) for _ in range(4)]

    assert [each.wait() for each in begun] == [0, 0, 0, 0]
    assert list((Path(os.environ["WHAM_DATA_CACHE_DIR"]) / "at-hand").iterdir()) == []


def test_a_name_without_anything_is_told(bucket: Bucket) -> None:
    obstore.put(bucket.raw, "in/a.txt", b"x")

    with pytest.raises(UsageError, match="nothing: no such object or folder"):
        discover([f"{bucket.location}/nothing"])
    with pytest.raises(UsageError, match="expected s3://bucket/folder"):
        discover(["s3://bucket//folder"])


def test_what_was_refused_is_tried_again_from_the_store(
    bucket: Bucket, six_recordings: Path, tmp_path: Path
) -> None:
    url = bucket.put(six_recordings, "in")
    log = (six_recordings / "play3.csv").read_bytes()
    obstore.put(bucket.raw, "in/play3.csv", log.replace(b",", b";,", 3))
    assert ingest_here(Path(url), tmp_path / "c").quarantined == 1
    obstore.put(bucket.raw, "in/play3.csv", log)

    report = retry(str(tmp_path / "c"), LocalRunner())

    assert (report.ingested, report.quarantined) == (1, 0)


def test_a_recording_in_a_store_is_explained(bucket: Bucket, six_recordings: Path) -> None:
    url = bucket.put(six_recordings, "in")

    (there,) = explain([f"{url}/play0.mp4"], PLAIN, IngestChoices())
    (local,) = explain([six_recordings / "play0.mp4"], PLAIN, IngestChoices())

    assert there.sections == local.sections
    assert (there.source, there.metadata_path) == (f"{url}/play0.mp4", None)


def test_contexts_of_a_dream_come_from_a_store(bucket: Bucket, in_every_form: Path) -> None:
    url = bucket.put(in_every_form / "wham-npz", "in")

    stored = open_dream_source([url])
    local = open_dream_source([in_every_form / "wham-npz"])

    assert [each.name for each in stored.episodes] == [each.name for each in local.episodes]
    assert all(each.source.startswith(url) for each in stored.episodes)
    assert [e.identity() for e in stored.episodes] == [e.identity() for e in local.episodes]


LOOKS_ONLY_WHERE_IT_MAY = """
import sys
from wham_data.corpus.storage.sources import at_hand
from wham_data.files import elsewhere
from wham_data.pipelines.readers import discover, open_recording

def held_to_it(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, bytes)):
        return
    remote = elsewhere._remotes.get(arguments[0])
    writes = isinstance(arguments[1], str) and arguments[1][0] in "wx"
    if remote is not None and not remote.is_whole and not writes:
        raise SystemExit(f"opened behind the back of files/elsewhere.py: {arguments[0]}")

at_hand.SMALL = at_hand.HEAD = 64
sys.addaudithook(held_to_it)
for recording in discover(sys.argv[1:]).recordings:
    opened = open_recording(recording)
    n = len(opened.frame_times_ns)
    for _ in opened.frames(__import__("numpy").arange(n), (32, 18), fit="stretch", batch=8, threads=1):
        pass
    print(recording.format)
"""


def test_no_reader_opens_a_placeholder_as_if_it_were_the_file(
    bucket: Bucket, in_every_form: Path
) -> None:
    urls = [bucket.put(in_every_form / name, name) for name in (*FORMATS, "played")]

    run = subprocess.run(
        [sys.executable, "-c", LOOKS_ONLY_WHERE_IT_MAY, *urls],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    assert len(set(run.stdout.split())) == len(FORMATS) + 1


def test_the_next_process_removes_what_a_killed_one_had_laid_out(
    bucket: Bucket,
) -> None:
    obstore.put(bucket.raw, "in/a.txt", b"x")
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from wham_data.corpus.storage.sources.at_hand import LaidOut;"
        "files = LaidOut([Path(sys.argv[1])]);"
        "os.kill(os.getpid(), signal.SIGKILL if sys.argv[2] == 'kill' else 0)"
    )
    cache = Path(os.environ["WHAM_DATA_CACHE_DIR"]) / "at-hand"
    path = store_path(f"{bucket.location}/in/a.txt")

    def run(how: str) -> int:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-c", script, str(path), how], env=env).returncode

    assert run("kill") == -9
    assert len(list(cache.iterdir())) == 1
    assert run("end") == 0
    assert list(cache.iterdir()) == []


def test_the_command_reads_a_store(
    bucket: Bucket, six_recordings: Path, tmp_path: Path, cli: Run
) -> None:
    url = bucket.put(six_recordings, "in")

    there = {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "WHAM_"))
    }
    options = ("--out", tmp_path / "c", "--tokenizer", "none", "--workers", "0", "--stage")

    ended = cli("ingest", url, *options, **there)

    assert ended.returncode == 0, ended.stderr
    assert "ingested 6" in ended.stdout


def big_recording(like: Path, folder: Path) -> Path:
    """A recording whose video has several megabytes, so that it is read in parts."""
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (60, 240, 320, 3), np.uint8)
    write_video(folder / "noise.mp4", noise, Fraction(30), crf=10, preset="ultrafast")
    for ending in (".csv", ".toml"):
        shutil.copy(like.with_suffix(ending), folder / f"noise{ending}")
    return folder


def frames_of(opened: Any) -> Iterator[Any]:
    picks = np.arange(len(opened.frame_times_ns))
    yield from opened.frames(picks, (32, 18), fit="stretch", batch=8, threads=1)
