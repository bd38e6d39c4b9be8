"""The `mcap` reader: topics of ROS 2 and Foxglove, on one clock."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.mcap_files import (
    EVERY_MS,
    LATE_NS,
    MS,
    Cdr,
    Message,
    at,
    coded,
    grey,
    image,
    joy,
    json_image,
    json_joy,
    moving,
    twist,
    video,
    write,
)
from makers.readings import frames_of, the_recording

from wham_data.files.mcap import read_messages
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.video import encode_jpeg, encode_png
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import OpenRecording

DATA = Path(__file__).parents[2] / "data" / "mcap"
COUNT = 20
JPEGS = [bytes(encode_jpeg(grey(10 * number))) for number in range(COUNT)]
PNGS = [bytes(encode_png(grey(10 * number))) for number in range(COUNT)]
TIMES_MS = [EVERY_MS * number for number in range(COUNT)]
PICTURES = [image(ms, jpeg) for ms, jpeg in zip(TIMES_MS, JPEGS, strict=True)]
PAD = [joy(ms, [ms / 1000, -1.0], [ms // EVERY_MS % 2]) for ms in TIMES_MS]
EVENT_MS = (0, 60, 75, 1700, 1740, 1741, 2100)
EVENTS = [joy(ms, [0.0, row / 10], [row % 2]) for row, ms in enumerate(EVENT_MS)]


def levels(opened: OpenRecording) -> list[int]:
    return [round(float(frame.mean())) for frame in frames_of(opened, (64, 48))]


def refusal(path: Path, **options: str) -> RefusedInput:
    with pytest.raises(RefusedInput) as refused:
        the_recording(path, **options)
    return refused.value


def note(opened: OpenRecording, words: str) -> bool:
    return any(words in each for each in opened.notes)


# What other people's writers made.


def test_ros2_pictures_and_a_pad() -> None:
    opened = the_recording(DATA / "ros2.mcap")

    assert levels(opened) == pytest.approx([10 * number for number in range(COUNT)], abs=2)
    assert opened.frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]
    assert opened.actions is not None
    assert opened.actions.space.names == ("axes_0", "axes_1", "axes_2", "buttons_0", "buttons_1")
    assert opened.actions.values[5].tolist() == [5 / 32, -1, 1, 1, 0]
    assert opened.actions.times_ns[0] == 1000


def test_a_foxglove_video_in_protobuf() -> None:
    opened = the_recording(DATA / "foxglove.mcap")

    assert levels(opened) == pytest.approx([10 * number for number in range(COUNT)], abs=2)
    assert opened.frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]
    assert opened.actions is None


def test_a_bag_in_big_endian_order() -> None:
    opened = the_recording(DATA / "bag")

    assert levels(opened) == pytest.approx([10 * number for number in range(COUNT)], abs=2)
    assert opened.actions is not None
    assert opened.actions.values[7].tolist() == [7 / 32, 1]


# Files and encodings.


@pytest.mark.parametrize("codec", ["", "zstd", "lz4"])
def test_chunks_are_packed_or_not(tmp_path: Path, codec: str) -> None:
    write(tmp_path / "a.mcap", PICTURES, codec=codec)

    assert len(levels(the_recording(tmp_path))) == COUNT


def test_messages_need_no_chunks(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [*PICTURES, *PAD], chunked=False)

    assert levels(the_recording(tmp_path))[3] == pytest.approx(30, abs=2)


def test_pictures_and_a_pad_in_json(tmp_path: Path) -> None:
    pictures = [json_image(ms, png) for ms, png in zip(TIMES_MS, PNGS, strict=True)]
    write(tmp_path / "a.mcap", pictures + [json_joy(ms, [0.25], [1]) for ms in TIMES_MS])

    opened = the_recording(tmp_path)

    assert levels(opened) == [10 * number for number in range(COUNT)]
    assert opened.actions is not None
    assert opened.actions.values[0].tolist() == [0.25, 1]


@pytest.mark.parametrize("format", ["h264", "h265", "av1", "vp9"])
def test_each_codec_of_a_video(tmp_path: Path, format: str) -> None:
    packets = coded(format, COUNT)
    write(
        tmp_path / "a.mcap", [video(*each, format) for each in zip(TIMES_MS, packets, strict=True)]
    )

    opened = the_recording(tmp_path)

    assert levels(opened) == pytest.approx([10 * number for number in range(COUNT)], abs=2)
    assert opened.frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]


def test_messages_out_of_order_are_taken_by_their_times(tmp_path: Path) -> None:
    packets = coded("h264", COUNT)
    film = [video(*each, "h264") for each in zip(TIMES_MS, packets, strict=True)]
    late_first = [*film[10:], *reversed(PAD), *film[:10]]
    write(tmp_path / "a.mcap", late_first)

    opened = the_recording(tmp_path)

    assert levels(opened) == pytest.approx([10 * number for number in range(COUNT)], abs=2)
    assert opened.actions is not None
    assert opened.actions.values[:3, 2].tolist() == [0, 1, 0]


def test_a_file_without_its_end_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mcap", PICTURES).read_bytes()
    (tmp_path / "a.mcap").write_bytes(data[: len(data) // 2])

    opened = the_recording(tmp_path)

    assert 4 <= len(levels(opened)) < COUNT
    assert note(opened, "a.mcap has no end: read as far as it goes")


def test_the_files_of_a_bag_are_one_recording(tmp_path: Path) -> None:
    packets = coded("h264", COUNT)
    film = [video(*each, "h264") for each in zip(TIMES_MS, packets, strict=True)]
    write(tmp_path / "run" / "run_0.mcap", film[:7])  # a file ends between key frames
    write(tmp_path / "run" / "run_1.mcap", film[7:])
    (tmp_path / "run" / "metadata.yaml").write_text("rosbag2_bagfile_information:\n")

    opened = the_recording(tmp_path)

    assert levels(opened) == pytest.approx([10 * number for number in range(COUNT)], abs=2)


def test_a_file_that_a_bag_lacks_is_named(tmp_path: Path) -> None:
    for number in (0, 2):
        write(tmp_path / f"run_{number}.mcap", PICTURES[6 * number : 6 * number + 6])
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information:\n")

    assert note(the_recording(tmp_path), "files of the bag not there: number 1")


def test_files_without_a_bags_metadata_are_recordings_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "run_0.mcap", PICTURES)
    write(tmp_path / "run_1.mcap", PICTURES)

    assert len(discover([tmp_path]).recordings) == 2


def test_files_that_are_named_alike_are_recordings_of_their_own(tmp_path: Path) -> None:
    for name in ("run.mcap", "run.copy", "run_0.mcap"):
        write(tmp_path / name, PICTURES)
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information:\n")

    assert [each.path.name for each in discover([tmp_path]).recordings] == [
        "run.copy",
        "run.mcap",
        "run_0.mcap",
    ]


def test_a_profile_of_open_world_agents_is_left_to_its_own_reader(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", PICTURES, profile="owa")

    assert not discover([tmp_path], "mcap").recordings


# Clocks.


def test_stamps_count_not_when_messages_were_recorded(tmp_path: Path) -> None:
    slow = [
        image(ms, jpeg, late_ns=LATE_NS + ms % 7 * MS)
        for ms, jpeg in zip(TIMES_MS, JPEGS, strict=True)
    ]
    write(tmp_path / "a.mcap", [*slow, *PAD])

    opened = the_recording(tmp_path)

    assert opened.frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]
    assert opened.actions is not None
    assert opened.actions.times_ns.tolist() == [ms * MS for ms in TIMES_MS]


def test_times_can_be_those_of_the_recorder(tmp_path: Path) -> None:
    write(
        tmp_path / "a.mcap", [*PICTURES, *(replace(each, log_ns=each.log_ns + MS) for each in PAD)]
    )

    opened = the_recording(tmp_path, times="log")

    assert opened.actions is not None
    assert opened.actions.times_ns[0] == MS


@pytest.mark.parametrize(
    ("pictures", "why"),
    [
        ({"shift_ns": -at(0)}, "1 of 20 messages of /camera have no stamp"),
        (
            {"shift_ns": 90_000 * 10**9},
            "stamps of /camera and /joy are of two clocks, 90000 s apart",
        ),
    ],
)
def test_stamps_of_another_clock_are_not_used(
    tmp_path: Path, pictures: dict[str, int], why: str
) -> None:
    film = [image(ms, jpeg, **pictures) for ms, jpeg in zip(TIMES_MS, JPEGS, strict=True)]
    write(tmp_path / "a.mcap", [*film, *PAD])

    opened = the_recording(tmp_path)

    assert note(opened, f"times are log_time: {why}")
    assert opened.frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]
    assert opened.actions is not None
    assert opened.actions.times_ns[0] == 0


def test_a_topic_that_is_recorded_much_later_than_the_other_is_told(tmp_path: Path) -> None:
    slow = [image(ms, jpeg, late_ns=305 * MS) for ms, jpeg in zip(TIMES_MS, JPEGS, strict=True)]
    write(tmp_path / "a.mcap", [*slow, *PAD])

    opened = the_recording(tmp_path)

    assert note(opened, "suspicious: /camera and /joy are recorded 0.305 and 0.005 s after their")
    assert opened.actions is not None
    assert opened.actions.times_ns[0] == 0


def test_stamps_of_a_simulation_count_as_well(tmp_path: Path) -> None:
    def simulated(message: Message, ms: float) -> Message:
        return replace(message, log_ns=at(1000 + 3 * ms))

    film = [simulated(*each) for each in zip(PICTURES, TIMES_MS, strict=True)]
    write(
        tmp_path / "a.mcap",
        [*film, *(simulated(*each) for each in zip(PAD, TIMES_MS, strict=True))],
    )

    assert the_recording(tmp_path).frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]


def test_stamps_that_run_back_are_not_used(tmp_path: Path) -> None:
    film = [
        image(ms, jpeg, shift_ns=-5 * 10**9 * (ms > 400))
        for ms, jpeg in zip(TIMES_MS, JPEGS, strict=True)
    ]
    write(tmp_path / "a.mcap", film)

    opened = the_recording(tmp_path)

    assert note(opened, "times are log_time: stamps of /camera run back by 4.95 s")
    assert opened.frame_times_ns.tolist() == [ms * MS for ms in TIMES_MS]


def test_pictures_at_one_time_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [*PICTURES, PICTURES[3]])

    opened = the_recording(tmp_path)

    assert len(opened.frame_times_ns) == COUNT
    assert note(opened, "1 pictures at the time of another: left out")


def test_a_pad_of_another_time_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [*PICTURES, *(joy(ms + 60_000, [0.5], [1]) for ms in TIMES_MS)])

    assert refusal(tmp_path).reason == Reason.LOG_CLOCK


# Topics.


def test_one_of_several_topics_has_to_be_chosen(tmp_path: Path) -> None:
    left = [image(ms, JPEGS[0], topic="/left") for ms in TIMES_MS]
    write(tmp_path / "a.mcap", [*left, *PICTURES])

    assert str(refusal(tmp_path)) == (
        "2 picture topics: /left, /camera; choose one with --option topic=/left"
    )
    assert levels(the_recording(tmp_path, topic="/camera"))[5] == pytest.approx(50, abs=2)


def test_a_topic_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", PICTURES)

    assert str(refusal(tmp_path, topic="/cam")) == (
        "no picture topic /cam (--option topic); topics: "
        "/camera (sensor_msgs/msg/CompressedImage, jpeg)"
    )


def test_a_map_of_distances_is_no_picture(tmp_path: Path) -> None:
    depth = [image(ms, PNGS[0], "16UC1; compressedDepth png", topic="/depth") for ms in TIMES_MS]
    write(tmp_path / "a.mcap", [*depth, *PICTURES])

    assert note(the_recording(tmp_path), "pictures of /camera")


def test_of_several_pads_one_has_to_be_chosen(tmp_path: Path) -> None:
    second = [joy(ms, [1.0], [0], topic="/joy2") for ms in TIMES_MS]
    write(tmp_path / "a.mcap", [*PICTURES, *PAD, *second])

    assert "--option control_topic=/joy" in str(refusal(tmp_path))
    opened = the_recording(tmp_path, control_topic="/joy2")
    assert opened.actions is not None
    assert opened.actions.values[0].tolist() == [1, 0]


def test_a_twist_is_taken_where_there_is_no_pad(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [*PICTURES, *(twist(ms, ms / 100, -7.5) for ms in TIMES_MS)])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.space.name == "twist"
    assert opened.actions.values[10].tolist() == [5, 0, 0, 0, 0, -7.5]
    assert note(opened, "times are log_time: 20 of 20 messages of /cmd_vel have no stamp")


def test_a_pad_comes_before_a_twist_which_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [*PICTURES, *PAD, *(twist(ms, 1, 1) for ms in TIMES_MS)])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.space.name == "joy_2_1"
    assert note(opened, "left out: /cmd_vel (--option control_topic=NAME)")


def test_a_pad_without_pictures_gives_actions_only(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", PAD)

    opened = the_recording(tmp_path)

    assert opened.pictureless
    assert opened.actions is not None
    assert len(opened.actions.times_ns) == COUNT


# Actions.


def test_axes_and_buttons_stay_as_they_are_where_nobody_names_them(tmp_path: Path) -> None:
    half = [joy(ms, [1.0, 0.0 if ms < 500 else 0.5], [0]) for ms in TIMES_MS]
    write(tmp_path / "a.mcap", [*PICTURES, *half])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.values[[0, -1]].tolist() == [[1, 0, 0], [1, 0.5, 0]]


MAPPING = """
actions = "xinput16"
game = "a race"
at_rest = true
[columns]
axes_0 = { is = "left_stick_x", invert = true }
axes_1 = { is = "left_stick_y", invert = true }
buttons_0 = "button_A"
"""


def test_a_file_beside_it_says_what_the_numbers_mean(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [*PICTURES, *PAD])
    (tmp_path / "a.toml").write_text(MAPPING)

    (found,) = discover([tmp_path]).recordings
    opened = open_recording(found)

    assert found.provenance.game == "a race"
    assert opened.actions is not None
    space = opened.actions.space
    assert space.name == "xinput16"
    row = opened.actions.values[11]
    assert row[space.index("left_stick_x")] == pytest.approx(-0.55)
    assert row[space.index("left_stick_y")] == 1
    assert row[space.index("button_A")] == 1
    assert np.count_nonzero(row) == 3


def test_one_file_may_say_it_for_all(tmp_path: Path) -> None:
    write(tmp_path / "bags" / "a.mcap", [*PICTURES, *PAD])
    (tmp_path / "pad.toml").write_text(MAPPING)

    opened = the_recording(tmp_path / "bags", pad=str(tmp_path / "pad.toml"))

    assert opened.actions is not None
    assert opened.actions.space.name == "xinput16"


def test_the_pad_of_the_documentation_is_read_in_the_space_it_names(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/formats/mcap.md").read_text()
    (tmp_path / "a.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    axes = [-0.5, 1.0, 0.0, 0.0, 1.0, -1.0]
    buttons = [number in (0, 14) for number in range(15)]
    write(tmp_path / "a.mcap", [*PICTURES, *(joy(ms, axes, buttons) for ms in TIMES_MS)])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    row = dict(zip(opened.actions.space.names, opened.actions.values[3].tolist(), strict=True))
    assert {name: value for name, value in row.items() if value} == {
        "right": 1,
        "a": 1,
        "right_trigger": 1,
        "left_x": 0.5,
        "left_y": 1,
    }


def test_the_metadata_of_a_video_are_left_to_it(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", PICTURES)
    (tmp_path / "a.toml").write_text(MAPPING)
    (tmp_path / "a.mp4").write_bytes(b"a video")

    (found,) = discover([tmp_path], "mcap").recordings

    assert found.provenance.game is None


def test_a_pad_that_tells_of_changes_only_holds_until_the_next(tmp_path: Path) -> None:
    film = [image(EVERY_MS * number, JPEGS[0]) for number in range(60)]
    write(tmp_path / "a.mcap", [*film, *EVENTS])

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert not opened.actions.sampled
    assert opened.actions.end_ns == opened.frame_end_ns
    assert note(opened, "each row holds until the next")


def test_a_pad_that_tells_nothing_at_the_end_is_known_to_hold_if_somebody_says_so(
    tmp_path: Path,
) -> None:
    film = [image(EVERY_MS * number, JPEGS[0]) for number in range(60)]
    write(tmp_path / "a.mcap", [*film, joy(0, [0.0], [0]), joy(300, [0.5], [1])])

    why = refusal(tmp_path)
    assert why.reason == Reason.LOG_COVERAGE
    assert "nothing of the controls in the last 2.7 s: not known (hold = true" in str(why)

    (tmp_path / "a.toml").write_text("hold = true")
    opened = the_recording(tmp_path)
    assert opened.actions is not None
    assert opened.actions.end_ns == opened.frame_end_ns


def test_a_trigger_that_its_driver_did_not_know_at_first_is_told(tmp_path: Path) -> None:
    trigger = {0: 0.0, 400: 0.5, 450: -1.0, 500: 0.2}
    told = [joy(ms, [trigger.get(ms, 0.0 if ms < 400 else 1.0)], [0]) for ms in TIMES_MS]
    write(tmp_path / "a.mcap", [*PICTURES, *told])

    assert note(the_recording(tmp_path), "axes_0 is 0 until 0.4 s and never again, and rests at 1")


# Damage and what is not read.


def test_a_video_that_begins_between_key_frames_is_read_from_the_next(tmp_path: Path) -> None:
    packets = coded("h264", COUNT)
    film = [video(*each, "h264") for each in zip(TIMES_MS, packets, strict=True)]
    write(tmp_path / "a.mcap", film[3:])

    opened = the_recording(tmp_path)

    assert levels(opened)[0] == pytest.approx(100, abs=2)
    assert opened.frame_times_ns[0] == 7 * EVERY_MS * MS


def test_pictures_that_build_on_a_lost_message_are_not_taken(tmp_path: Path) -> None:
    packets = coded("h264", COUNT, moving)
    film = [video(*each, "h264") for each in zip(TIMES_MS, packets, strict=True)]
    write(tmp_path / "a.mcap", film[:3] + film[4:])

    with pytest.raises(RefusedInput) as refused:
        levels(the_recording(tmp_path))

    assert refused.value.reason in (Reason.CORRUPT, Reason.TRUNCATED)


def test_where_the_codec_does_not_tell_of_lost_messages_silences_are_noted(tmp_path: Path) -> None:
    packets = coded("vp9", COUNT, moving)
    film = [video(*each, "vp9") for each in zip(TIMES_MS, packets, strict=True)]
    write(tmp_path / "a.mcap", film[:3] + film[4:])

    assert note(the_recording(tmp_path), "suspicious: 1 silences of more than 1.5 frames")


def test_a_picture_that_cannot_be_decoded_is_counted_as_lost(tmp_path: Path) -> None:
    broken = image(TIMES_MS[4], JPEGS[4][:100])
    film = [image(EVERY_MS * n, JPEGS[n % COUNT]) for n in range(400)]
    write(tmp_path / "a.mcap", [*film[:4], broken, *film[5:]])

    opened = the_recording(tmp_path)
    frames_of(opened, (64, 48))

    assert opened.lost_frames().tolist() == [4]


def shorter(message: Message) -> Message:
    return replace(message, data=message.data[:-20])


def longer(message: Message) -> Message:
    return replace(message, data=message.data + bytes(20))


def claiming(size: int) -> Message:
    data = Cdr().stamp(at(0)).text("").numbers("I", size).bytes()
    return replace(PAD[0], data=data)


UNSURE = Message("/x", "std_msgs/msg/String", "cdr", at(0), Cdr().text("a").bytes())
PROTO = replace(PICTURES[0], schema="foxglove.CompressedImage", encoding="protobuf")


@pytest.mark.parametrize(
    ("messages", "reason", "words"),
    [
        ([replace(UNSURE, schema="msg")], Reason.NO_FRAMES, "topics: /x (msg)"),
        ([UNSURE], Reason.NO_FRAMES, "topics: /x (std_msgs/msg/String)"),
        ([], Reason.LOG_EMPTY, "no messages"),
        ([shorter(PICTURES[0])], Reason.LOG_SYNTAX, "/camera, message 1: a message of"),
        ([*PICTURES[:3], longer(PICTURES[3])], Reason.LOG_SYNTAX, "/camera, message 4: "),
        ([*PICTURES, claiming((1 << 32) - 1)], Reason.LOG_SYNTAX, "/joy, message 1: "),
        (
            [replace(PICTURES[0], encoding="ros1")],
            Reason.FORMAT_NOT_ALLOWED,
            "'ros1', expected cdr",
        ),
        ([PROTO], Reason.LOG_SYNTAX, "does not define the fields of foxglove.CompressedImage"),
        ([replace(PROTO, encoding="json")], Reason.LOG_ENCODING, "/camera, message 1: "),
        ([image(0, JPEGS[0], "webp")], Reason.UNSUPPORTED_CODEC, "'webp', expected jpeg or png"),
        ([video(0, b"123", "theora")], Reason.UNSUPPORTED_CODEC, "'theora', expected h264"),
        ([*PICTURES, image(1000, PNGS[0], "png")], Reason.FORMAT_NOT_ALLOWED, "two formats"),
        ([*PICTURES, *PAD, joy(990, [0.0], [1])], Reason.LOG_COLUMN, "two pads on one topic?"),
        ([*PICTURES, joy(0, [], [])], Reason.LOG_COLUMN, "neither axes nor buttons"),
        ([*PICTURES, joy(0, [0.0] * 600, [])], Reason.TOO_LARGE, "600 axes"),
        ([*PICTURES, *(joy(ms, [0.0], [7]) for ms in TIMES_MS)], Reason.LOG_RANGE, "buttons_0"),
        (
            [*PICTURES, replace(UNSURE, topic="/camera")],
            Reason.LOG_TYPE,
            "std_msgs/msg/String in cdr",
        ),
        ([video(0, b"\0\0\1\x65", "h264"), video(50, b"x", "h264")], Reason.NO_FRAMES, ""),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(
    tmp_path: Path, messages: list[Message], reason: Reason, words: str
) -> None:
    write(tmp_path / "a.mcap", messages)

    why = refusal(tmp_path)

    assert why.reason == reason
    assert words in str(why)


def test_a_chunk_that_is_damaged_is_refused(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.mcap", PICTURES).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.mcap").write_bytes(data)

    assert refusal(tmp_path).reason == Reason.CORRUPT


def test_a_time_beyond_any_clock_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", [replace(PICTURES[0], log_ns=1 << 63)])

    assert refusal(tmp_path).reason == Reason.LOG_CLOCK


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.mcap", b"\x89MCAP0\r\n" + struct.pack("<B", 1), Reason.TRUNCATED),
        ("a.mcap.zstd", b"\x28\xb5\x2f\xfd", Reason.FORMAT_NOT_ALLOWED),
    ],
)
def test_a_file_that_is_not_whole_or_packed_is_refused(
    tmp_path: Path, name: str, data: bytes, reason: Reason
) -> None:
    (tmp_path / name).write_bytes(data)

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason == reason


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mcap", PICTURES)
    opened = the_recording(tmp_path)
    shutil.copy(write(tmp_path / "b.mcap", PICTURES[:2]), path)

    with pytest.raises(RefusedInput) as refused:
        levels(opened)

    assert refused.value.reason == Reason.CHANGED_WHILE_READ


def test_messages_name_how_they_are_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mcap", [replace(PICTURES[0], definition=b"string x")])

    (message,) = read_messages(path)

    assert (message.topic, message.encoding, message.definition) == ("/camera", "cdr", b"string x")
