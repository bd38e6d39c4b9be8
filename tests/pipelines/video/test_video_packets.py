"""What packet headers tell, and which packets a pick of frames needs; no video is decoded here."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.pipelines.video.bitstream import (
    LAYER_SHIFT,
    Picture,
    image_size,
    inspector,
)
from wham_data.pipelines.video.matroska import hides_frames
from wham_data.pipelines.video.packets import (
    MISSING,
    NOT_SHOWN,
    PacketTable,
    Presentation,
    plan_decoding,
    present,
)
from wham_data.schemas.errors import Reason, RefusedInput

AVCC = bytes([1, 100, 0, 32, 0xFF, 0xE1])  # four-byte lengths
HVCC = bytes([1] + [0] * 20 + [3, 0])


def lengths(*nals: bytes) -> memoryview:
    return memoryview(b"".join(len(nal).to_bytes(4, "big") + nal for nal in nals))


def starts(*nals: bytes) -> memoryview:
    return memoryview(b"".join(b"\0\0\0\1" + nal for nal in nals))


H264 = {
    "an IDR picture": ([b"\x06\x05", b"\x65\x88"], Picture.RESTART),
    "a referenced picture": ([b"\x41\x9a"], Picture.UNKNOWN),
    "a picture nobody refers to": ([b"\x01\x9e"], Picture.DISPOSABLE),
    "its slices": ([b"\x01\x9e", b"\x01\x9e\x22"], Picture.DISPOSABLE),
    "two fields, one referenced": ([b"\x41\x9a", b"\x01\x9e"], Picture.UNKNOWN),
    "one with a new parameter set": ([b"\x68\xee", b"\x01\x9e"], Picture.UNKNOWN),
    "no picture": ([b"\x06\x05"], Picture.UNKNOWN),
}


@pytest.mark.parametrize(("nals", "wanted"), H264.values(), ids=H264.keys())
def test_h264_pictures_are_told_by_nal_ref_idc(nals: list[bytes], wanted: Picture) -> None:
    assert inspector("h264", AVCC)(lengths(*nals)) == wanted
    assert inspector("h264", b"")(starts(*nals)) == wanted


def hevc_nal(kind: int, layer: int = 0) -> bytes:
    return bytes([kind << 1, layer + 1, 0x80])


HEVC = {
    "an IDR picture": ([hevc_nal(32), hevc_nal(20)], Picture.RESTART),
    "a CRA picture": ([hevc_nal(21)], Picture.OPEN_RESTART),
    "a trailing reference": ([hevc_nal(1)], Picture.UNKNOWN),
    "a trailing non-reference": ([hevc_nal(0)], Picture.DISPOSABLE),
    "a leading non-reference": ([hevc_nal(39), hevc_nal(8)], Picture.DISPOSABLE),
    "a higher layer": ([hevc_nal(0, 2)], Picture.DISPOSABLE | 2 << LAYER_SHIFT),
    "one with a parameter set": ([hevc_nal(34), hevc_nal(0)], Picture.UNKNOWN),
}


@pytest.mark.parametrize(("nals", "wanted"), HEVC.values(), ids=HEVC.keys())
def test_hevc_pictures_are_told_by_their_nal_type(nals: list[bytes], wanted: int) -> None:
    assert inspector("hevc", HVCC)(lengths(*nals)) == wanted
    assert inspector("hevc", b"")(starts(*nals)) == wanted


def test_an_mpeg4_b_vop_is_disposable_unless_packed_with_another() -> None:
    look = inspector("mpeg4", b"")
    b_vop, p_vop = b"\0\0\1\xb6\x90\x11", b"\0\0\1\xb6\x50\x11"
    assert look(memoryview(b_vop)) == Picture.DISPOSABLE
    assert look(memoryview(p_vop)) == 0
    assert look(memoryview(p_vop + b_vop)) == 0


def test_vp9_shows_key_frames_and_hidden_frames_but_nothing_disposable() -> None:
    look = inspector("vp9", b"")
    assert look(memoryview(bytes([0b10000010, 0x49, 0x83]))) == Picture.RESTART
    assert look(memoryview(bytes([0b10000100, 0x00, 0x00]))) == Picture.HIDDEN
    assert look(memoryview(bytes([0b10000110, 0x00, 0x00]))) == 0


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "qtrle"])
@given(data=st.binary(max_size=60), extradata=st.sampled_from([b"", AVCC, HVCC, b"\x81\0\0\0\x0a"]))
@settings(max_examples=60, deadline=None)
def test_no_bytes_upset_the_inspection(codec: str, data: bytes, extradata: bytes) -> None:
    assert inspector(codec, extradata)(memoryview(data)) >= 0
    image_size(data)


# --- presentation and plan -------------------------------------------------------------------------------

NONE = Picture.UNKNOWN


def table(pts: list[int | None], pictures: list[int] | None = None) -> PacketTable:
    """Packets with these presentation times, the first a key frame from which decoding starts."""
    n = len(pts)
    kinds = np.array(pictures or [Picture.RESTART] + [NONE] * (n - 1), np.int32)
    no = np.zeros(n, np.bool_)
    key = no.copy()
    key[0] = True
    return PacketTable(
        pts=np.array([MISSING if time is None else time for time in pts], np.int64),
        dts=np.arange(n, dtype=np.int64),
        duration=np.ones(n, np.int64),
        size=np.ones(n, np.int64),
        picture=kinds,
        key=key,
        discard=no,
        corrupt=no,
    )


def presented(packets: PacketTable, *, reorders: bool = True, avi: bool = False) -> Presentation:
    return present(packets, Fraction(1, 10), reorders=reorders, decoding_times_only=avi)


def test_frames_are_shown_by_presentation_time() -> None:
    shown = presented(table([0, 3, 1, 2]))
    assert shown.rank.tolist() == [0, 3, 1, 2]
    assert shown.times_ns.tolist() == [0, 100_000_000, 200_000_000, 300_000_000]


def test_missing_times_are_decoding_times_where_nothing_is_reordered() -> None:
    shown = presented(table([0, 1, None, 3]), reorders=False)
    assert shown.times_ns.tolist() == [0, 100_000_000, 200_000_000, 300_000_000]
    assert shown.filled == 1


def test_missing_times_among_reordered_frames_are_refused() -> None:
    with pytest.raises(RefusedInput) as caught:
        presented(table([0, 3, None, 2]))
    assert caught.value.reason is Reason.TIMESTAMPS_MISSING


def test_a_container_without_presentation_times_is_timed_by_order() -> None:
    shown = presented(table([None] * 4), avi=True)
    assert shown.by_order
    assert shown.rank.tolist() == [0, 1, 2, 3]


def test_a_start_beyond_any_clock_is_refused() -> None:
    with pytest.raises(RefusedInput, match="beyond any clock"):
        presented(table([2**62, 2**62 + 1]))


def needed(pictures: list[int], pts: list[int], picks: list[int]) -> str:
    """The plan as a string: x fed, . dropped, | before each run."""
    packets = table(list(pts), pictures)
    plan = plan_decoding(packets, presented(packets), np.array(picks, np.int64))
    begins = {run.start for run in plan.runs}
    return "".join(
        "|" * (i in begins) + ("x" if fed else ".") for i, fed in enumerate(plan.feed.tolist())
    )


R, D, OPEN = Picture.RESTART, Picture.DISPOSABLE, Picture.OPEN_RESTART


def test_disposable_pictures_are_fed_only_when_picked() -> None:
    assert needed([R, NONE, D, D], [0, 3, 1, 2], [3]) == "|xx.."
    assert needed([R, NONE, D, D], [0, 3, 1, 2], [2]) == "|xx.x"


def test_nothing_is_fed_after_the_last_pick_before_a_restart() -> None:
    assert needed([R, NONE, NONE, R, NONE], [0, 1, 2, 3, 4], [1, 3]) == "|xx.|x."
    assert needed([R, NONE, NONE, R, NONE], [0, 1, 2, 3, 4], [4]) == "...|xx"


def test_an_open_restart_counts_unless_a_leading_picture_is_picked() -> None:
    pictures, pts = [R, NONE, OPEN, D, NONE], [0, 1, 3, 2, 4]
    assert needed(pictures, pts, [1, 4]) == "|xx|x.x"
    assert needed(pictures, pts, [2, 4]) == "|xxxxx"


def test_a_restart_that_the_times_contradict_is_not_believed() -> None:
    assert needed([R, NONE, R, NONE], [0, 3, 1, 4], [0, 3]) == "|xxxx"


def test_layers_are_disposable_only_at_the_top() -> None:
    top = D | 1 << LAYER_SHIFT
    assert needed([R, NONE, D, top], [0, 3, 2, 1], [3]) == "|xx.."
    assert needed([R, NONE, D, top], [0, 3, 2, 1], [1, 3]) == "|xxxx"


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_pick_is_fed_with_all_it_may_refer_to(data: st.DataObject) -> None:
    """The slow rule: from its restart on, everything before a pick that is not disposable is fed."""
    kinds = data.draw(st.lists(st.sampled_from([R, NONE, D]), min_size=1, max_size=30))
    kinds[0] = R
    n = len(kinds)
    picks = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    packets = table(list(range(n)), [int(kind) for kind in kinds])
    plan = plan_decoding(packets, presented(packets), np.array(picks))
    for pick in picks:
        start = max(i for i in range(pick + 1) if kinds[i] & R)
        must = [i for i in range(start, pick + 1) if not kinds[i] & D or i in picks]
        assert plan.feed[must].all()
        assert sum(run.start <= pick < run.stop for run in plan.runs) == 1
    assert not plan.feed[[i for i in range(n) if kinds[i] & D and i not in picks]].any()


def test_discarded_and_hidden_pictures_are_not_shown() -> None:
    packets = table([0, 1, 2], [R, Picture.HIDDEN, NONE])
    assert presented(packets).rank.tolist() == [0, NOT_SHOWN, 1]


# --- Matroska --------------------------------------------------------------------------------------------


def element(identifier: str, content: bytes) -> bytes:
    return bytes.fromhex(identifier) + (len(content) | 1 << 56).to_bytes(8, "big") + content


@pytest.mark.parametrize(
    ("between", "hidden"),
    [
        (b"", False),
        (element("ec", bytes(500)), False),
        (element("1c53bb6b", bytes(90)) + element("ec", b""), False),
        (bytes.fromhex("1f43b67501ffffffffffffff") + element("e7", b"\1"), False),
        (element("a3", b"\x81\0\0\0 a frame that no packet holds"), True),
        (bytes(300), True),
        (element("ec", bytes(500))[:-3], True),
    ],
    ids=["nothing", "padding", "cues", "a new cluster", "a block", "zeros", "a torn element"],
)
def test_only_elements_without_frames_may_lie_between_two_blocks(
    between: bytes, hidden: bool
) -> None:
    block = element("a3", b"\x81\0\0\0" + b"picture")
    data = block + between + block
    last = len(data) - len(b"\x81\0\0\0picture")
    assert hides_frames(lambda at, count: data[at : at + count], 9, last) is hidden
