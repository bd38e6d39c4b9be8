"""The frame on screen, by presentation time, from every codec and container we promise."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from makers.video_clips import read_stamp, stamped, write_clip
from PIL import Image

from wham_data.pipelines.video import (
    DecodeAudit,
    Frames,
    VideoIndex,
    VideoLimits,
    decode_frames,
    decode_image,
    encode_image,
    encode_jpeg,
    encode_png,
    index_video,
    write_video,
)
from wham_data.pipelines.video.scale import Scaler
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

TENTH_NS = 100_000_000
STEADY = [round(k * 1000 / 30) for k in range(75)]
STUTTER = np.cumsum(np.random.default_rng(5).integers(8, 100, 75)).tolist()
COUNTS = list(range(75))
THIRTIETHS = Fraction(1, 30)

FAST = {"preset": "veryfast", "crf": "18"}
B_FRAMES = {**FAST, "bf": "3", "g": "25"}
X265 = "keyint=25:bframes=4:log-level=none"


@dataclass(frozen=True)
class Kind:
    """A way to write the clip; `drops` says that some pictures must be found to be disposable."""

    ending: str
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    times: tuple[int, ...] = tuple(STEADY)
    time_base: Fraction = Fraction(1, 1000)
    drops: bool = False


def hevc(ending: str, extra: str = "") -> Kind:
    options = {"preset": "ultrafast", "crf": "18", "x265-params": f"{X265}{extra}"}
    return Kind(ending, "libx265", options, drops=True)


def counted(ending: str, codec: str, options: dict[str, str] | None = None) -> Kind:
    form = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
    return Kind(ending, codec, options or {}, form, tuple(COUNTS), THIRTIETHS)


VPX = {"deadline": "realtime", "cpu-used": "8", "g": "25", "b": "2M"}
SVT = {"preset": "12", "crf": "20", "g": "25"}
KINDS = {
    "H.264 with B-frames in mp4": Kind("mp4", options=B_FRAMES, drops=True),
    "H.264 with B-frames in mkv": Kind("mkv", options=B_FRAMES, drops=True),
    "H.264 with B-frames in mov": Kind("mov", options=B_FRAMES, drops=True),
    "H.264 with B-frames in ts": Kind("ts", options=B_FRAMES, drops=True),
    "H.264 without B-frames": Kind("mp4", options={**FAST, "bf": "0", "g": "25"}),
    "H.264 in slices": Kind("mp4", options={**B_FRAMES, "slices": "4"}, drops=True),
    "H.264 with open groups": Kind(
        "mkv", options={**B_FRAMES, "x264-params": "open-gop=1"}, drops=True
    ),
    "H.264 with one key frame": Kind("mp4", options={**B_FRAMES, "g": "9999"}, drops=True),
    "H.264 with intra refresh": Kind("mp4", options={**FAST, "x264-params": "intra-refresh=1"}),
    "H.264 at a variable rate": Kind("mkv", options=B_FRAMES, times=tuple(STUTTER), drops=True),
    "H.264 from 5 s on": Kind("mp4", options=B_FRAMES, times=tuple(t + 5000 for t in STEADY)),
    "H.264 of 10 bits": Kind("mp4", options=B_FRAMES, pixel_format="yuv420p10le", drops=True),
    "H.264 4:4:4": Kind("mp4", options=B_FRAMES, pixel_format="yuv444p", drops=True),
    "H.264 in avi, which has no presentation times": counted("avi", "libx264", B_FRAMES),
    "HEVC in mp4": hevc("mp4"),
    "HEVC in mkv with closed groups": hevc("mkv", ":open-gop=0"),
    "HEVC in ts in temporal layers": hevc("ts", ":temporal-layers=3"),
    "AV1 in mp4": Kind("mp4", "libsvtav1", SVT, drops=True),
    "AV1 in webm": Kind("webm", "libsvtav1", SVT, drops=True),
    "VP9 in webm": Kind("webm", "libvpx-vp9", VPX),
    "VP8 with hidden pictures": Kind(
        "webm", "libvpx", {**VPX, "deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "12"}
    ),
    "MPEG-4 in mp4": counted("mp4", "mpeg4", {"bf": "2", "qscale": "3"}),
    "MPEG-4 in avi": counted("avi", "mpeg4", {"bf": "2", "qscale": "3"}),
    "Motion JPEG in avi": counted("avi", "mjpeg"),
    "PNG in mov": counted("mov", "png"),
    "FFV1 in mkv": Kind("mkv", "ffv1", {"g": "5"}),
}


def on_grid(index: VideoIndex) -> np.ndarray:
    """Positions of the frames on screen at every tenth of a second."""
    grid = np.arange(index.times_ns[0], index.end_ns, TENTH_NS)
    return np.searchsorted(index.times_ns, grid, side="right") - 1


def decoded(
    index: VideoIndex,
    picks: np.ndarray,
    size: tuple[int, int] = (96, 56),
    threads: int = 1,
    audit: DecodeAudit | None = None,
) -> Frames:
    batches = decode_frames(index, picks, size, batch=7, threads=threads, audit=audit)
    return np.concatenate(list(batches))


def fully_decoded(index: VideoIndex, size: tuple[int, int] = (96, 56)) -> list[Frames]:
    """Every frame of the file, straight from the decoder, scaled the same way."""
    scaler = Scaler(index.picture, size, "stretch")
    with av.open(str(index.path)) as container:
        frames = container.decode(container.streams[index.stream])
        return [scaler.picture(frame) for frame in frames]


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    kind: Kind = request.param
    path = tmp_path_factory.mktemp("clip") / f"clip.{kind.ending}"
    write_clip(
        path,
        kind.times,
        codec=kind.codec,
        options=kind.options,
        pixel_format=kind.pixel_format,
        time_base=kind.time_base,
    )
    return kind, index_video(path)


def test_every_frame_has_the_time_it_was_written_with(clip: tuple[Kind, VideoIndex]) -> None:
    kind, index = clip
    found = index.times_ns.astype(float) / 1e9
    wanted = np.array([float(t * kind.time_base) for t in kind.times])
    if kind.ending == "ts":  # its muxer delays a stream so that decoding times start at zero
        wanted += found[0] - wanted[0]
    assert found == pytest.approx(wanted, abs=0.0006)


def test_the_grid_shows_the_frame_on_screen_whatever_was_left_undecoded(
    clip: tuple[Kind, VideoIndex],
) -> None:
    kind, index = clip
    picks, audit = on_grid(index), DecodeAudit()
    frames = decoded(index, picks, audit=audit)
    assert [read_stamp(frame) for frame in frames] == picks.tolist()
    whole = fully_decoded(index)
    assert all(np.array_equal(a, whole[pick]) for a, pick in zip(frames, picks, strict=True))
    assert audit.lost == []
    assert audit.pictures_decoded == audit.pictures_needed
    left_out = audit.skipped_disposable + audit.skipped_unneeded
    assert left_out + audit.pictures_needed == len(kind.times)
    assert (audit.skipped_disposable > 0) or not kind.drops


def test_two_threads_give_the_frames_of_one(clip: tuple[Kind, VideoIndex]) -> None:
    _, index = clip
    picks = np.sort(np.random.default_rng(1).integers(0, len(index.times_ns), 30))
    alone, together = DecodeAudit(), DecodeAudit()
    one = decoded(index, picks, audit=alone)
    two = decoded(index, picks, threads=2, audit=together)
    assert np.array_equal(one, two)
    assert alone == together


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    path = tmp_path_factory.mktemp("steady") / "clip.mp4"
    return index_video(write_clip(path, STEADY, options=B_FRAMES))


def test_a_frame_may_be_picked_again_and_again(steady: VideoIndex) -> None:
    picks = np.array([3, 3, 3, 40, 40, 74])
    assert [read_stamp(frame) for frame in decoded(steady, picks)] == picks.tolist()


def test_no_picks_give_no_frames(steady: VideoIndex) -> None:
    assert list(decode_frames(steady, np.zeros(0, np.int64))) == []


@pytest.mark.parametrize("picks", [[5, 4], [-1, 3], [0, 75]])
def test_picks_out_of_order_or_range_are_a_mistake_of_the_caller(
    steady: VideoIndex, picks: list[int]
) -> None:
    with pytest.raises(UsageError):
        decode_frames(steady, np.array(picks))


def test_the_caller_may_stop_at_any_batch(steady: VideoIndex) -> None:
    frames = decode_frames(steady, np.arange(75), batch=1, threads=2)
    assert read_stamp(next(frames)[0]) == 0
    frames.close()  # type: ignore[attr-defined]


def test_a_hostile_name_is_a_name(tmp_path: Path) -> None:
    for name in ("data:video.mp4", "-i x.mp4", "concat:a|b.mp4", "%03d.mp4", "a\nb.mp4"):
        index = index_video(
            write_clip(tmp_path / "a.mp4", STEADY[:9], options=FAST).rename(tmp_path / name)
        )
        assert len(decoded(index, np.arange(9))) == 9


# --- time ------------------------------------------------------------------------------------------------


def test_times_are_rounded_up_so_that_comparing_whole_nanoseconds_is_exact(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", range(10), time_base=Fraction(1001, 60000), options=FAST)
    index = index_video(path)
    exact = [k * Fraction(1001, 60000) * 10**9 for k in range(10)]
    assert index.times_ns.tolist() == [-(-e.numerator // e.denominator) for e in exact]
    assert index.average_rate == Fraction(60000, 1001)


def test_an_edit_list_is_honoured(tmp_path: Path) -> None:
    """The first 20 of 60 frames are cut by the edit list and stay in the file."""
    path = write_clip(
        tmp_path / "a.mp4", range(60), time_base=THIRTIETHS, options={**FAST, "bf": "0"}
    )
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12
    ticks = 20 * 512  # the muxer's time base for 1/30 is 1/15360
    kept = int.from_bytes(data[entry : entry + 4], "big") * 40 // 60
    data[entry : entry + 8] = kept.to_bytes(4, "big") + ticks.to_bytes(4, "big")
    path.write_bytes(data)
    index = index_video(path)
    assert len(index.times_ns) == 40
    assert index.times_ns[0] == 0
    assert index.promised_frames == index.found_frames == 40
    frames = decoded(index, np.arange(40))
    assert [read_stamp(frame) for frame in frames] == list(range(20, 60))


def test_a_late_start_is_kept_and_noted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", [t + 3_600_000 for t in STEADY], options=B_FRAMES)
    index = index_video(path)
    assert index.times_ns[0] == 3600 * 10**9
    assert "starts at 3600.0 s" in index.notes


def test_a_start_below_zero_is_kept_and_noted(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mkv",
        STEADY,
        codec="mjpeg",
        pixel_format="yuvj420p",
        muxed_times=[t - 500 for t in STEADY],
        muxer={"avoid_negative_ts": "disabled"},
    )
    index = index_video(path)
    assert index.times_ns[0] == pytest.approx(-500_000_000, abs=6_000_000)
    assert any("negative start" in note for note in index.notes)
    assert read_stamp(decoded(index, np.array([20]))[0]) == 20


def test_frames_of_one_time_count_once(tmp_path: Path) -> None:
    times = [*range(0, 300, 30), 300, 300, 300, *range(330, 600, 30)]
    path = write_clip(
        tmp_path / "a.mkv",
        range(len(times)),
        codec="mjpeg",
        pixel_format="yuvj420p",
        muxed_times=times,
    )
    index = index_video(path)
    assert index.duplicates == 2
    assert any("duplicate" in note for note in index.notes)
    assert index.found_frames == len(times)
    frames = decoded(index, np.arange(len(index.times_ns)))
    assert [read_stamp(frame) for frame in frames] == [*range(11), *range(13, 22)]


def test_a_variable_rate_is_noted_and_a_rounded_one_is_not(tmp_path: Path) -> None:
    stutter = index_video(write_clip(tmp_path / "a.mkv", STUTTER, options=FAST))
    assert any(note.startswith("variable rate") for note in stutter.notes)
    steady = index_video(write_clip(tmp_path / "b.mkv", STEADY, options=FAST))
    assert steady.notes == ()


def test_what_comes_before_the_first_key_frame_is_lost_and_said(tmp_path: Path) -> None:
    whole = write_clip(
        tmp_path / "a.ts", STEADY, options={**FAST, "g": "30", "bf": "0", "sc_threshold": "0"}
    )
    data = whole.read_bytes()
    cut = tmp_path / "b.ts"
    cut.write_bytes(data[len(data) // 188 // 5 * 188 :])
    index = index_video(cut)
    assert any("between key frames" in note for note in index.notes)
    stamps = [read_stamp(frame) for frame in decoded(index, np.arange(len(index.times_ns)))]
    assert stamps == list(range(30, 75))


# --- pixels ----------------------------------------------------------------------------------------------

PATCHES = np.array(
    [(180, 40, 40), (40, 180, 40), (40, 40, 180), (128, 128, 128), (230, 230, 60), (20, 20, 20)],
    np.uint8,
)
COEFFICIENTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def patches(height: int) -> Frames:
    """Six upright bars of known colour, uint8 [height, height * 3 / 2, 3]."""
    return np.repeat(np.repeat(PATCHES[None], height, 0), height // 4, 1)


def to_yuv(rgb: Frames, matrix: str, full: bool) -> Frames:
    """Planar 4:4:4 by the definition of the matrix, uint8 [3, H, W]."""
    red, blue = COEFFICIENTS[matrix]
    r, g, b = (rgb[..., i] / 255 for i in range(3))
    luma = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    y_gain, c_gain, floor = (255, 255, 0) if full else (219, 224, 16)
    planes = [luma * y_gain + floor, u * c_gain + 128, v * c_gain + 128]
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("matrix", "tag", "height"),
    [
        ("bt601", 6, 240),
        ("bt709", 1, 240),
        ("bt601", 6, 720),
        ("bt709", 1, 720),
        ("bt601", 2, 240),
        ("bt709", 2, 720),
    ],
    ids=["601", "709", "601 HD", "709 HD", "untagged SD is 601", "untagged HD is 709"],
)
def test_colours_are_true(tmp_path: Path, matrix: str, tag: int, height: int, full: bool) -> None:
    path, rgb = tmp_path / "a.mkv", patches(height)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = rgb.shape[1], height, "yuv444p"
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full else 1
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(to_yuv(rgb, matrix, full), format="yuv444p")
            frame.pts, frame.colorspace, frame.color_range = number, tag, 2 if full else 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    index = index_video(path)
    assert (index.picture.matrix, index.picture.full_range) == (matrix, full)
    frame = decoded(index, np.array([1]), size=(60, 40))[0]
    assert np.abs(frame[20, 5::10].astype(int) - PATCHES).max() <= 2


def bars_clip(path: Path, options: Callable[[av.VideoStream], None] = lambda _: None) -> VideoIndex:
    """Six lossless RGB bars, 72 x 48, with whatever `options` sets on the stream."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=30)
        stream.width, stream.height, stream.pix_fmt = 72, 48, "rgb24"
        options(stream)
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(patches(48), format="rgb24")))
        out.mux(stream.encode(None))
    return index_video(path)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_recording_is_set_upright(tmp_path: Path, degrees: int) -> None:
    index = bars_clip(tmp_path / "a.mov", lambda stream: stream.set_display_rotation(-degrees))
    assert index.picture.rotation == degrees
    assert any("rotated" in note for note in index.notes) == (degrees != 0)
    upright = np.rot90(patches(48), -degrees // 90)
    height, width = upright.shape[:2]
    assert index.picture.display_size == (width, height)
    frame = decoded(index, np.array([0]), size=(width, height))[0]
    assert np.abs(frame.astype(int) - upright).max() <= 2


def test_a_mirrored_recording_is_mirrored_back(tmp_path: Path) -> None:
    index = bars_clip(tmp_path / "a.mov", lambda stream: stream.set_display_rotation(0, hflip=True))
    frame = decoded(index, np.array([0]), size=(72, 48))[0]
    assert np.abs(frame.astype(int) - patches(48)[:, ::-1]).max() <= 2


def test_letterbox_and_crop_keep_the_aspect_and_stretch_does_not(tmp_path: Path) -> None:
    index = bars_clip(tmp_path / "a.mov")
    picks = np.array([0])
    stretched, boxed, cropped = (
        next(decode_frames(index, picks, (48, 48), fit=fit))[0].astype(int)
        for fit in ("stretch", "letterbox", "crop")
    )
    assert np.abs(stretched[0, 4::8] - PATCHES).max() <= 2
    assert not boxed[:8].any()
    assert not boxed[-8:].any()
    assert np.abs(boxed[24, 4::8] - PATCHES).max() <= 2
    assert np.abs(cropped[:, ::12][24] - PATCHES[1:5]).max() <= 2


def test_wide_pixels_count_for_the_aspect(tmp_path: Path) -> None:
    def wide(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2)

    index = bars_clip(tmp_path / "a.mov", wide)
    assert index.picture.display_size == (144, 48)
    boxed = next(decode_frames(index, np.array([0]), (72, 48), fit="letterbox"))[0]
    assert boxed.any(axis=(1, 2)).sum() == 24


def test_odd_sizes_keep_every_edge(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mp4", STEADY[:20], size=(195, 113), pixel_format="yuv444p", options=FAST
    )
    frame = decoded(index_video(path), np.array([7]), size=(195, 113))[0]
    assert read_stamp(frame) == 7
    assert np.abs(frame.astype(int) - stamped(7, 195, 113)).mean() < 12


def test_grey_stays_grey(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", STEADY[:6], codec="ffv1", pixel_format="gray")
    index = index_video(path)
    assert any("grey" in note for note in index.notes)
    frame = decoded(index, np.array([3]), size=(192, 112))[0]
    assert read_stamp(frame) == 3
    assert np.ptp(frame.astype(int), axis=-1).max() <= 1
    assert abs(int(frame[5, 5, 0]) - int(stamped(3)[5, 5, 0])) <= 2


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    rgba = np.full((48, 64, 4), 200, np.uint8)
    rgba[:, :32, 3], rgba[:, 32:, 3] = 0, 128
    with av.open(str(path), "w") as out:
        stream = out.add_stream("qtrle", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        out.mux(stream.encode(None))
    index = index_video(path)
    assert any("alpha" in note for note in index.notes)
    frame = decoded(index, np.array([1]), size=(32, 24))[0]
    assert frame[:, :15].max() == 0
    assert np.abs(frame[:, 17:].astype(int) - 100).max() <= 1


# --- pictures and clips out ------------------------------------------------------------------------------


def test_a_png_is_exact_and_a_jpeg_is_close() -> None:
    frame = stamped(77, 300, 180)
    assert np.array_equal(decode_image(encode_png(frame)), frame)
    smooth = patches(180)
    loss = decode_image(encode_jpeg(smooth)).astype(float) - smooth
    assert 10 * np.log10(255**2 / (loss**2).mean()) > 40
    assert encode_image(frame, "png") == encode_png(frame)
    assert encode_image(frame, "jpeg") == encode_jpeg(frame)


def test_a_damaged_or_huge_picture_is_refused() -> None:
    data = bytearray(encode_png(stamped(1)))
    with pytest.raises(RefusedInput):
        decode_image(b"GIF89a")
    with pytest.raises(RefusedInput):
        decode_image(bytes(data[:400]))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    with pytest.raises(RefusedInput, match="30000x30000") as refusal:
        decode_image(bytes(data))
    assert refusal.value.reason is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("size", [(192, 112), (191, 111)])
def test_a_written_clip_reads_back(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.mp4"
    count = write_video(path, (stamped(k, *size) for k in range(25)), Fraction(10))
    index = index_video(path)
    assert count == len(index.times_ns) == 25
    assert np.array_equal(index.times_ns, np.arange(25) * TENTH_NS)
    assert (index.picture.matrix, index.picture.full_range) == ("bt709", False)
    frames = decoded(index, np.arange(25), size=(192, 112))
    assert [read_stamp(frame[: size[1], : size[0]]) for frame in frames] == list(range(25))


@pytest.mark.parametrize("width", range(34, 66, 2))
def test_a_picture_that_keeps_its_size_keeps_every_column(tmp_path: Path, width: int) -> None:
    path = tmp_path / "a.mp4"
    columns = np.linspace(30, 220, width).astype(np.uint8)
    grey = np.broadcast_to(columns[None, :, None], (32, width, 3))
    write_video(path, [grey, grey], Fraction(10))
    frame = decoded(index_video(path), np.array([0]), size=(width, 32))[0]
    assert np.abs(frame.astype(int) - grey).max() < 8


def test_a_jpeg_of_half_the_chroma_keeps_every_column() -> None:
    grey = np.broadcast_to(np.linspace(30, 220, 40).astype(np.uint8)[None, :, None], (32, 40, 3))
    data = io.BytesIO()
    Image.fromarray(grey).save(data, "JPEG", quality=95, subsampling="4:2:0")
    assert np.abs(decode_image(data.getvalue()).astype(int) - grey).max() < 8


def test_limits_are_the_callers(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", STEADY, options=FAST)
    for limits, reason in (
        (VideoLimits(max_pixels=192 * 100), Reason.TOO_MANY_PIXELS),
        (VideoLimits(max_hours=1 / 3600), Reason.TOO_LONG),
        (VideoLimits(max_gap_s=0.02), Reason.GAP_TOO_LONG),
    ):
        with pytest.raises(RefusedInput) as refusal:
            index_video(path, limits)
        assert refusal.value.reason is reason
