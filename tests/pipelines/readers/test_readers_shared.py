"""What readers share: open recordings, actions per frame, options, and opening strangers' files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.readings import frames_of
from makers.recordings import ingest_here
from makers.video_clips import read_stamp, stamped, write_clip

from wham_data.corpus import Corpus
from wham_data.files import hdf5
from wham_data.files.json_lines import end_objects, json_lines, read_json
from wham_data.files.npz import opened_npz
from wham_data.files.npz import read_rows as npz_rows
from wham_data.files.parquet import columns_of, read_columns, stream_column
from wham_data.pipelines import readers
from wham_data.pipelines.ingest import stages
from wham_data.pipelines.ingest.decoder_process import DecodeLimits
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.kit.frame_actions import even_times, one_hot, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    OpenedRecording,
    Picture,
    PicturelessRecording,
    PictureRecording,
    VideoClip,
    audit_clock,
    open_clips,
    read_video,
)
from wham_data.pipelines.readers.kit.options import (
    choice,
    configured,
    count_option,
    file_option,
    names_option,
    option_settings,
    rate_option,
)
from wham_data.pipelines.readers.kit.placement import Placement
from wham_data.pipelines.run.progress import Silent
from wham_data.pipelines.video import VideoLimits, decode_image, encode_jpeg
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import SECOND_NS, Index
from wham_data.schemas.errors import NoInputsError, Reason, RefusedInput, UsageError
from wham_data.schemas.mask import Mask
from wham_data.schemas.recording import (
    Fit,
    FrameData,
    OpenRecording,
    Provenance,
    Recording,
    RefusedFile,
)

SIZE = (96, 64)
LIMITS = VideoLimits()
PAD = load_space("discrete3")
DETAILS = IngestSettings(rate=None, size=SIZE, tokenizer=None)


# --- pictures ---------------------------------------------------------------------------------


def pictures_of(count: int, damaged: tuple[int, ...] = ()) -> PictureRecording:
    """Frame k shows number k; the damaged ones cannot be decoded."""
    times_ns, end_ns = even_times(count, Fraction(20))

    def pictures(picks: Index) -> Iterator[Picture | None]:
        assert (np.diff(picks) > 0).all(), "each picture is asked for once"
        for pick in picks.tolist():
            yield None if pick in damaged else stamped(pick, *SIZE)

    return PictureRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=audit_clock(times_ns),
        pictures=pictures,
    )


def test_a_picture_that_several_steps_show_is_read_once_and_repeated() -> None:
    shown = frames_of(pictures_of(10), SIZE, [0, 2, 2, 2, 5, 9, 9])

    assert [read_stamp(frame) for frame in shown] == [0, 2, 2, 2, 5, 9, 9]


def test_pictures_are_brought_to_size_as_asked() -> None:
    opened = pictures_of(2)

    batches = opened.frames(np.array([0, 1]), (48, 48), fit="letterbox", batch=1, threads=1)

    first, second = batches
    assert (first.shape, second.shape) == ((1, 48, 48, 3), (1, 48, 48, 3))
    assert first[0, :8].max() == 0, "black above a picture that is wider than tall"


def test_a_picture_that_does_not_decode_is_lost_and_too_many_refuse_the_recording() -> None:
    few = pictures_of(400, damaged=(7,))
    assert len(frames_of(few, SIZE)) == 400
    assert few.lost_frames().tolist() == [7]

    with pytest.raises(RefusedInput) as refused:
        frames_of(pictures_of(10, damaged=(7,)), SIZE)
    assert refused.value.reason is Reason.CORRUPT


# --- videos -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, 20 a second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    return write_clip(path, [50 * k for k in range(40)], options={"g": "12"})


def test_a_stretch_of_a_video_keeps_its_clock(clip_path: Path) -> None:
    index = read_video(clip_path, LIMITS)

    clip = VideoClip.between(index, SECOND_NS // 2, SECOND_NS)

    assert [read_stamp(f) for f in frames_of(clip.opened())] == list(range(10, 20))
    assert (int(clip.times_ns[0]), clip.end_ns) == (SECOND_NS // 2, SECOND_NS)
    assert read_video(clip_path, LIMITS) is index, "episodes of one file share its index"


def test_times_that_were_rounded_find_their_frame_with_some_slack(clip_path: Path) -> None:
    index = read_video(clip_path, LIMITS)

    clip = VideoClip.between(index, 500_000_040, 1_000_000_080, slack_ns=100_000)

    assert len(clip.times_ns) == 10
    assert int(clip.times_ns[0]) == 500_000_000


def test_a_stretch_without_frames_is_refused(clip_path: Path) -> None:
    with pytest.raises(RefusedInput) as refused:
        VideoClip.between(read_video(clip_path, LIMITS), 5 * SECOND_NS, 6 * SECOND_NS)

    assert refused.value.reason is Reason.NO_FRAMES


def test_clips_one_after_the_other_are_one_recording(clip_path: Path) -> None:
    index = read_video(clip_path, LIMITS)
    first, second = VideoClip.numbered(index, 0, 3), VideoClip.numbered(index, 20, 22)
    second = second.shifted(first.end_ns - int(second.times_ns[0]))

    opened = open_clips((first, second))

    assert [read_stamp(f) for f in frames_of(opened)] == [0, 1, 2, 20, 21]
    assert [read_stamp(f) for f in frames_of(opened, picks=[2, 2, 3])] == [2, 2, 20]
    assert np.diff(opened.frame_times_ns).tolist() == [50_000_000] * 4


@pytest.mark.parametrize(
    ("fit", "scale", "corner"),
    [
        ("stretch", (0.4, 0.8), (0, 0)),
        ("letterbox", (0.4, 0.4), (0, 20)),
        ("crop", (0.8, 0.8), (-40, 0)),
    ],
)
def test_what_is_painted_lands_where_the_picture_is(
    fit: Fit, scale: tuple[float, float], corner: tuple[int, int]
) -> None:
    placement = Placement.of((200, 100), (80, 80), fit)

    assert (placement.scale_x, placement.scale_y) == pytest.approx(scale)
    assert (placement.left, placement.top) == corner


# --- actions per frame ------------------------------------------------------------------------


def test_a_row_that_led_to_its_frame_acts_before_it() -> None:
    times_ns, end_ns = even_times(3, Fraction(10))

    track = per_frame_track(PAD, times_ns, end_ns, one_hot(np.array([2, 0, 1]), 3), leads=True)

    assert track.values[:2].argmax(axis=1).tolist() == [0, 1]
    assert np.isnan(track.values[2]).all(), "nobody knows what followed the last frame"
    assert track.end_ns == end_ns


def test_the_frame_after_the_last_action_has_none() -> None:
    times_ns, end_ns = even_times(3, Fraction(10))

    track = per_frame_track(PAD, times_ns, end_ns, one_hot(np.array([2, -1]), 3))

    assert np.isnan(track.values).any(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize(("rows", "leads"), [(5, False), (1, False), (2, True)])
def test_actions_of_another_number_are_refused(rows: int, leads: bool) -> None:
    times_ns, end_ns = even_times(3, Fraction(10))

    with pytest.raises(RefusedInput) as refused:
        per_frame_track(PAD, times_ns, end_ns, np.zeros((rows, 3)), leads=leads)

    assert refused.value.reason is Reason.LOG_COVERAGE


# --- a reader of several recordings in one file -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Toy:
    """Reads `.toy` files: the names of the recordings in them, one a line."""

    name: ClassVar[str] = "toy"
    about: ClassVar[str] = "for tests"
    space: str = choice("discrete3", "discrete4", about="the action space")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        for path in files:
            if path.suffix == ".toy":
                names = path.read_text().split()
                if not names:
                    yield RefusedFile(path, RefusedInput(Reason.EMPTY_FILE, "no names"))
                for name in names:
                    who = Provenance(match=path.stem, player=name)
                    yield Recording(path, (path,), self.name, who, part=name)

    def open(self, recording: Recording, limits: VideoLimits) -> OpenedRecording:
        del limits
        if recording.part == "bad":
            raise RefusedInput(Reason.CORRUPT, "bad by name")
        opened: OpenedRecording = pictures_of(4)
        times_ns, end_ns = opened.frame_times_ns, opened.frame_end_ns
        space = load_space(self.space)
        track = per_frame_track(space, times_ns, end_ns, one_hot(np.arange(3), space.size))
        if recording.part == "blind":
            opened = PicturelessRecording(
                frame_times_ns=times_ns, frame_end_ns=end_ns, clock=opened.clock
            )
        if recording.part != "silent":
            opened.data = FrameData(actions=track)
        if recording.part == "talks":
            opened.data = FrameData(
                actions=track,
                texts=["go", None, None, "stop"],
                states=np.arange(8, dtype=np.float32).reshape(4, 2),
                rewards=np.ones(4, np.float32),
            )
        return opened


def open_here(
    recording: Recording,
    limits: VideoLimits,
    max_gap_ns: int,
    options: tuple[tuple[str, str], ...],
    masks: tuple[Mask, ...],
    decoding: DecodeLimits,
    target: ActionSpace | None,
    *,
    whole: bool,
) -> OpenRecording:
    del decoding, whole  # for a process that there is not
    return readers.open_recording(recording, limits, max_gap_ns, dict(options), masks, target)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `.toy` files are recordings; this process alone knows of them, so it opens them."""
    monkeypatch.setattr(readers, "READERS", (Toy(),))
    monkeypatch.setattr(stages, "open_isolated", open_here)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@dataclass(frozen=True, slots=True)
class Asking(Toy):
    """Takes its actions in the space of the corpus, if that is known."""

    name: ClassVar[str] = "asking"
    target: ActionSpace | None = None

    def open(self, recording: Recording, limits: VideoLimits) -> OpenedRecording:
        space = self.space if self.target is None else self.target.name
        return Toy(space).open(recording, limits)


def test_a_reader_with_a_field_target_is_told_the_space_of_the_corpus(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "READERS", (Asking(),))
    (toy / "m.toy").write_text("ann")
    (recording,) = discover([toy]).recordings

    spaces = [
        actions.space.name
        for target in (None, load_space("discrete4"))
        if (actions := readers.open_recording(recording, target=target).actions) is not None
    ]

    assert spaces == ["discrete3", "discrete4"]


def test_recordings_that_share_a_file_are_told_apart_by_their_part(toy: Path) -> None:
    (toy / "m.toy").write_text("ann bob bad")

    report = ingest_here(toy, toy.parent / "corpus", DETAILS)
    again = ingest_here(toy, toy.parent / "corpus", DETAILS)

    assert (report.found, report.ingested, report.quarantined) == (3, 2, 1)
    assert (again.ingested, again.already_there, again.quarantined) == (0, 2, 1)
    corpus = Corpus.open(toy.parent / "corpus")
    assert set(corpus.episodes["source"]) == {f"{toy}/m.toy#ann", f"{toy}/m.toy#bob"}
    assert corpus.quarantine["path"].to_list() == [f"{toy}/m.toy#bad"]
    assert corpus.at("m", 60_000_000)["player"].to_list() == ["ann", "bob"]


def test_a_copy_of_a_shared_file_is_a_copy_of_each_of_its_recordings(toy: Path) -> None:
    for name in ("m", "copy"):
        (toy / f"{name}.toy").write_text("ann bob")

    report = ingest_here(toy, toy.parent / "corpus", DETAILS)

    assert (report.found, report.ingested, report.duplicates) == (4, 2, 2)


def test_a_file_that_a_reader_refuses_is_refused_with_its_reason(toy: Path) -> None:
    (toy / "m.toy").write_text("")

    ((path, why),) = discover([toy]).refused

    assert (path.name, why.reason) == ("m.toy", Reason.EMPTY_FILE)


def test_texts_states_and_rewards_go_into_the_corpus_where_the_source_has_them(toy: Path) -> None:
    (toy / "m.toy").write_text("talks")

    ingest_here(toy, toy.parent / "corpus", DETAILS)

    corpus = Corpus.open(toy.parent / "corpus")
    steps = corpus.scan().collect()
    assert steps["text"].to_list() == ["go", None, None, "stop"]
    assert steps["state"].to_list() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert steps["reward"].to_list() == [1, 1, 1, 1]
    assert corpus.verify().ok


class Heard(Silent):
    """Remembers what a run tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, *, warning: bool, event: object = None) -> None:
        del warning, event
        self.lines += [text] if text else []


def test_a_corpus_keeps_its_columns_whoever_comes_later(toy: Path) -> None:
    quiet, talks = toy / "quiet", toy / "talks"
    for folder, name in ((quiet, "ann"), (talks, "talks")):
        folder.mkdir()
        (folder / "m.toy").write_text(name)
    rich, poor, heard = toy.parent / "rich", toy.parent / "poor", Heard()

    for first, second, corpus in ((talks, quiet, rich), (quiet, talks, poor)):
        ingest_here(first, corpus, DETAILS)
        ingest_here(second, corpus, DETAILS, watch=heard)

    texts = Corpus.open(rich).scan().collect()["text"]
    assert (len(texts), texts.null_count()) == (8, 6), "who tells less has nulls"
    assert heard.lines[-1].endswith(
        "m.toy#talks: state of 2 numbers not kept, the corpus holds none; "
        "reward not kept, the corpus holds none; text not kept, the corpus holds none"
    )


def test_a_source_without_a_log_has_steps_without_known_actions(toy: Path) -> None:
    (toy / "m.toy").write_text("silent")

    with pytest.raises(NoInputsError, match="--actions none makes steps without"):
        ingest_here(toy, toy.parent / "none", DETAILS)
    settings = IngestSettings(rate=None, size=SIZE, tokenizer=None, actions="discrete3")
    ingest_here(toy, toy.parent / "corpus", settings)

    corpus = Corpus.open(toy.parent / "corpus")
    assert corpus.scan().collect()["actions"].null_count() == 4
    assert corpus.episodes["missing_actions"].to_list() == [4]


def test_actions_without_pictures_are_steps_where_no_picture_is_asked_for(toy: Path) -> None:
    (toy / "m.toy").write_text("blind")

    report = ingest_here(toy, toy.parent / "corpus", DETAILS)
    with_frames = IngestSettings(rate=None, size=SIZE, tokenizer=None, frames="png")
    heard = Heard()

    assert (report.ingested, report.steps, report.frames_in) == (1, 4, 0)
    assert Corpus.open(toy.parent / "corpus").scan().collect()["actions"].null_count() == 1
    assert ingest_here(toy, toy.parent / "pictures", with_frames, watch=heard).exit_code == 6
    assert "actions without pictures: take them with --tokenizer none" in heard.lines[-1]


# --- sizes and rates --------------------------------------------------------------------------


@pytest.fixture
def doom(tmp_path: Path) -> Path:
    """A folder with four JPEGs, 8.75 a second."""
    told = {
        "episode_id": [0] * 4,
        "frames": [encode_jpeg(stamped(step, *SIZE)) for step in range(4)],
        "actions": [0] * 4,
        "step_ids": [*range(4)],
    }
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(told), tmp_path / "in/episode_0.parquet")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("fit", "black_rows", "stamp"),
    # The lit cells are the outermost; they are cut off where the middle is cropped.
    [("stretch", 0, 3), ("letterbox", 8, 3), ("crop", 0, 0)],
)
def test_pictures_enter_the_corpus_in_the_size_and_fit_asked_for(
    doom: Path, fit: Fit, black_rows: int, stamp: int
) -> None:
    settings = IngestSettings(rate=None, size=(48, 48), fit=fit, tokenizer=None, frames="png")

    ingest_here(doom, doom.parent / "corpus", settings)

    steps = Corpus.open(doom.parent / "corpus").scan().collect()
    last = decode_image(steps["frame"][3])
    assert last.shape == (48, 48, 3)
    assert np.flatnonzero(last.max(axis=(1, 2)) == 0).tolist() == [
        *range(black_rows),
        *range(48 - black_rows, 48),
    ]
    assert read_stamp(last[black_rows : 48 - black_rows]) == stamp


def test_pictures_slower_than_the_grid_are_refused_unless_the_rate_says_so(doom: Path) -> None:
    slower = IngestSettings(rate=Fraction(35, 4), tokenizer=None)

    refused = ingest_here(doom, doom.parent / "10", IngestSettings(tokenizer=None))
    taken = ingest_here(doom, doom.parent / "8.75", slower)

    assert refused.reasons == {Reason.RATE_TOO_LOW: 1}
    assert taken.steps == 4


# --- options ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opinionated:
    timing: str = choice("after", "leads", about="when an action acts")
    frame_rate: Fraction = rate_option("20", about="frames per second")
    keys: tuple[str, ...] = names_option(about="keys", allowed=("W", "A"))
    players: int = count_option(4, about="how many play", most=64)
    mapping: Path | None = file_option(about="a mapping")


def test_an_option_reaches_the_readers_that_declare_it(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("x = 1")
    asked = {
        "timing": "leads",
        "frame_rate": "30000/1001",
        "keys": "A, W",
        "players": "64",
        "mapping": str(tmp_path / "m.toml"),
    }

    (reader, _) = configured([Opinionated(), Toy()], asked)

    assert reader == Opinionated(
        "leads", Fraction(30000, 1001), ("A", "W"), 64, tmp_path / "m.toml"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("timing", "later", "--option timing=later: expected after or leads"),
        ("frame_rate", "0", "--option frame_rate=0: expected a rate in Hz"),
        ("frame_rate", "1/0", "expected a rate in Hz"),
        ("keys", "W,,A", "expected names separated by commas of W, A"),
        ("players", "65", "--option players=65: expected a whole number from 1 to 64"),
        ("players", "two", "expected a whole number from 1 to 64"),
        ("mapping", "/nowhere", "expected the path of a file"),
        ("timming", "after", "no format read here has it; did you mean timing"),
    ],
)
def test_an_option_that_means_nothing_is_a_usage_error(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        configured([Opinionated()], {name: value})


def test_only_what_is_not_the_default_shapes_the_settings_and_a_file_by_its_content(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.toml").write_text("x = 1")
    (tmp_path / "b.toml").write_text("x = 1")
    settings = [
        option_settings(configured([Opinionated()], {"timing": "after", "mapping": str(path)}))
        for path in sorted(tmp_path.iterdir())
    ]

    assert settings[0] == settings[1]
    assert list(settings[0]) == ["option.mapping"]


def test_other_options_other_corpus(toy: Path) -> None:
    (toy / "m.toy").write_text("ann")

    for space in ("discrete3", "discrete4"):
        options = (("space", space),)
        settings = IngestSettings(rate=None, size=SIZE, tokenizer=None, options=options)
        ingest_here(toy, toy.parent / space, settings)

    names = [Corpus.open(toy.parent / f"discrete{n}").info.action_space.name for n in (3, 4)]
    assert names == ["discrete3", "discrete4"]


# --- strangers' files -------------------------------------------------------------------------


def test_rows_of_an_npz_are_read_in_one_pass(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(40).reshape(10, 4))

    with opened_npz(tmp_path / "a.npz") as archive:
        rows = [row.tolist() for row in npz_rows(archive, "x.npy", np.array([1, 7]))]

    assert rows == [[4, 5, 6, 7], [28, 29, 30, 31]]


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    """An HDF5 file with a plain dataset, coded pictures, and everything that leads astray."""
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.arange(3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("episode_0")
        group.create_dataset("x", data=np.arange(200).reshape(50, 4), compression="gzip")
        blobs = group.create_dataset("jpeg", (3,), dtype=h5py.vlen_dtype(np.uint8))
        blobs[1] = np.frombuffer(b"coded", np.uint8)
        file["text"] = "hello"
        file["elsewhere"] = h5py.ExternalLink("other.h5", "secret")
        file["soft"] = h5py.SoftLink("/episode_0/x")
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", (3,))
        file.create_virtual_dataset("virtual", layout)
        raw = [(str(tmp_path / "other.h5"), 0, 24)]
        file.create_dataset("external", (3,), dtype="i8", external=raw)
    return tmp_path / "a.h5"


def test_plain_datasets_of_hdf5_are_read_whole_or_as_a_stream(h5: Path) -> None:
    with hdf5.opened_hdf5(h5) as file:
        whole = hdf5.read_array(file, "episode_0/x", most_bytes=1600)
        rows = list(hdf5.read_rows(file, "episode_0/x", np.array([0, 3, 49])))
        blobs = list(hdf5.read_blobs(file, "episode_0/jpeg", np.array([1])))

    assert [row.tolist() for row in rows] == whole[[0, 3, 49]].tolist()
    assert blobs == [b"coded"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("elsewhere", Reason.LOG_COLUMN),
        ("soft", Reason.LOG_COLUMN),
        ("missing/x", Reason.LOG_COLUMN),
        ("episode_0", Reason.LOG_COLUMN),
        ("virtual", Reason.FORMAT_NOT_ALLOWED),
        ("external", Reason.FORMAT_NOT_ALLOWED),
        ("text", Reason.LOG_TYPE),
        ("episode_0/jpeg", Reason.LOG_TYPE),
        ("episode_0/x", Reason.TOO_LARGE),
    ],
)
def test_what_leads_out_of_an_hdf5_file_or_is_no_table_is_refused(
    h5: Path, name: str, reason: Reason
) -> None:
    with hdf5.opened_hdf5(h5) as file, pytest.raises(RefusedInput) as refused:
        hdf5.read_array(file, name, most_bytes=1599)

    assert refused.value.reason is reason


def test_a_damaged_hdf5_file_is_a_refusal(h5: Path) -> None:
    h5.write_bytes(h5.read_bytes()[:600])

    with pytest.raises(RefusedInput) as refused, hdf5.opened_hdf5(h5) as file:
        hdf5.read_array(file, "episode_0/x", most_bytes=10_000)

    assert refused.value.reason is Reason.CORRUPT


def test_a_parquet_column_is_streamed(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(100)), "frames": [bytes([k]) for k in range(100)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)

    assert columns_of(tmp_path / "a.parquet") == ("n", "frames")
    assert read_columns(tmp_path / "a.parquet", ["n"])["n"].to_pylist() == list(range(100))
    picks = np.array([0, 29, 30, 31, 99])
    assert list(stream_column(tmp_path / "a.parquet", "frames", picks)) == [
        bytes([k]) for k in picks
    ]
    with pytest.raises(RefusedInput) as refused:
        read_columns(tmp_path / "a.parquet", ["n", "m"])
    assert refused.value.reason is Reason.LOG_COLUMN


def test_json_lines_come_one_by_one_without_a_torn_last_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"k": 1}\n\n{"k": 2}\n{"k": 3')

    assert [row["k"] for row in json_lines(path)] == [1, 2]
    assert end_objects(path) == ({"k": 1}, {"k": 2})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{not json}\n", Reason.LOG_SYNTAX),
        ("[1, 2]\n", Reason.LOG_SYNTAX),
        ("[" * 100 + "]" * 100 + "\n", Reason.LOG_SYNTAX),
        ('{"k": ' + "9" * 5000 + "}\n", Reason.LOG_SYNTAX),
        ('{"k": "' + "x" * (1 << 20) + '"}\n', Reason.TOO_LARGE),
        ('{"k": "\udcff"}\n', Reason.LOG_ENCODING),
    ],
)
def test_json_that_is_none_is_refused(tmp_path: Path, text: str, reason: Reason) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(RefusedInput) as refused:
        list(json_lines(path))

    assert refused.value.reason is reason


def test_a_whole_json_file_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("\ufeff[1, 2]", "utf-8")

    assert read_json(tmp_path / "a.json") == [1, 2]
    with pytest.raises(RefusedInput) as refused:
        read_json(tmp_path / "a.json", most_bytes=3)
    assert refused.value.reason is Reason.TOO_LARGE


def test_half_a_character_in_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    path.write_text('{"game": "\\ud83d\\ude00"}')
    assert read_json(path) == {"game": "\U0001f600"}
    path.write_text('{"game": "\\ud83d"}')
    with pytest.raises(RefusedInput, match="surrogates not allowed"):
        read_json(path)
