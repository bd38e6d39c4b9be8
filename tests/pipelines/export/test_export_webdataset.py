"""Export to WebDataset's tars: read again they are equal, and the format's own library takes them."""

from __future__ import annotations

import io
import json
import random
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.exports import SIZE, picture_corpus, picture_of
from makers.readings import frames_of, recordings_in
from makers.recordings import ingest_here
from makers.video_clips import write_clip

import wham_data
from wham_data.corpus.corpus import Corpus
from wham_data.files.tar_file import tar_places
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.webdataset import SHARD
from wham_data.pipelines.video import decode_image
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

EPISODES = {
    "e0": {"split": "train", "player": "ann", "match": "m", "license": "MIT", "game": "toy"},
    "e1": {"split": "val", "map": "a map"},
    "e2": {"split": "train"},
}
RICH = {"state_size": 3, "reward": True, "text": True}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder with a corpus of three episodes, of each of which one action is not known."""
    corpus = picture_corpus(tmp_path / "corpus", "vpt", EPISODES, unknown=(2,), **RICH)
    report = wham_data.export(corpus, to="webdataset", out=tmp_path / "out")
    assert (report.written, report.steps, report.left_out_steps) == (3, 18, 0)
    return tmp_path


def test_a_corpus_read_again_is_the_same_but_for_its_names(exported: Path) -> None:
    settings = IngestSettings(size=SIZE, tokenizer=None, frames="png")

    ingest_here(exported / "out", exported / "again", settings)

    before, after = (Corpus.open(exported / name) for name in ("corpus", "again"))
    assert after.info.action_space == before.info.action_space
    names = {row["episode"]: row["source"] for row in after.episodes.iter_rows(named=True)}
    columns = ["step", "time_ns", "actions", "state", "reward", "text"]
    for episode, source in names.items():
        mine, theirs = (
            corpus.scan().collect().filter(episode=name)
            for corpus, name in ((after, episode), (before, source.partition("#")[2]))
        )
        assert mine.select(columns).equals(theirs.select(columns))
        for ours, others in zip(mine["frame"], theirs["frame"], strict=True):
            np.testing.assert_array_equal(decode_image(ours), decode_image(others))


def test_who_played_what_under_which_licence_comes_back(exported: Path) -> None:
    found = {each.part: each.provenance for each in discover([exported / "out"]).recordings}

    assert (found["e0"].player, found["e0"].match, found["e0"].license) == ("ann", "m", "MIT")
    assert found["e1"].map == "a map"


def test_splits_are_folders(exported: Path) -> None:
    tars = sorted(str(path.relative_to(exported)) for path in exported.rglob("*.tar"))

    assert tars == ["out/train/train-00000.tar", "out/val/val-00000.tar"]


def test_the_first_member_is_one_that_webdataset_passes_over(exported: Path) -> None:
    with tarfile.open(exported / "out/val/val-00000.tar") as tar:
        names = tar.getnames()

    assert names[:3] == [SHARD, "e1/000000.png", "e1/000000.actions.npy"]
    assert names[-1] == "e1/000005.step.json"


def test_motion_of_a_step_may_exceed_that_of_one_sample(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "microworld9", 1)
    wham_data.export(corpus, to="webdataset", out=tmp_path / "out")
    path = tmp_path / "out/train/train-00000.tar"
    space = corpus.info.action_space
    deltas = space.of_kind("delta")
    top = space.ranges()[deltas, 1].astype(np.float32)

    values = np.zeros(space.size, np.float32)
    values[deltas] = 5 * top
    data = path.read_bytes()
    start, stop = tar_places(path)["e0/000000.actions.npy"]
    row = data[start : stop - values.nbytes] + values.tobytes()
    path.write_bytes(data[:start] + row + data[stop:])
    (opened,) = recordings_in(tmp_path / "out", "webdataset").values()

    assert opened.actions is not None
    np.testing.assert_array_equal(opened.actions.values[0, deltas], 5 * top)


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30000, 1001), Fraction(35, 4)])
def test_no_step_is_lost_at_rates_that_are_not_whole_nanoseconds(
    tmp_path: Path, rate: Fraction
) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes=1, rate=rate)
    wham_data.export(corpus, to="webdataset", out=tmp_path / "out")

    settings = IngestSettings(size=SIZE, tokenizer=None, rate=rate)
    report = ingest_here(tmp_path / "out", tmp_path / "again", settings)

    assert report.steps == 6
    before, after = (Corpus.open(tmp_path / name).scan().collect() for name in ("corpus", "again"))
    assert after["time_ns"].to_list() == before["time_ns"].to_list()


def test_steps_as_the_source_had_them_need_not_be_even(tmp_path: Path) -> None:
    times = [0, 40, 80, 240, 250, 300]
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in/a.mp4", times, size=SIZE)
    names = load_space("wham16").names
    rows = [",".join(map(str, [time, *[k % 2] * 12, *[k / 8] * 4])) for k, time in enumerate(times)]
    (tmp_path / "in/a.csv").write_text("\n".join([",".join(["time_ms", *names]), *rows]) + "\n")
    settings = IngestSettings(size=SIZE, tokenizer=None, frames="png", rate=None)
    ingest_here(tmp_path / "in", tmp_path / "corpus", settings)
    wham_data.export(tmp_path / "corpus", to="webdataset", out=tmp_path / "out")

    ingest_here(tmp_path / "out", tmp_path / "again", settings)

    before, after = (Corpus.open(tmp_path / name).scan().collect() for name in ("corpus", "again"))
    assert np.ptp(np.diff(before["time_ns"])) > 0
    assert after.select("time_ns", "actions").equals(before.select("time_ns", "actions"))


def test_a_corpus_without_pictures_is_actions_alone(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "wham16", 1, frames="none")
    wham_data.export(corpus, to="webdataset", out=tmp_path / "out")

    (opened,) = recordings_in(tmp_path / "out").values()

    assert opened.pictureless
    assert opened.actions is not None
    assert opened.actions.values.shape == (6, 16)


def test_the_formats_own_library_reads_samples_in_order(exported: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    tar = str(exported / "out/train/train-00000.tar")

    samples = list(webdataset.WebDataset(tar, shardshuffle=False, empty_check=False).decode("rgb8"))

    assert [sample["__key__"] for sample in samples] == [
        f"{name}/{step:06d}" for name in ("e0", "e2") for step in range(6)
    ]
    steps = Corpus.open(exported / "corpus").scan().collect().filter(episode="e0")
    for k, sample in enumerate(samples[:6]):
        np.testing.assert_array_equal(sample["png"], picture_of(0, k))
        assert sample["step.json"] == {
            "action_known": k != 2,
            **{name: steps[name][k] for name in ("time_ns", "reward", "text")},
        }
        if k != 2:
            assert sample["actions.npy"].tolist() == steps["actions"][k].to_list()


def changed(path: Path, name: str, data: bytes) -> None:
    """Put other bytes into a member of a tar."""
    with tarfile.open(path) as tar:
        members = [(each, tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in members:
            content = data if member.name == name else content
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


TOLD = {"time_ns": 0, "action_known": True, "reward": 0.0, "text": "x"}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("e1/000001.step.json", b"{}", Reason.LOG_TYPE),
        ("e1/000001.step.json", b"{", Reason.LOG_SYNTAX),
        ("e1/000001.step.json", json.dumps(TOLD | {"time_ns": 1 << 70}).encode(), Reason.LOG_TYPE),
        ("e1/000001.step.json", json.dumps(TOLD).encode(), Reason.LOG_CLOCK),
        ("e1/000001.actions.npy", npy(np.zeros(3, np.float32)), Reason.LOG_TYPE),
        ("e1/000001.actions.npy", npy(np.array([{}])), Reason.PICKLED_OBJECTS),
        ("e1/000001.actions.npy", b"PK\3\4", Reason.ARCHIVE_CORRUPT),
        ("e1/000001.state.npy", npy(np.zeros(3)), Reason.LOG_TYPE),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(
    exported: Path, name: str, data: bytes, reason: Reason
) -> None:
    path = exported / "out/val/val-00000.tar"
    changed(path, name, data)

    with pytest.raises(RefusedInput) as refused:
        recordings_in(path.parent)

    assert refused.value.reason is reason


def test_a_description_that_makes_no_sense_is_refused(exported: Path) -> None:
    path = exported / "out/val/val-00000.tar"
    with tarfile.open(path) as tar:
        said = json.load(tar.extractfile(SHARD))  # type: ignore[arg-type]
    for change in (
        {"version": 2},
        {"rate": "1/0"},
        {"state_size": -1},
        {"episodes": [{"episode": "e1", "steps": 0}]},
        {"episodes": {}},
        {"action_space": {}},
    ):
        changed(path, SHARD, json.dumps(said | change).encode())

        ((_, why),) = discover([path.parent]).refused

        assert why.reason is Reason.METADATA


def test_other_tars_are_left_to_be_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(__file__, "e0/000000.json")

    ((_, why),) = discover([tmp_path]).refused

    assert (why.reason, why.message) == (
        Reason.FORMAT_NOT_ALLOWED,
        "an archive: unpack it first",
    )


def test_a_damaged_tar_is_refused_and_nothing_else(exported: Path) -> None:
    path = exported / "out/val/val-00000.tar"
    content = path.read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(content[: rng.randrange(1024, len(content))])
        for _ in range(10):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            for opened in recordings_in(path.parent, "webdataset").values():
                frames_of(opened, SIZE)
        except (RefusedInput, AssertionError):
            continue


def test_links_in_a_tar_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        link = tarfile.TarInfo("e0/000000.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)

    with pytest.raises(RefusedInput) as refused:
        tar_places(tmp_path / "a.tar")

    assert refused.value.reason is Reason.ARCHIVE_UNSAFE
