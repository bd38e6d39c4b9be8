"""Exports as OWAMcap: read back by our reader, and by the `mcap` package."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers.exports import SIZE, actions_of, picture_corpus
from makers.readings import frames_of, recordings_in
from makers.recordings import ingest_here
from makers.video_clips import read_stamp
from numpy.typing import NDArray

import wham_data
from wham_data.corpus import Corpus
from wham_data.files.mcap import read_messages
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers.kit.keys.names import code_of_key, key_of_code
from wham_data.pipelines.readers.owa.inputs import KEYS
from wham_data.pipelines.writers.owa.mcap_file import McapWriter
from wham_data.pipelines.writers.owa.messages import MOUSE, TOPICS, input_of, whole_motion
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import UsageError

DESKTOP, KEYBOARD_MOUSE = load_space("desktop"), load_space("keyboard_mouse")
STEP_NS = 50_000_000


def whole_numbers(actions: NDArray[np.float32], space: ActionSpace) -> NDArray[np.float64]:
    """Actions with motion in whole counts, as the files have it."""
    wanted = actions.astype(np.float64)
    for name in ("mouse_dx", "mouse_dy", "wheel", "wheel_x"):
        if name in space.names:
            unit = 120 if name.startswith("wheel") else 1
            wanted[:, space.index(name)] = whole_motion(actions, space, name) / unit
    return wanted


def ingested(source: Path, out: Path) -> dict[str, NDArray[np.float64]]:
    """The actions of each step of the recordings in a folder, at their own rate, by their names."""
    settings = IngestSettings(rate=None, size=SIZE, frames="png", tokenizer=None, max_gap_ns=10**12)
    ingest_here(source, out, settings)
    steps = Corpus.open(out).scan().collect()
    sources = dict(Corpus.open(out).episodes.select("episode", "source").rows())
    return {
        Path(sources[name]).stem: np.array(rows["actions"].to_list())
        for (name,), rows in steps.group_by(["episode"], maintain_order=True)
    }


@pytest.mark.parametrize("space", [DESKTOP, KEYBOARD_MOUSE], ids=lambda space: str(space.name))
def test_owamcap_is_read_back_with_its_frames_times_and_actions_equal(
    tmp_path: Path, space: ActionSpace
) -> None:
    episodes = {"a": {"n_steps": 40}, "b": {"split": "val"}}
    picture_corpus(tmp_path / "corpus", space, episodes, rate=Fraction(20))

    report = wham_data.export(tmp_path / "corpus", to="owamcap", out=tmp_path / "out")

    assert (report.written, report.converted_from, report.lost) == (2, None, ())
    found = recordings_in(tmp_path / "out", "owamcap")
    assert sorted(found) == ["train/a.mcap", "val/b.mcap"]
    for number, path in enumerate(sorted(found)):
        count = 40 - 34 * number
        stamps = [read_stamp(frame) for frame in frames_of(found[path], SIZE)]
        assert stamps == [100 * number + step for step in range(count)]
        assert found[path].frame_times_ns.tolist() == [step * STEP_NS for step in range(count)]
    back = ingested(tmp_path / "out", tmp_path / "again")
    columns = [DESKTOP.index(name) for name in space.names]
    others = [k for k in range(DESKTOP.size) if k not in columns]
    for number, name in enumerate("ab"):
        actions = actions_of(space, number, len(back[name]))
        assert np.allclose(back[name][:, columns], whole_numbers(actions, space), atol=1e-4)
        assert not back[name][:, others].any()


def test_steps_keep_the_times_that_they_had_in_the_recording(tmp_path: Path) -> None:
    rows = {"a": {"source_fps": 30.0}}
    picture_corpus(tmp_path / "corpus", DESKTOP, rows, rate="native", n_steps=30)
    corpus = Corpus.open(tmp_path / "corpus")
    times_ns = corpus.scan().collect()["time_ns"].to_list()

    wham_data.export(corpus, to="owamcap", out=tmp_path / "out")

    (opened,) = recordings_in(tmp_path / "out").values()
    assert opened.frame_times_ns.tolist() == times_ns


def events(*rows: dict[str, float]) -> list[tuple[str, float, dict[str, Any]]]:
    """Topic, milliseconds and content of what is written for steps of 50 ms."""
    actions = np.zeros((len(rows), DESKTOP.size), np.float32)
    for row, told in zip(actions, rows, strict=True):
        for name, value in told.items():
            row[DESKTOP.index(name)] = value
    edges_ns = np.arange(len(rows) + 1, dtype=np.int64) * STEP_NS
    return [
        (topic, time_ns / 1e6, {k: v for k, v in told.items() if v and k != "timestamp"})
        for messages in input_of(actions, DESKTOP, edges_ns)
        for topic, time_ns, told in messages
    ]


def test_what_acts_in_a_step_lies_between_its_frame_and_the_next() -> None:
    held, free = {"key_w": 1, "mouse_left": 1}, {"mouse_dx": -3, "mouse_dy": 2, "wheel": -1}

    assert events(held, held | free, free, {"key_left_shift": 1}) == [
        ("keyboard/state", 0, {}),
        ("keyboard", 0.001, {"event_type": "press", "vk": 0x57}),
        ("mouse/raw", 0.002, {"button_flags": 1}),
        ("mouse/raw", 50.001, {"last_x": -3, "last_y": 2}),
        ("mouse/raw", 50.002, {"button_flags": 0x400, "button_data": -120}),
        ("keyboard", 99.998, {"event_type": "release", "vk": 0x57}),
        ("mouse/raw", 99.999, {"button_flags": 2}),
        ("mouse/raw", 100.001, {"last_x": -3, "last_y": 2}),
        ("mouse/raw", 100.002, {"button_flags": 0x400, "button_data": -120}),
        ("keyboard", 150.001, {"event_type": "press", "vk": 0xA0}),
        ("keyboard/state", 200, {"buttons": [0xA0]}),
    ]


def test_parts_of_counts_are_kept_for_the_next_step() -> None:
    actions = np.zeros((4, DESKTOP.size), np.float32)
    actions[:, DESKTOP.index("mouse_dx")] = 0.4

    assert whole_motion(actions, DESKTOP, "mouse_dx").tolist() == [0, 1, 0, 1]


def test_every_key_has_a_code_of_its_own() -> None:
    assert all(key_of_code(code_of_key(name)) == name for name in KEYS)


def test_steps_closer_than_a_millisecond_are_refused(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", DESKTOP, 1, rate=Fraction(1000) + 1)

    report = wham_data.export(tmp_path / "corpus", to="owamcap", out=tmp_path / "out")

    assert "and the video has times in whole milliseconds" in report.failed[0].message


def test_a_pad_is_refused_with_the_way_out(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", "xinput", 1)

    with pytest.raises(UsageError, match=r"owamcap needs actions in desktop.*--mapping"):
        wham_data.export(tmp_path / "corpus", to="owamcap", out=tmp_path / "out")


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", DESKTOP, 1)
    for out in ("one", "two"):
        wham_data.export(tmp_path / "corpus", to="owamcap", out=tmp_path / out)

    one, two = (
        [path.read_bytes() for path in sorted((tmp_path / out / "train").iterdir())]
        for out in ("one", "two")
    )
    assert one == two


def test_the_mcap_package_reads_what_was_written_also_from_its_index(tmp_path: Path) -> None:
    reading = pytest.importorskip("mcap.reader")
    picture_corpus(tmp_path / "corpus", DESKTOP, 1, rate=Fraction(30), n_steps=20)
    wham_data.export(tmp_path / "corpus", to="owamcap", out=tmp_path / "out")
    path = tmp_path / "out/train/e0.mcap"

    with path.open("rb") as file:
        reader = reading.make_reader(file, validate_crcs=True)
        header, summary = reader.get_header(), reader.get_summary()
        whole = list(reader.iter_messages())
        some = list(reader.iter_messages(topics=["screen"], starting_at=300_000_000))
        in_order = list(reading.NonSeekingReader(path.open("rb")).iter_messages())

    assert (header.profile, header.library) == ("owa", "wham-data")
    assert summary.statistics.message_count == len(whole) == len(in_order)
    assert {c.topic: summary.schemas[c.schema_id].name for c in summary.channels.values()} == {
        "screen": "desktop/ScreenCaptured",
        "keyboard": "desktop/KeyboardEvent",
        "keyboard/state": "desktop/KeyboardState",
        "mouse/raw": "desktop/RawMouseEvent",
    }
    assert [message.log_time for _, _, message in some] == [
        -(-step * 10**9 // 30) for step in range(9, 20)
    ]
    ours = [(each.topic, each.log_time_ns, each.data) for each in read_messages(path)]
    assert [(c.topic, m.log_time, m.data) for _, c, m in whole] == ours
    screens = [json.loads(m.data) for _, c, m in whole if c.topic == "screen"]
    with av.open(str(tmp_path / "out/train/e0.mkv")) as video:
        shown_ms = [round(frame.time * 1000) for frame in video.decode(video=0)]
    assert [screen["media_ref"]["pts_ns"] // 10**6 for screen in screens] == shown_ms
    assert screens[0]["shape"] == [96, 64]


def test_a_long_file_has_several_chunks_and_each_is_found_by_time(tmp_path: Path) -> None:
    reading = pytest.importorskip("mcap.reader")
    path = tmp_path / "long.mcap"
    with McapWriter(path, "owa", TOPICS) as messages:
        for step in range(30_000):
            messages.add(MOUSE.name, step * 1000, {"last_x": step, "last_y": 0})

    with path.open("rb") as file:
        reader = reading.make_reader(file, validate_crcs=True)
        assert len(reader.get_summary().chunk_indexes) > 1
        found = [
            json.loads(m.data)["last_x"] for _, _, m in reader.iter_messages(starting_at=29_990_000)
        ]
    assert found == list(range(29_990, 30_000))
    assert len(list(read_messages(path))) == 30_000
