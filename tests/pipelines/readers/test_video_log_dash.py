"""Recordings of game launchers: a DASH playlist, a first piece and chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.readings import the_recording
from makers.video_clips import read_stamp, write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.film.dash import read_playlist
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

NAMES = load_space("xinput16").names
SIZE = (192, 112)
FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
TEMPLATE = (
    'timescale="1000" duration="500" startNumber="1" initialization="init-stream$RepresentationID$.m4s" '
    'media="chunk-stream$RepresentationID$-$Number%05d$.m4s"'
)
TIMELINE = (
    'timescale="1000" initialization="first.m4s" media="$Time$.m4s"><SegmentTimeline>'
    '<S t="0" d="500" r="2"/><S d="500"/></SegmentTimeline>'
)


def playlist(template: str = TEMPLATE, *, before: str = "", length: str = "PT2.0S") -> str:
    kind = "" if template.endswith(">") else "/"
    inner = f"<SegmentTemplate {template}{kind}" + ("</SegmentTemplate>" if not kind else ">")
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{before}<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        f'mediaPresentationDuration="{length}"><Period>'
        '<AdaptationSet contentType="audio"><Representation id="1" bandwidth="99"/></AdaptationSet>'
        '<AdaptationSet contentType="video"><Representation id="0" width="192" height="112">'
        f"{inner}</Representation></AdaptationSet></Period></MPD>"
    )


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes of an mp4: type, and all its bytes."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at : at + size]))
        at += size
    return found


def folder(path: Path, text: str, first: str, name: str, numbers: list[int]) -> Path:
    """Two seconds of 40 frames in four chunks, and a log."""
    options = {"g": "10", "bf": "2", "sc_threshold": "0"}
    whole = write_clip(path / "whole.mp4", range(0, 2000, 50), options=options, muxer=FRAGMENTS)
    parts = boxes(whole.read_bytes())
    whole.unlink()
    (path / first).write_bytes(b"".join(data for kind, data in parts if kind in (b"ftyp", b"moov")))
    starts = [k for k, (kind, _) in enumerate(parts) if kind == b"moof"]
    for number, start in zip(numbers, starts, strict=True):
        (path / name.format(number)).write_bytes(parts[start][1] + parts[start + 1][1])
    (path / "session.mpd").write_text(text)
    rows = "".join(f"{k / 10}{',0' * len(NAMES)}\n" for k in range(21))
    (path / "session.csv").write_text(f"time_s,{','.join(NAMES)}\n{rows}")
    return path


def numbered(path: Path, text: str | None = None) -> Path:
    return folder(
        path, text or playlist(), "init-stream0.m4s", "chunk-stream0-{:05}.m4s", [1, 2, 3, 4]
    )


def refusal(path: Path) -> RefusedInput:
    (recording,) = discover([path]).recordings
    with pytest.raises(RefusedInput) as refused:
        open_recording(recording)
    return refused.value


@pytest.mark.parametrize(
    ("text", "first", "name", "numbers"),
    [
        (playlist(), "init-stream0.m4s", "chunk-stream0-{:05}.m4s", [1, 2, 3, 4]),
        (playlist(TIMELINE), "first.m4s", "{}.m4s", [0, 500, 1000, 1500]),
        (
            playlist('startNumber="8" initialization="i.mp4" media="seg $Number$ v.m4s"'),
            "i.mp4",
            "seg {} v.m4s",
            [8, 9, 10, 11],
        ),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_dash_folder_is_read_as_one_recording(
    tmp_path: Path, text: str, first: str, name: str, numbers: list[int], threads: int
) -> None:
    folder(tmp_path, text, first, name, numbers)
    for sound in ("init-stream1.m4s", "chunk-stream1-00001.m4s"):
        (tmp_path / sound).write_bytes(bytes(64))

    opened = the_recording(tmp_path)

    assert opened.frame_times_ns.tolist() == [k * 50_000_000 for k in range(40)]
    batches = opened.frames(np.arange(40), SIZE, fit="stretch", batch=8, threads=threads)
    assert [read_stamp(f) for batch in batches for f in batch] == list(range(40))
    assert "DASH recording read from 5 pieces" in opened.notes


@pytest.mark.parametrize(
    ("gone", "word"),
    [
        ("chunk-stream0-00003.m4s", "1 of 4 chunks are missing: chunk-stream0-00003.m4s"),
        ("chunk-stream0-00004.m4s", "chunk-stream0-00004.m4s is missing"),
        ("init-stream0.m4s", "init-stream0.m4s is missing"),
    ],
)
def test_a_missing_piece_is_named(tmp_path: Path, gone: str, word: str) -> None:
    numbered(tmp_path)
    (tmp_path / gone).unlink()

    why = refusal(tmp_path)

    assert why.reason is Reason.TRUNCATED
    assert word in why.message


def test_chunks_that_a_launcher_threw_away_at_the_start_only_shorten_it(tmp_path: Path) -> None:
    numbered(tmp_path)
    (tmp_path / "chunk-stream0-00001.m4s").unlink()

    opened = the_recording(tmp_path)

    assert opened.frame_times_ns[0] == 500_000_000, "the log's clock is that of the whole"
    assert any("begins with chunk-stream0-00002.m4s" in note for note in opened.notes)


def test_the_playlist_alone_brings_its_pieces_along(tmp_path: Path) -> None:
    opened = the_recording(numbered(tmp_path) / "session.mpd")

    assert len(opened.frame_times_ns) == 40


def test_the_playlist_says_which_time_stamp_is_zero(tmp_path: Path) -> None:
    later = playlist(TEMPLATE + ' presentationTimeOffset="300"', length="PT1.7S")

    times = the_recording(numbered(tmp_path, later)).frame_times_ns

    assert times[[0, -1]].tolist() == [-300_000_000, 1_650_000_000]


BOMB = '<!DOCTYPE MPD [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
HOSTILE = {
    "entities": (playlist(before=BOMB), Reason.FORMAT_NOT_ALLOWED),
    "an outside entity": (
        playlist(before='<!DOCTYPE MPD [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
        Reason.FORMAT_NOT_ALLOWED,
    ),
    "depth": ("<MPD>" + "<a>" * 100_000, Reason.FORMAT_NOT_ALLOWED),
    "no XML": ("{}", Reason.FORMAT_NOT_ALLOWED),
    "two periods": (playlist().replace("<Period>", "<Period/><Period>"), Reason.FORMAT_NOT_ALLOWED),
    "no video": (playlist().replace('"video"', '"text"'), Reason.FORMAT_NOT_ALLOWED),
    "a place in the net": (
        playlist().replace("<Period>", "<BaseURL>http://127.0.0.1:1/</BaseURL><Period>"),
        Reason.UNSAFE_PATH,
    ),
    **{
        f"a path {inside}": (
            playlist(f'initialization="{inside}" media="{inside}$Number$"'),
            Reason.UNSAFE_PATH,
        )
        for inside in ("../x", "/etc/x", "http://127.0.0.1:1/x", "a/x", "a\\x", "..", ".hidden")
    },
    "an id that climbs": (playlist().replace('id="0"', 'id="/../../x"'), Reason.UNSAFE_PATH),
    "no number": (playlist('initialization="i" media="c"'), Reason.FORMAT_NOT_ALLOWED),
    "a number that is none": (
        playlist().replace('startNumber="1"', 'startNumber="one"'),
        Reason.FORMAT_NOT_ALLOWED,
    ),
    "chunks without end": (
        playlist(TIMELINE.replace('r="2"', 'r="999999999"')),
        Reason.FORMAT_NOT_ALLOWED,
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_playlist_from_a_stranger_leads_nowhere(tmp_path: Path, kind: str) -> None:
    text, reason = HOSTILE[kind]
    (tmp_path / "session.mpd").write_text(text)
    (tmp_path / "session.csv").write_text("time_s\n0\n")

    with pytest.raises(RefusedInput) as refused:
        read_playlist(tmp_path / "session.mpd")

    assert refused.value.reason is reason
    assert refusal(tmp_path).reason is reason


def test_a_dash_folder_without_a_log_is_refused_once(tmp_path: Path) -> None:
    numbered(tmp_path)
    (tmp_path / "session.csv").unlink()

    ((path, why),) = discover([tmp_path]).refused

    assert path.name == "session.mpd"
    assert why.reason is Reason.LOG_MISSING


@pytest.mark.parametrize("name", ["init-stream0.m4s", "chunk-stream0-00001.m4s", "CHUNK-1-2.M4S"])
def test_a_piece_without_a_playlist_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypiso5" + bytes(64))

    ((_, why),) = discover([tmp_path]).refused

    assert "join its pieces" in why.message


def test_two_dash_folders_are_two_recordings(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        numbered(tmp_path / name)

    assert [len(r.files) for r in discover([tmp_path]).recordings] == [7, 7]
