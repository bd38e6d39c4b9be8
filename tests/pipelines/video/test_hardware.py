"""Videos on a GPU: for which streams, with which frames, and who has the last word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from makers.video_clips import write_clip
from numpy.typing import NDArray

from wham_data.pipelines.video import DecodeAudit, VideoLimits, decode_frames, index_video, need_gpu
from wham_data.pipelines.video.audit import too_much_lost
from wham_data.pipelines.video.hardware import (
    Video,
    checked_by_cpu,
    decoder_for,
    like_cpu,
    on_gpu,
    why_no_gpu,
)
from wham_data.pipelines.video.scale import PictureFormat, Scaler
from wham_data.pipelines.video.source import Source
from wham_data.schemas.errors import MissingPartError, Reason, RefusedInput, UsageError

LIMITS = VideoLimits()
TENTHS = range(0, 3000, 100)
FULL_HD = PictureFormat(1920, 1080, Fraction(1), 0, False, "yuv420p", 8, "bt709", False)
HD_PLAY = Video("h264", FULL_HD, seconds=3600)
Values = NDArray[np.uint8] | NDArray[np.uint16]


def without_gpu() -> None:
    if why_no_gpu() is None:
        pytest.skip("there is a GPU")


def values(picture: VideoFrame) -> list[Values]:
    """The writable values of each plane, without what pads the rows."""
    kind = np.uint16 if picture.format.components[0].bits > 8 else np.uint8
    found: list[Values] = []
    for number, plane in enumerate(picture.planes):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size).view(kind)
        pairs = 2 if len(picture.planes) == 2 and number else 1  # NV12 and P010: U and V take turns
        found.append(rows[: plane.height, : plane.width * pairs])
    return found


def pictures(path: Path) -> list[VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, TENTHS)
    return path


# A GPU's layout and the CPU's


@pytest.mark.parametrize("size", [(64, 48), (62, 36), (301, 181), (1920, 1080)])
@pytest.mark.parametrize(
    ("layout", "of_gpu", "bits"),
    [("yuv420p", "nv12", 8), ("yuvj420p", "nv12", 8), ("yuv420p10le", "p010le", 10)],
)
def test_every_value_of_a_gpus_picture_is_kept(
    layout: str, of_gpu: str, bits: int, size: tuple[int, int]
) -> None:
    expected, picture = VideoFrame(*size, layout), VideoFrame(*size, of_gpu)
    random = np.random.default_rng(0)
    for plane in values(expected):
        plane[:] = random.integers(0, 1 << bits, plane.shape)
    luma, *chroma = values(expected)
    shift = 6 if bits > 8 else 0  # P010 has its ten bits at the top
    values(picture)[0][:] = luma << shift
    values(picture)[1][:] = np.stack(chroma, -1).reshape(len(chroma[0]), -1) << shift

    found = like_cpu(picture, layout)

    assert found.format.name == layout
    for one, other in zip(values(found), values(expected), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "tags", ["", "chromaloc=2", "fullrange=on:chromaloc=1", "colormatrix=bt709"]
)
@pytest.mark.parametrize("size", [(300, 180), (64, 64), (192, 112), (400, 300)])
def test_frames_of_a_gpus_pictures_are_those_of_the_cpus(
    tags: str, size: tuple[int, int], tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.mp4", TENTHS[:2], options={"x264-params": tags} if tags else {})
    picture = pictures(tmp_path / "clip.mp4")[0]
    format = PictureFormat.of(picture, Fraction(1))
    scale = "JPEG" if format.full_range else "MPEG"
    of_gpu = VideoReformatter().reformat(
        picture, format="nv12", src_color_range=scale, dst_color_range=scale
    )
    scaler = Scaler(format, size, "stretch")

    frame = scaler.picture(picture).copy()

    assert np.array_equal(scaler.picture(like_cpu(of_gpu, format.pixel_format)), frame)


# Which streams


@pytest.mark.parametrize(
    ("codec", "changes", "why"),
    [
        ("h264", {}, None),
        ("hevc", {"pixel_format": "yuv420p10le"}, None),
        ("vp9", {"pixel_format": "yuv420p10le"}, None),
        ("h264", {"pixel_format": "yuvj420p"}, None),
        ("av1", {}, "used for h264, hevc, vp9, not for av1"),
        ("mpeg4", {}, "not for mpeg4"),
        ("h264", {"pixel_format": "yuv420p10le"}, "not in yuv420p10le"),
        ("h264", {"pixel_format": "yuv444p"}, "not in yuv444p"),
        ("hevc", {"pixel_format": "yuv422p10le"}, "not in yuv422p10le"),
        ("hevc", {"width": 128, "height": 128}, "sides of 144 to 4096 pixels"),
        ("h264", {"width": 7680, "height": 4320}, "sides of 48 to 4096 pixels"),
    ],
)
def test_a_gpu_is_for_these_codecs_formats_and_sizes(
    codec: str, changes: dict[str, int | str], why: str | None
) -> None:
    found = Video(codec, replace(FULL_HD, **changes), seconds=60).unfit  # type: ignore[arg-type]

    assert (found is None) if why is None else (found is not None and why in found)


def test_a_gpu_is_worth_its_start_for_long_videos_of_large_pictures() -> None:
    assert HD_PLAY.worthwhile
    assert not replace(HD_PLAY, seconds=10).worthwhile
    assert not replace(HD_PLAY, picture=replace(FULL_HD, width=640, height=360)).worthwhile


def test_the_gpu_decodes_where_it_may_can_and_gives_the_same(tmp_path: Path) -> None:
    clip, other, short = (tmp_path / f"{name}.mp4" for name in ("clip", "other", "short"))
    write_clip(clip, TENTHS, options={"g": "1", "qp": "20"})
    write_clip(other, TENTHS, options={"g": "1", "qp": "40"})
    write_clip(short, TENTHS[:3], options={"g": "1", "qp": "20"})

    def twice(second: Path) -> tuple[Source, Source]:
        return Source(clip, LIMITS, None), Source(second, LIMITS, None)

    def refused() -> tuple[Source, Source]:
        raise RefusedInput(Reason.UNSUPPORTED_CODEC, "out of memory")

    def never() -> tuple[Source, Source]:
        raise AssertionError("opened")

    def free() -> None:
        return None

    small = replace(HD_PLAY, seconds=1)
    damaged = replace(HD_PLAY, defect="parts of it are damaged")
    for wanted, video, opened, obstacle, used, note in (
        ("cpu", HD_PLAY, never, free, "cpu", None),
        ("nvdec", small, lambda: twice(clip), free, "nvdec", None),
        ("auto", HD_PLAY, lambda: twice(clip), free, "nvdec", None),
        ("auto", small, never, free, "cpu", None),
        ("auto", HD_PLAY, never, lambda: "no driver", "cpu", None),
        ("nvdec", HD_PLAY, never, lambda: "no driver", "cpu", "decoded on the CPU: no driver"),
        ("nvdec", damaged, never, free, "cpu", "decoded on the CPU: parts of it are damaged"),
        ("nvdec", HD_PLAY, refused, free, "cpu", "the GPU cannot be used (out of memory)"),
        ("nvdec", HD_PLAY, lambda: twice(other), free, "cpu", "picture 0 of the GPU differs"),
        ("nvdec", HD_PLAY, lambda: twice(short), free, "cpu", "the GPU gives only 3 pictures"),
    ):
        found, said = decoder_for(wanted, video, opened, obstacle)  # type: ignore[arg-type]
        assert found == used
        assert (said is None) if note is None else (said is not None and note in said)


def test_a_decoder_that_is_not_known_is_refused() -> None:
    with pytest.raises(UsageError, match="decoder 'gpu': expected cpu, auto, nvdec"):
        VideoLimits(decoder="gpu")  # type: ignore[arg-type]


# The last word


def test_where_the_gpu_is_amiss_the_cpu_goes_on_and_its_audit_counts() -> None:
    batches = [np.full((2, 1, 1, 3), number, np.uint8) for number in range(4)]

    def gpu(counts: DecodeAudit) -> Iterator[NDArray[np.uint8]]:
        yield from batches[:2]
        counts.errors = 1
        yield batches[0]  # wrong, and must not come out

    def cpu() -> Iterator[NDArray[np.uint8]]:
        audit.pictures_decoded = 8
        yield from batches

    audit = DecodeAudit()
    found = list(checked_by_cpu(gpu, cpu, audit))

    assert [int(frames[0, 0, 0, 0]) for frames in found] == [0, 1, 2, 3]
    assert (audit.errors, audit.pictures_decoded) == (0, 8)


def test_a_gpu_that_fails_at_the_end_does_not_refuse_a_video() -> None:
    def gpu(counts: DecodeAudit) -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((1, 1, 1, 3), np.uint8)
        raise too_much_lost(counts, "corrupt")

    def cpu() -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((1, 1, 1, 3), np.uint8)
        if refuse:
            raise too_much_lost(DecodeAudit(), "corrupt")

    refuse = False
    assert len(list(checked_by_cpu(gpu, cpu, None))) == 1
    refuse = True
    with pytest.raises(RefusedInput, match="corrupt"):
        list(checked_by_cpu(gpu, cpu, None))


def test_a_gpu_without_trouble_is_believed() -> None:
    def gpu(counts: DecodeAudit) -> Iterator[NDArray[np.uint8]]:
        counts.pictures_decoded = 3
        yield np.zeros((3, 1, 1, 3), np.uint8)

    audit = DecodeAudit()
    assert len(list(checked_by_cpu(gpu, lambda: iter(()), audit))) == 1
    assert audit.pictures_decoded == 3


# Without a GPU


def test_without_a_driver_a_video_is_decoded_on_the_cpu_with_a_note(clip: Path) -> None:
    without_gpu()
    index = index_video(clip, VideoLimits(decoder="nvdec"))

    assert index.decoder == "cpu"
    assert any(note.startswith("decoded on the CPU: libcuda.so.1") for note in index.notes)
    assert index_video(clip, VideoLimits(decoder="auto")).notes == index_video(clip).notes


def test_ffmpeg_failing_to_open_the_gpu_is_a_refusal_of_the_gpu(clip: Path) -> None:
    without_gpu()
    with pytest.raises(RefusedInput, match="operation not permitted"):
        on_gpu(clip, LIMITS, 0)
    with pytest.raises(MissingPartError, match=r"--decoder nvdec: libcuda\.so\.1 .*--decoder cpu"):
        need_gpu()


def test_a_gpu_that_is_gone_after_the_index_leaves_the_frames_to_the_cpu(clip: Path) -> None:
    without_gpu()
    index = index_video(clip)
    picks = np.arange(len(index.times_ns))
    audit = DecodeAudit()

    found = list(decode_frames(replace(index, decoder="nvdec"), picks, audit=audit))

    assert np.array_equal(np.concatenate(found), np.concatenate(list(decode_frames(index, picks))))
    assert audit.pictures_decoded == len(picks)
