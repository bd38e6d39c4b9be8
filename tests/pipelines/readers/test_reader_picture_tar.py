"""The reader `picture-tar`: tar files of pictures with the action of each beside it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.commands import ROOT
from makers.readings import frames_of, recordings_in
from PIL import Image

from wham_data.files.tar_file import tar_places
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.video import encode_jpeg, encode_png
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput, UsageError
from wham_data.schemas.recording import OpenRecording

SIZE = (32, 24)
BY_WEBDATASET = ROOT / "tests/data/picture_tar/written_by_webdataset.tar"


def grey(level: int, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    return np.full((size[1], size[0], 3), level, np.uint8)


def png(level: int, size: tuple[int, int] = SIZE) -> bytes:
    return encode_png(grey(level, size))


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tar_of(path: Path, files: Mapping[str, bytes | str], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5  # a part of a second needs a pax header, as WebDataset writes
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count: int, ending: str, of: Any, prefix: str = "") -> dict[str, bytes | str]:
    """Pictures of the greys 0, 10, 20, ... with what `of(i)` gives beside each."""
    files: dict[str, bytes | str] = {}
    for i in range(count):
        files |= {f"{prefix}{i:04d}.png": png(10 * i), f"{prefix}{i:04d}.{ending}": of(i)}
    return files


def opened(path: Path, target: str | None = None, **options: str) -> OpenRecording:
    """The only recording of a tar file."""
    options = {"frame_rate": "20", **options}
    found = discover([path], "picture-tar", options)
    if found.refused:
        raise found.refused[0][1]
    (recording,) = found.recordings
    return open_recording(
        recording, options=options, target=None if target is None else load_space(target)
    )


def refusal(path: Path, **options: str) -> RefusedInput:
    with pytest.raises(RefusedInput) as refused:
        frames_of(opened(path, **options), SIZE)
    return refused.value


def pressed(recording: OpenRecording) -> list[str]:
    assert recording.actions is not None
    names = recording.actions.space.names
    return [names[row.argmax()] for row in recording.actions.values]


# What is read


def test_a_tar_file_that_webdataset_wrote_is_read() -> None:
    options = {"frame_rate": "20"}
    found = discover([BY_WEBDATASET], "auto", options)
    assert [each.part for each in found.recordings] == ["ep0", "ep1"]

    for episode, recording in enumerate(found.recordings):
        read = open_recording(recording, options=options, target=load_space("discrete3"))
        shown = frames_of(read, SIZE)[:, 0, 0, 0].tolist()
        assert shown == [100 * episode, 100 * episode + 10, 100 * episode + 20]
        assert pressed(read) == [f"action_{(i + episode) % 3}" for i in range(3)]
        assert read.frame_times_ns.tolist() == [0, 50_000_000, 100_000_000]


@pytest.mark.parametrize(
    ("format", "prefix"),
    [
        (tarfile.PAX_FORMAT, ""),
        (tarfile.GNU_FORMAT, ""),
        (tarfile.USTAR_FORMAT, ""),
        (tarfile.PAX_FORMAT, "é" * 60 + "/"),
        (tarfile.GNU_FORMAT, "x" * 150 + "/"),
        (tarfile.USTAR_FORMAT, "x" * 100 + "/"),
        (tarfile.GNU_FORMAT, "./"),
    ],
)
def test_every_kind_of_tar_file_is_read(tmp_path: Path, format: int, prefix: str) -> None:
    files = samples(3, "cls", str, prefix)
    if format == tarfile.USTAR_FORMAT:
        with tarfile.open(tmp_path / "a.tar", "w", format=format) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                data = content if isinstance(content, bytes) else content.encode()
                tar.addfile(info, io.BytesIO(data))
    else:
        tar_of(tmp_path / "a.tar", files, format)

    assert pressed(opened(tmp_path / "a.tar", "discrete3")) == ["action_0", "action_1", "action_2"]
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert list(tar_places(tmp_path / "a.tar")) == [
            member.name.removeprefix("./") for member in tar.getmembers()
        ]


def test_folders_in_a_tar_file_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    for name, content in samples(2, "cls", str).items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "e" / name).write_bytes(data)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "e", "e", recursive=False)
        for path in sorted((tmp_path / "e").iterdir()):
            tar.add(path, f"e/{path.name}")

    assert pressed(opened(tmp_path / "a.tar", "discrete2")) == ["action_0", "action_1"]


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "jpeg", "webp", "lossless.webp", "alpha.webp", "PNG"]
)
def test_every_kind_of_picture_is_read(tmp_path: Path, ending: str) -> None:
    colours = np.zeros((24, 32, 3), np.uint8)
    colours[:, :16], colours[:, 16:] = (200, 40, 60), (20, 90, 220)
    stream = io.BytesIO()
    if ending == "alpha.webp":
        alpha = np.full((24, 32, 1), 128, np.uint8)
        Image.fromarray(np.concatenate([colours, alpha], axis=2)).save(
            stream, "webp", lossless=True, exact=True
        )
    elif ending.endswith("webp"):
        lossless = ending.startswith("lossless")
        Image.fromarray(colours).save(stream, "webp", lossless=lossless, quality=95)
    else:
        stream.write(encode_png(colours) if ending.lower() == "png" else encode_jpeg(colours))
    path = tar_of(tmp_path / "a.tar", {f"0.{ending}": stream.getvalue(), "0.cls": "0"})

    shown = frames_of(opened(path, "discrete2"), SIZE)[0]

    near = 0 if ending in ("png", "PNG", "lossless.webp", "alpha.webp") else 6
    for column in (4, 28):  # away from the edge, whose colour a coder blurs
        assert np.abs(shown[:, column].astype(int) - colours[:, column]).max() <= near


def test_a_webp_that_moves_is_not_decoded(tmp_path: Path) -> None:
    stream = io.BytesIO()
    one, other = (Image.fromarray(grey(level)) for level in (0, 200))
    one.save(stream, "webp", save_all=True, append_images=[other], duration=100)
    path = tar_of(tmp_path / "a.tar", {"0.webp": stream.getvalue(), "0.cls": "0"})

    assert refusal(path, action="none").reason is Reason.CORRUPT


# What an action is


def test_class_numbers_are_actions_of_the_corpus_space(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", samples(4, "cls", lambda i: f"{i + 1}\n"))

    assert pressed(opened(path, "procgen15")) == ["LEFT", "LEFT_UP", "DOWN", "NOOP"]
    assert pressed(opened(path, space="atari18")) == ["FIRE", "UP", "RIGHT", "LEFT"]


@pytest.mark.parametrize("target", [None, "xinput"])
def test_class_numbers_need_a_space_of_buttons(tmp_path: Path, target: str | None) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "cls", str))

    with pytest.raises(RefusedInput, match="--actions atari18") as refused:
        opened(path, target)
    assert refused.value.reason is Reason.LOG_TYPE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9", Reason.LOG_RANGE),
        ("-1", Reason.LOG_TYPE),
        ("cat", Reason.LOG_TYPE),
        ("", Reason.LOG_TYPE),
    ],
)
def test_what_is_no_class_is_refused(tmp_path: Path, text: str, reason: Reason) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "cls", lambda i: text if i else "0"))

    assert refusal(path, space="discrete3").reason is reason


@pytest.mark.parametrize("order", ["C", "F"])
def test_vectors_keep_their_numbers(tmp_path: Path, order: Any) -> None:
    vectors = np.arange(24.0).reshape(4, 2, 3) * 7 - 50
    path = tar_of(
        tmp_path / "a.tar", samples(4, "npy", lambda i: npy(np.array(vectors[i], order=order)))
    )

    actions = opened(path).actions

    assert actions is not None
    assert actions.space == load_space("numbers6")
    assert (actions.values == vectors.reshape(4, 6)).all()


def test_a_declared_space_gives_vectors_names_and_ranges(tmp_path: Path) -> None:
    def vector(i: int) -> bytes:
        return npy(np.array([0.5, 1.04, -i], np.float32))

    path = tar_of(tmp_path / "a.tar", samples(2, "npy", vector))

    actions = opened(path, space="vector3").actions

    assert actions is not None
    assert actions.values.tolist() == [[0.5, 1.0, 0.0], [0.5, 1.0, -1.0]]
    assert actions.clamped == 2
    assert refusal(path, space="vector4").reason is Reason.LOG_COLUMN


def test_a_single_whole_number_in_an_array_is_a_class(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", samples(3, "npy", lambda i: npy(np.int64(i))))

    assert pressed(opened(path, "discrete3")) == ["action_0", "action_1", "action_2"]


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "npy", lambda _: npy(np.array([{}, None]))))

    assert refusal(path).reason is Reason.PICKLED_OBJECTS


@pytest.mark.parametrize(
    "content",
    [
        npy(np.zeros((2, 2, 2))),
        npy(np.zeros(2000)),
        npy(np.zeros(0)),
        npy(np.array(["a"])),
        npy(np.zeros(4))[:-8],
        npy(np.zeros(4)) + b"more",
        b"no array",
    ],
)
def test_an_array_that_is_no_vector_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "npy", lambda _: content))

    assert refusal(path).reason in (Reason.LOG_TYPE, Reason.TRUNCATED, Reason.ARCHIVE_CORRUPT)


@pytest.mark.parametrize(
    "content",
    [{"action": [1, 0.5]}, {"actions": [1, 0.5]}, {"a": {"b": [1, 0.5]}, "action": 3}],
)
def test_a_list_in_json_is_a_vector(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "json", lambda _: json.dumps(content)))

    actions = opened(path, **({"field": "a/b"} if "a" in content else {})).actions

    assert actions is not None
    assert actions.space == load_space("numbers2")
    assert actions.values.tolist() == [[1, 0.5], [1, 0.5]]


@pytest.mark.parametrize("field", [True, False])
def test_numbers_with_names_are_dimensions(tmp_path: Path, field: bool) -> None:
    def named(i: int) -> str:
        values = {"jump": i == 1, "steering angle": 40.0 * i}
        return json.dumps({"action": values, "note": "a"} if field else values)

    actions = opened(tar_of(tmp_path / "a.tar", samples(3, "json", named))).actions

    assert actions is not None
    assert [(each.name, each.kind) for each in actions.space.dimensions] == [
        ("jump", "button"),
        ("steering_angle", "axis"),
    ]
    assert actions.values.tolist() == [[0, 0], [1, 40], [0, 80]]


def test_names_of_a_known_space_are_that_space_in_any_order(tmp_path: Path) -> None:
    space = load_space("xinput")
    values = {name: i / 100 for i, name in enumerate(reversed(space.names))}
    values |= {space.dimensions[i].name: 1 for i in space.of_kind("button")}
    path = tar_of(tmp_path / "a.tar", samples(2, "json", lambda _: json.dumps(values)))

    actions = opened(path).actions

    assert actions is not None
    assert actions.space == space
    assert actions.values[0].tolist() == [values[name] for name in space.names]


def test_actions_of_different_forms_are_refused(tmp_path: Path) -> None:
    def other(i: int) -> str:
        return json.dumps({"action": [0.5] * (2 + (i == 2))})

    why = refusal(tar_of(tmp_path / "a.tar", samples(3, "json", other)))

    assert why.reason is Reason.LOG_COLUMN
    assert "frame 2" in why.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"label": "cat", "x": 1}', Reason.LOG_COLUMN),
        ('{"action": "left"}', Reason.LOG_TYPE),
        ('{"action": true}', Reason.LOG_TYPE),
        ('{"action": []}', Reason.LOG_TYPE),
        ('{"action": [1, "a"]}', Reason.LOG_TYPE),
        ('{"action": {"a": [1]}}', Reason.LOG_TYPE),
        ("[1, 2", Reason.LOG_SYNTAX),
        ("[" * 5000, Reason.LOG_SYNTAX),
    ],
)
def test_a_json_without_an_action_is_refused(tmp_path: Path, content: str, reason: Reason) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "json", lambda _: content))

    assert refusal(path).reason is reason


def test_an_action_acts_after_its_frame_unless_the_user_says_that_it_led_to_it(
    tmp_path: Path,
) -> None:
    path = tar_of(tmp_path / "a.tar", samples(3, "cls", str))

    after, led = opened(path, "discrete3"), opened(path, "discrete3", timing="leads")

    assert pressed(after) == ["action_0", "action_1", "action_2"]
    assert pressed(led)[:2] == ["action_1", "action_2"]
    assert led.actions is not None
    assert np.isnan(led.actions.values[2]).all()


def test_only_the_last_frame_of_an_episode_may_lack_its_action(tmp_path: Path) -> None:
    files = samples(3, "cls", str)
    del files["0002.cls"]
    actions = opened(tar_of(tmp_path / "a.tar", files), "discrete3").actions
    assert actions is not None
    assert np.isnan(actions.values).all(axis=1).tolist() == [False, False, True]

    files = samples(3, "cls", str)
    del files["0001.cls"]
    why = refusal(tar_of(tmp_path / "b.tar", files), space="discrete3")
    assert why.reason is Reason.LOG_MISSING
    assert "0001.cls" in why.message


# What must be said


def test_without_a_rate_a_tar_file_is_refused_with_the_option(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", samples(2, "cls", str))

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.TIMESTAMPS_MISSING
    assert "--option frame_rate=30" in why.message
    with pytest.raises(UsageError, match="a rate in Hz"):
        discover([tmp_path], options={"frame_rate": "fast"})


def test_two_pictures_of_a_key_are_named_and_one_is_chosen(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for i in range(2):
        files |= {f"{i}.left.png": png(10), f"{i}.right.png": png(20), f"{i}.cls": "0"}
    path = tar_of(tmp_path / "a.tar", files)

    why = refusal(path)
    assert why.reason is Reason.METADATA
    assert ".left.png, .right.png" in why.message
    assert "--option picture=left.png" in why.message
    assert frames_of(opened(path, "discrete2", picture="right.png"))[0, 0, 0, 0] == 20
    assert ".left.png" in refusal(path, picture="front.png").message


def test_two_actions_of_a_key_are_named_and_one_is_chosen(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for i in range(2):
        files |= {
            f"{i}.png": png(10),
            f"{i}.json": '{"caption": "a"}',
            f"{i}.action.npy": npy([0.5, 2]),
        }
    path = tar_of(tmp_path / "a.tar", files)

    why = refusal(path)
    assert why.reason is Reason.METADATA
    assert "--option action=" in why.message
    actions = opened(path, action="action.npy").actions
    assert actions is not None
    assert actions.values.tolist() == [[0.5, 2], [0.5, 2]]


def test_pictures_without_actions_are_read_only_if_asked_for(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", samples(2, "txt", lambda i: f"caption {i}"))

    assert refusal(path).reason is Reason.LOG_MISSING
    assert opened(path, action="none").actions is None


# Episodes


def grouped(folder: Path, **options: str) -> dict[str, list[int]]:
    """The greys of each recording."""
    options = {"frame_rate": "20", "space": "discrete9", **options}
    return {
        name.partition("#")[2]: frames_of(each, SIZE)[:, 0, 0, 0].tolist()
        for name, each in recordings_in(folder, "picture-tar", **options).items()
    }


def test_folders_are_episodes_and_prefixes_and_else_the_whole_tar(tmp_path: Path) -> None:
    for name, prefixes in {"a": ("x/", "y/z/"), "b": ("e0_", "e1-"), "c": ("",)}.items():
        (tmp_path / name).mkdir()
        files: dict[str, bytes | str] = {}
        for prefix in prefixes:
            files |= samples(2, "cls", str, prefix)
        tar_of(tmp_path / name / "a.tar", files)

    assert grouped(tmp_path / "a") == {"x": [0, 10], "y/z": [0, 10]}
    assert grouped(tmp_path / "b") == {"e0": [0, 10], "e1": [0, 10]}
    assert grouped(tmp_path / "c") == {"": [0, 10]}
    assert grouped(tmp_path / "b", episodes="tar", numbers="ignore") == {"": [0, 10, 0, 10]}
    note = next(iter(recordings_in(tmp_path / "b", frame_rate="20", space="discrete9").values()))
    assert (
        "an episode is what stands before the number of the key (--option episodes)" in note.notes
    )


def test_a_field_of_the_json_names_the_episode(tmp_path: Path) -> None:
    def said(i: int) -> str:
        return json.dumps({"episode": i // 2, "match": f"m{i // 3}", "action": 1})

    tar_of(tmp_path / "a.tar", samples(4, "json", said))

    assert grouped(tmp_path) == {"0": [0, 10], "1": [20, 30]}
    assert grouped(tmp_path, episodes="field:match") == {"m0": [0, 10, 20], "m1": [30]}
    assert refusal(tmp_path / "a.tar", episodes="field:level").reason is Reason.METADATA


def test_a_shuffled_tar_file_is_refused(tmp_path: Path) -> None:
    files = samples(4, "cls", str)
    order = ["0000", "0002", "0001", "0003"]
    shuffled = {
        f"{key}.{ending}": files[f"{key}.{ending}"] for key in order for ending in ("png", "cls")
    }
    path = tar_of(tmp_path / "a.tar", shuffled)

    why = refusal(path, space="discrete4")

    assert why.reason is Reason.LOG_CLOCK
    assert "0001 follows 0002" in why.message
    assert grouped(tmp_path, numbers="ignore") == {"": [0, 20, 10, 30]}


def test_missing_frames_are_noticed_but_every_fourth_frame_is_not_missing(tmp_path: Path) -> None:
    def numbered(*numbers: int) -> dict[str, bytes | str]:
        return {f"{n}.{e}": png(n) if e == "png" else "0" for n in numbers for e in ("png", "cls")}

    tar_of(tmp_path / "a.tar", numbered(0, 4, 8))
    assert grouped(tmp_path) == {"": [0, 4, 8]}
    why = refusal(tar_of(tmp_path / "b.tar", numbered(0, 1, 3)), space="discrete4")
    assert "3 follows 1" in why.message


# Hostile and damaged files


def test_pictures_of_different_sizes_are_refused(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "0.png": png(0),
        "0.cls": "0",
        "1.png": png(0, (16, 24)),
        "1.cls": "0",
    }
    why = refusal(tar_of(tmp_path / "a.tar", files), space="discrete2")

    assert why.reason is Reason.RESOLUTION_CHANGE


def test_a_damaged_picture_is_lost_and_too_many_are_refused(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "a.tar", {"0.png": b"no picture", "0.cls": "0", "1.png": png(0), "1.cls": "0"}
    )

    assert refusal(path, space="discrete2").reason is Reason.CORRUPT


@pytest.mark.parametrize("key", ["/etc/0", "../0", "a/../0", "a\\0", "a\x1b[2J0", "a" * 301])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, key: str) -> None:
    path = tar_of(tmp_path / "a.tar", {f"{key}.png": png(0), f"{key}.cls": "0"})

    assert refusal(path).reason is Reason.ARCHIVE_UNSAFE


def test_an_episode_with_a_hostile_name_is_refused(tmp_path: Path) -> None:
    said = json.dumps({"episode": "../../x", "action": 1})
    path = tar_of(tmp_path / "a.tar", samples(2, "json", lambda _: said))

    assert refusal(path).reason is Reason.ARCHIVE_UNSAFE


def test_files_of_a_key_that_are_apart_are_refused(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "a.tar", {"0.png": png(0), "1.png": png(0), "0.cls": "0", "1.cls": "0"}
    )

    assert "side by side" in refusal(path).message


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(2):
            info = tarfile.TarInfo("0.png")
            info.size = len(png(0))
            tar.addfile(info, io.BytesIO(png(0)))

    with pytest.raises(RefusedInput, match="two files") as refused:
        tar_places(tmp_path / "a.tar")
    assert refused.value.reason is Reason.ARCHIVE_UNSAFE


@pytest.mark.parametrize(
    "headers", [{"size": "99999999999"}, {"size": "-1"}, {"GNU.sparse.realsize": "1"}]
)
def test_what_a_pax_header_claims_is_checked(tmp_path: Path, headers: dict[str, str]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("0.png")
        info.pax_headers = headers
        tar.addfile(info)

    with pytest.raises(RefusedInput):
        tar_places(tmp_path / "a.tar")


def test_other_tar_files_are_left_to_others(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"readme.txt": "hello"})

    ((_, why),) = discover([tmp_path], options={"frame_rate": "20"}).refused

    assert why.message == "an archive: unpack it first"


def test_the_files_of_a_sample_that_belong_to_no_key_are_ignored(tmp_path: Path) -> None:
    files = {
        "__meta__/0.png": png(9),
        ".hidden.png": png(9),
        "README": "x",
        **samples(2, "cls", str),
    }

    assert pressed(opened(tar_of(tmp_path / "a.tar", files), "discrete2")) == [
        "action_0",
        "action_1",
    ]
