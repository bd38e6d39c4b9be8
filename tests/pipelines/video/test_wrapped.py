"""Coded pictures that lie in another file: read as a video, without writing one."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.mcap_files import coded, moving

from wham_data.pipelines.video import DecodeAudit, VideoIndex, decode_frames, index_video
from wham_data.pipelines.video.h264_gaps import FrameNumbers
from wham_data.pipelines.video.source import VideoLimits
from wham_data.pipelines.video.wrapped import WrappedStream
from wham_data.schemas.errors import Reason, RefusedInput

EVERY_NS = 50_000_001


def wrapped(
    packets: list[bytes], codec: str = "h264", keys: tuple[int, ...] = (0,)
) -> WrappedStream:
    numbers = np.arange(len(packets))
    sizes = np.array([len(packet) for packet in packets], np.int64)
    return WrappedStream(
        codec, numbers * EVERY_NS, sizes, np.isin(numbers, keys), lambda: packets.__getitem__
    )


def levels(index: VideoIndex, picks: list[int]) -> list[int]:
    batches = decode_frames(index, np.array(picks), (64, 48), fit="stretch", batch=3, threads=2)
    return [round(float(frame.mean())) for batch in batches for frame in batch]


@pytest.mark.parametrize(
    ("format", "codec"), [("h264", "h264"), ("h265", "hevc"), ("av1", "av1"), ("vp9", "vp9")]
)
def test_each_codec_gives_its_pictures_at_times_to_the_nanosecond(format: str, codec: str) -> None:
    stream = wrapped(coded(format, 25), codec, keys=(0, 10, 20))

    index = index_video(Path("recording.mcap"), None, stream)

    assert index.codec == codec
    assert index.times_ns.tolist() == [number * EVERY_NS for number in range(25)]
    assert levels(index, [3, 11, 24]) == pytest.approx([30, 110, 240], abs=2)


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(-1, 400)), max_size=6))
def test_any_part_of_the_file_is_as_in_the_whole(reads: list[tuple[int, int]]) -> None:
    stream = wrapped([b"one" * 50, b"", b"three", b"4" * 200], keys=(0, 2))
    whole = b"".join(iter(stream.open().read, b""))
    file = stream.open()

    for start, size in reads:
        file.seek(start)
        part = file.read(size)
        assert part == whole[start : start + len(part)]
        assert part or not size or start >= len(whole)
    assert file.seek(0, io.SEEK_END) == len(whole)


def test_any_player_reads_the_file() -> None:
    stream = wrapped(coded("h264", 5))

    with av.open(io.BytesIO(b"".join(iter(stream.open().read, b"")))) as container:
        shown = [frame.pts for frame in container.decode(video=0)]

    assert shown == [number * EVERY_NS for number in range(5)]


def test_a_source_that_changed_is_refused() -> None:
    packets = coded("h264", 5)
    stream = wrapped(packets)
    packets[3] += b"x"

    with pytest.raises(RefusedInput) as refused:
        index_video(Path("recording.mcap"), None, stream)

    assert refused.value.reason == Reason.CHANGED_WHILE_READ


def gaps(packets: list[bytes]) -> list[int]:
    numbers = FrameNumbers()
    return [place for place, packet in enumerate(packets) if numbers.missing_before(packet)]


@pytest.mark.parametrize("profile", ["baseline", "high", "high444"])
def test_a_whole_stream_has_no_gaps(profile: str) -> None:
    more = {"qp": "0"} if profile == "high444" else {"profile": profile, "preset": "fast"}
    assert gaps(coded("h264", 80, moving, every_key=40, **more)) == []


def test_a_picture_that_is_missing_leaves_a_gap_wherever_it_was() -> None:
    packets = coded("h264", 30, moving)

    for missing in (1, 5, 9, 10, 15, 28):
        left = packets[:missing] + packets[missing + 1 :]
        found = gaps(left)
        assert found == ([] if missing == 9 else [missing])  # a key frame follows the ninth


def test_pictures_after_a_gap_are_lost_up_to_the_next_key_frame() -> None:
    packets = coded("h264", 30, moving)
    del packets[15]
    limits = VideoLimits(min_decoded=0.5)
    stream = wrapped(packets, keys=(0, 10, 19))
    stream = WrappedStream(
        stream.codec, stream.times_ns, stream.sizes, stream.keys, stream.source, (15,)
    )

    index = index_video(Path("recording.mcap"), limits, stream)
    audit = DecodeAudit()
    list(
        decode_frames(
            index, np.arange(29), (64, 48), fit="stretch", batch=8, threads=1, audit=audit
        )
    )

    assert audit.lost == [15, 16, 17, 18]
