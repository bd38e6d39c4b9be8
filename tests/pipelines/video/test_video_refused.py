"""Files that are not a good video are refused with their reason, and never taken for whole."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from makers.video_clips import stamped, write_clip

from wham_data.pipelines.video import (
    DecodeAudit,
    VideoLimits,
    decode_frames,
    encode_png,
    index_video,
)
from wham_data.schemas.errors import Reason, RefusedInput

STEADY = [round(k * 1000 / 30) for k in range(90)]
FAST = {"preset": "veryfast", "crf": "20", "g": "30", "sc_threshold": "0"}
NO_B = {**FAST, "bf": "0"}


def decode_all(path: Path, limits: VideoLimits | None) -> None:
    index = index_video(path, limits)
    for _ in decode_frames(index, np.arange(len(index.times_ns)), audit=DecodeAudit()):
        pass


def refusal(path: Path, limits: VideoLimits | None = None) -> RefusedInput:
    """What indexing and decoding every frame of the file says against it."""
    with pytest.raises(RefusedInput) as caught:
        decode_all(path, limits)
    assert "\n" not in caught.value.message
    assert str(path) not in caught.value.message
    return caught.value


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- not a video -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", Reason.EMPTY_FILE, "empty file"),
        (b"\n <!DOCTYPE html><html>404", Reason.NOT_A_VIDEO, "looks like html"),
        (b"Just some words, no video at all.\n" * 30, Reason.NOT_A_VIDEO, "looks like text"),
        (encode_png(stamped(0)), Reason.NOT_A_VIDEO, "looks like a png"),
        (np.random.default_rng(0).bytes(9999), Reason.NOT_A_VIDEO, "not a video"),
        (b"\0\0\0\1\x67\x64\0\x1f" * 99, Reason.FORMAT_NOT_ALLOWED, "no timestamps"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", Reason.FORMAT_NOT_ALLOWED, "playlist"),
        (b"<?xml version='1.0'?>\n<MPD></MPD>", Reason.FORMAT_NOT_ALLOWED, "playlist"),
        (b"ffconcat version 1.0\nfile a.mp4\n", Reason.FORMAT_NOT_ALLOWED, "playlist"),
    ],
)
def test_what_is_no_video_is_named_by_its_content(
    tmp_path: Path, content: bytes, reason: Reason, words: str
) -> None:
    found = refusal(written(tmp_path / "clip.mp4", content))
    assert found.reason is reason
    assert words in found.message


def test_a_playlist_never_makes_us_connect(tmp_path: Path) -> None:
    called = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for name in ("a.mp4", "a.m3u8"):
            content = f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n".encode()
            assert refusal(written(tmp_path / name, content)).reason is Reason.FORMAT_NOT_ALLOWED
        with pytest.raises(TimeoutError):
            server.accept()
    assert not called.is_set()


def test_a_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "dir.mp4").mkdir()
    assert refusal(tmp_path / "dir.mp4").reason is Reason.UNREADABLE


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert refusal(path).reason is Reason.NO_VIDEO_STREAM


def test_an_unknown_codec_is_named_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY[:9], options=NO_B)
    written(path, path.read_bytes().replace(b"avc1", b"XQZ9"))
    found = refusal(path)
    assert found.reason in (Reason.UNSUPPORTED_CODEC, Reason.NO_FRAMES)
    assert "codec" in found.message


# --- cut off and damaged ---------------------------------------------------------------------------------


def test_an_mp4_without_its_index_is_truncated(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY, options=NO_B)
    data = path.read_bytes()
    found = refusal(written(path, data[: data.index(b"moov") - 4]))
    assert found.reason is Reason.TRUNCATED
    assert "moov" in found.message


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_tail_cut_off_is_noticed_though_nothing_raises(tmp_path: Path, ending: str) -> None:
    """The index stands in front (mp4, avi header) or there is only a duration (mkv)."""
    path = write_clip(
        tmp_path / f"a.{ending}",
        range(90),
        time_base=Fraction(1, 30),
        codec="mpeg4" if ending == "avi" else "libx264",
        options={} if ending == "avi" else NO_B,
        muxer={"movflags": "faststart"} if ending == "mp4" else {},
    )
    data = path.read_bytes()
    found = refusal(written(path, data[: len(data) * 6 // 10]))
    assert found.reason is Reason.TRUNCATED
    assert found.frames_expected == pytest.approx(90, abs=2)
    assert found.frames_decoded is not None
    assert 10 < found.frames_decoded < 80
    assert f"{found.frames_decoded} of {found.frames_expected} frames" in found.message


def test_a_cut_within_the_allowed_share_is_kept_with_its_loss_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY, options=NO_B, muxer={"movflags": "faststart"})
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    written(path, path.read_bytes()[: packets[80].pos])
    assert refusal(path).reason is Reason.TRUNCATED
    index = index_video(path, VideoLimits(min_decoded=0.8))
    assert (index.found_frames, index.promised_frames) == (80, 90)


def test_a_header_that_lies_about_its_length_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", STEADY, options=NO_B)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = np.array([3.0e11], ">f8").tobytes()
    found = refusal(written(path, bytes(data)))
    assert found.reason is Reason.TRUNCATED
    assert "duration" in found.message


def damaged(path: Path, *, at: float, length: int) -> Path:
    """The file with a zeroed stretch, which starts at a share of its length."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + length] = bytes(length)
    return written(path, bytes(data))


def test_a_zeroed_stretch_is_refused_with_the_frames_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY, options=FAST)
    found = refusal(damaged(path, at=0.5, length=4000))
    assert found.reason is Reason.CORRUPT
    assert found.frames_decoded is not None
    assert found.frames_decoded < 90


def test_lost_frames_are_black_and_listed_and_the_rest_is_right(tmp_path: Path) -> None:
    """The second of three groups of pictures is hit: what follows in it is lost, the third is whole."""
    path = write_clip(tmp_path / "a.mp4", STEADY, options=NO_B, muxer={"movflags": "faststart"})
    picks = np.arange(90)
    whole = np.concatenate(list(decode_frames(index_video(path), picks)))
    with av.open(str(path)) as container:
        hit = [p.pos for p in container.demux(video=0) if p.size][40]
    data = bytearray(path.read_bytes())
    data[hit + 5 : hit + 105] = bytes(100)
    written(path, bytes(data))
    index = index_video(path, VideoLimits(min_decoded=0.5))
    for threads in (1, 2):
        audit = DecodeAudit()
        frames = np.concatenate(list(decode_frames(index, picks, threads=threads, audit=audit)))
        assert audit.lost == list(range(40, 60))
        assert not frames[40:60].any()
        kept = np.r_[0:40, 60:90]
        assert np.array_equal(frames[kept], whole[kept])
        assert audit.pictures_decoded == 70
    with pytest.raises(RefusedInput):  # without an audit no loss goes unseen
        list(decode_frames(index, picks))
    with pytest.raises(RefusedInput):  # nor more than the default share with one
        list(decode_frames(index_video(path), picks, audit=DecodeAudit()))


def test_a_zeroed_stretch_of_a_matroska_file_does_not_vanish(tmp_path: Path) -> None:
    """The demuxer skips to the next cluster without a word, and the frames it skips over are gone."""
    path = write_clip(
        tmp_path / "a.mkv",
        STEADY,
        codec="libvpx-vp9",
        options={"deadline": "realtime", "cpu-used": "8", "g": "30", "b": "1M"},
        muxer={"cluster_time_limit": "300"},
    )
    assert refusal(damaged(path, at=0.4, length=4000)).reason in (Reason.TRUNCATED, Reason.CORRUPT)


def test_no_key_frame_is_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    source = write_clip(tmp_path / "whole.mp4", STEADY, options={**NO_B, "g": "900"})
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.size and number:
                packet.stream = stream
                out.mux(packet)
    found = refusal(path)
    assert found.reason is Reason.NO_FRAMES
    assert "no key frame" in found.message


def test_one_frame_is_too_short(tmp_path: Path) -> None:
    assert refusal(write_clip(tmp_path / "a.mkv", [0], options=NO_B)).reason is Reason.TOO_SHORT


def test_a_file_that_changes_after_indexing_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY, options=NO_B)
    index = index_video(path)
    write_clip(path, STEADY, options={**NO_B, "crf": "35"})
    with pytest.raises(RefusedInput) as caught:
        list(decode_frames(index, np.arange(90)))
    assert caught.value.reason is Reason.CHANGED_WHILE_READ


# --- too large, too long ---------------------------------------------------------------------------------


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = 64, 48, "yuvj420p"
    context.time_base = Fraction(1, 30)
    frame = av.VideoFrame.from_ndarray(stamped(0, 64, 48), format="rgb24").reformat(
        format="yuvj420p"
    )
    data = bytearray(bytes(context.encode(frame)[0]))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_a_picture_larger_than_allowed_is_never_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet(jpeg_claiming(32767, 32767))
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 30), stream, True
            out.mux(packet)
    found = refusal(path)
    assert found.reason is Reason.TOO_MANY_PIXELS
    assert "32767x32767" in found.message


def test_a_gap_of_days_is_refused_not_filled(tmp_path: Path) -> None:
    month = 30 * 86_400_000
    path = write_clip(tmp_path / "a.mkv", [0, 33, 67, 100, month, month + 33], options=NO_B)
    found = refusal(path)
    assert found.reason is Reason.GAP_TOO_LONG
    assert found.message.startswith("gap of 30 d at 0.1 s")


# --- time stamps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ([0] * 30, Reason.TIMESTAMPS_DUPLICATE),
        ([*range(0, 600, 30), *range(200, 600, 30)], Reason.TIMESTAMPS_BACKWARD),
        ([t - 400 * (k % 10 == 9) for k, t in enumerate(STEADY)], Reason.TIMESTAMPS_BACKWARD),
    ],
    ids=["all alike", "starting over", "jumping back"],
)
def test_time_stamps_that_make_no_sense_are_refused(
    tmp_path: Path, times: list[int], reason: Reason
) -> None:
    path = write_clip(tmp_path / "a.mkv", range(len(times)), codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, time in zip(places, times, strict=True):
        data[place + 1 : place + 3] = time.to_bytes(2, "big", signed=True)
    assert refusal(written(path, bytes(data))).reason is reason


def test_pictures_shown_in_another_order_than_their_time_stamps_are_refused(tmp_path: Path) -> None:
    """H.264 may reorder, so only decoding shows that these times run back."""
    times = [t - 110 * (k % 10 == 9) for k, t in enumerate(STEADY)]
    path = write_clip(tmp_path / "a.mp4", [round(k * 1000 / 30) for k in range(90)], options=NO_B)
    shuffled = tmp_path / "b.mp4"
    with av.open(str(path)) as container, av.open(str(shuffled), "w") as out:
        source = container.streams.video[0]
        stream = out.add_stream_from_template(source)
        for number, packet in enumerate(container.demux(source)):
            if packet.size:
                packet.pts = int(times[number] / 1000 / source.time_base) + 4000
                packet.stream = stream
                out.mux(packet)
    assert refusal(shuffled).reason is Reason.TIMESTAMPS_BACKWARD


@pytest.mark.parametrize("join", [lambda a, b: a + b, lambda a, b: a + b[: len(b) // 2]])
def test_joined_recordings_are_refused(
    tmp_path: Path, join: Callable[[bytes, bytes], bytes]
) -> None:
    small = write_clip(tmp_path / "a.ts", STEADY, options=NO_B).read_bytes()
    large = write_clip(tmp_path / "b.ts", STEADY, options=NO_B, size=(240, 160)).read_bytes()
    found = refusal(written(tmp_path / "c.ts", join(small, large)))
    assert found.reason in (Reason.TIMESTAMPS_BACKWARD, Reason.RESOLUTION_CHANGE)


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    late = [t + 3000 for t in STEADY]
    small = write_clip(tmp_path / "s.ts", STEADY, options=NO_B).read_bytes()
    large = write_clip(tmp_path / "l.ts", late, options=NO_B, size=(240, 160)).read_bytes()
    assert refusal(written(path, small + large)).reason is Reason.RESOLUTION_CHANGE


def test_the_larger_of_two_streams_is_taken_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for width, height in ((64, 48), (192, 112)):
            stream = out.add_stream("libx264", rate=30, options=NO_B)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(20):
            for stream in streams:
                picture = stamped(number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                out.mux(stream.encode(frame.reformat(format="yuv420p")))
        for stream in streams:
            out.mux(stream.encode(None))
    index = index_video(path)
    assert (index.picture.width, index.picture.height) == (192, 112)
    assert any("2 video streams" in note for note in index.notes)
