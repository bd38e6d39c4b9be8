"""Videos whose pictures change their size on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.readings import frames_of, the_recording
from makers.video_clips import read_stamp, write_clip, write_sizes

from wham_data.pipelines.align import place_steps
from wham_data.pipelines.readers.kit.open_recordings import VideoClip
from wham_data.pipelines.video import VideoLimits, index_video
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.mask import Mask

SMALL, LARGE, UPRIGHT = (192, 128), (240, 160), (144, 192)
IN_BAND = {"bf": "2", "x264-params": "repeat-headers=1:annexb=1"}
KINDS = {
    "vp8": ("a.webm", "libvpx", {"deadline": "realtime"}, "yuv420p"),
    "vp9": ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    "h264 in ts": ("a.ts", "libx264", IN_BAND, "yuv420p"),
    "h264 in mp4": ("a.mp4", "libx264", IN_BAND, "yuv420p"),
    "hevc": ("a.ts", "libx265", {"x265-params": "repeat-headers=1:log-level=none"}, "yuv420p"),
    "mjpeg": ("a.mkv", "mjpeg", {}, "yuvj420p"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(SMALL, LARGE), (LARGE, SMALL, UPRIGHT), (SMALL, LARGE, SMALL)])
def test_a_video_is_cut_where_its_pictures_change_their_size(
    tmp_path: Path, kind: str, sizes: tuple[tuple[int, int], ...]
) -> None:
    name, codec, options, pixel_format = KINDS[kind]
    path = write_sizes(
        tmp_path / name, sizes, codec=codec, options=options, pixel_format=pixel_format
    )

    opened = VideoClip.whole(index_video(path)).opened()

    assert opened.cuts.tolist() == [10 * k for k in range(1, len(sizes))]
    assert [clip.index.picture.display_size for clip in opened.clips] == list(sizes)
    assert [read_stamp(f) for f in frames_of(opened, SMALL)] == list(range(10 * len(sizes)))
    assert sum("picture size changes" in note for note in opened.notes) == len(sizes) - 1


def flv_tags(data: bytes, later_ms: int) -> bytes:
    """The tags of an FLV file, later by so much."""
    at, tags = 13, b""
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        tag = bytearray(data[at : at + 15 + size])
        tag[4:7] = (int.from_bytes(tag[4:7], "big") + later_ms).to_bytes(3, "big")
        tags, at = tags + bytes(tag), at + len(tag)
    return tags


def test_a_stream_that_sends_another_configuration_is_cut_there(tmp_path: Path) -> None:
    small, large = (
        write_clip(tmp_path / f"{size[0]}.flv", range(0, 400, 40), size=size, options={"bf": "0"})
        for size in (SMALL, LARGE)
    )
    path = tmp_path / "both.flv"
    path.write_bytes(small.read_bytes() + flv_tags(large.read_bytes(), 400))

    opened = VideoClip.whole(index_video(path)).opened()

    assert opened.cuts.tolist() == [10]
    assert [read_stamp(f) for f in frames_of(opened, SMALL)] == [*range(10), *range(10)]


@pytest.mark.parametrize(
    ("picks", "cuts", "sizes"),
    [((3, 17), [], [SMALL]), ((12, 25), [20], [LARGE, SMALL]), ((20, 30), [], [SMALL])],
)
def test_a_part_of_the_video_is_cut_only_where_it_changes(
    tmp_path: Path, picks: tuple[int, int], cuts: list[int], sizes: list[tuple[int, int]]
) -> None:
    names = {
        (3, 17): (SMALL, SMALL),
        (12, 25): (LARGE, LARGE, SMALL),
        (20, 30): (SMALL, LARGE, SMALL),
    }
    path = write_sizes(tmp_path / "a.ts", names[picks], options=IN_BAND)

    opened = VideoClip.numbered(index_video(path), *picks).opened()

    assert (opened.cuts + picks[0]).tolist() == cuts
    assert [clip.index.picture.display_size for clip in opened.clips] == sizes
    assert [read_stamp(f) for f in frames_of(opened, SMALL)] == list(
        range(picks[0], min(picks[1], 10 * len(names[picks])))
    )


def with_log(path: Path) -> Path:
    names = load_space("xinput16").names
    rows = "".join(f"{k / 10}{',0' * len(names)}\n" for k in range(11))
    path.with_suffix(".csv").write_text(f"time_s,{','.join(names)}\n{rows}")
    return path


def test_no_step_shows_pictures_of_two_sizes(tmp_path: Path) -> None:
    with_log(write_sizes(tmp_path / "a.ts", [SMALL, LARGE], each=15, options=IN_BAND))
    opened = the_recording(tmp_path)

    plans = place_steps(opened.frame_times_ns, opened.frame_end_ns, None, TEN_HZ, cuts=opened.cuts)

    assert [plan.picks.tolist() for plan in plans] == [[0, 3, 6, 9, 12], [15, 18, 21, 24, 27]]


@pytest.mark.parametrize(("mask", "fits"), [("0,0,50,50", False), ("0.0,0.0,0.5,0.5", True)])
def test_a_mask_in_pixels_is_of_one_size(tmp_path: Path, mask: str, fits: bool) -> None:
    path = write_sizes(tmp_path / "a.ts", [SMALL, LARGE], options=IN_BAND)
    opened = VideoClip.whole(index_video(path)).opened()
    opened.masks = (Mask.parse(mask),)

    if fits:
        assert (frames_of(opened, SMALL)[:, :60, :90] == 0).all()
    else:
        with pytest.raises(RefusedInput) as refused:
            frames_of(opened, SMALL)
        assert refused.value.reason is Reason.RESOLUTION_CHANGE


def test_a_size_beyond_the_limit_is_refused_wherever_it_comes(tmp_path: Path) -> None:
    path = write_sizes(tmp_path / "a.ts", [SMALL, LARGE], options=IN_BAND)

    index = index_video(path, VideoLimits(max_pixels=SMALL[0] * SMALL[1]))
    with pytest.raises(RefusedInput):
        frames_of(VideoClip.whole(index).opened(), SMALL)


def test_many_changes_are_counted(tmp_path: Path) -> None:
    path = write_sizes(tmp_path / "a.ts", [SMALL, LARGE] * 4, each=3, options=IN_BAND)

    index = index_video(path)

    assert [at for at, _ in index.changes] == list(np.arange(1, 8) * 3)
    assert "4 more changes of the picture size" in index.notes
