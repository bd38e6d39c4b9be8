"""What an ingest stores of people: pseudonyms with a key, nothing under a mask, nobody forgotten."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from makers.recordings import PLAIN, Cut, cut, digest, ingest_here
from makers.video_clips import write_clip

from wham_data.corpus import Corpus
from wham_data.corpus.forget import forget, players_as_stored
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers.kit.frame_actions import even_times
from wham_data.pipelines.readers.kit.open_recordings import (
    PictureRecording,
    Placement,
    VideoClip,
    audit_clock,
    read_video,
)
from wham_data.pipelines.run.progress import Progress
from wham_data.pipelines.video import VideoLimits, decode_image
from wham_data.schemas.errors import MismatchError, Reason, RefusedInput, UsageError
from wham_data.schemas.mask import Mask, masks_text, parse_masks
from wham_data.schemas.player_key import PlayerKey, read_player_key
from wham_data.schemas.recording import Fit, Frames

SECRET = "a secret of sixteen bytes or more"
KEY = PlayerKey(SECRET.encode())


class Told:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progressed(self, progress: Progress) -> None:
        """Nothing."""

    def message(self, text: str, *, warning: bool, event: object = None) -> None:
        """One line."""
        del event
        if warning and text:
            self.lines.append(text)


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings: two of ann, one of bob, and one of cem that is torn. Only to be read."""
    folder = tmp_path_factory.mktemp("plays")
    for number, (name, player) in enumerate([("ann", "ann"), ("ann-2", "ann"), ("bob", "bob")]):
        cut(folder, name, Cut("coinrun", number, 0.6), player=player)
    torn = cut(folder, "cem", Cut("coinrun", 5, 0.6))
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    return folder


@pytest.fixture(scope="module")
def keyed(plays: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their corpus, with pseudonyms. Only to be read."""
    out = tmp_path_factory.mktemp("keyed") / "corpus"
    ingest_here(plays, out, player_key=KEY)
    return out


def test_with_a_key_no_players_name_is_anywhere_in_the_corpus(keyed: Path) -> None:
    corpus = Corpus.open(keyed)

    assert set(corpus.episodes["player"]) == {KEY.pseudonym("ann"), KEY.pseudonym("bob")}
    assert corpus.episodes["source"].str.contains(KEY.pseudonym("ann")).sum() == 2
    assert corpus.quarantine["path"][0].endswith(f"{KEY.pseudonym('cem')}.mp4")
    everything = b"\0".join(path.read_bytes() for path in keyed.rglob("*") if path.is_file())
    assert [name for name in (b"ann", b"bob.", b"cem", SECRET.encode()) if name in everything] == []


def test_splits_are_the_same_with_a_key_and_without(plays: Path, tmp_path: Path) -> None:
    shares = IngestSettings(tokenizer=None, split=(1, 1, 1))
    ingest_here(plays, tmp_path / "named", shares)
    ingest_here(plays, tmp_path / "keyed", shares, player_key=KEY)

    splits = [
        dict(Corpus.open(tmp_path / name).episodes.select("recording", "split").iter_rows())
        for name in ("named", "keyed")
    ]
    assert splits[0] == splits[1]
    assert set(Corpus.open(tmp_path / "named").episodes["player"]) == {"ann", "bob"}


def test_a_corpus_goes_on_with_its_own_key_and_no_other(keyed: Path, plays: Path) -> None:
    before = digest(keyed)
    for key, says in (
        (PlayerKey(b"another secret of bytes"), "pseudonyms of another key"),
        (None, "give their key with --player-key FILE"),
    ):
        with pytest.raises(MismatchError, match=says):
            ingest_here(plays, keyed, player_key=key)
    assert ingest_here(plays, keyed, player_key=KEY).already_there == 3
    assert digest(keyed) == before


def test_a_key_is_read_from_a_file_outside_the_corpus(tmp_path: Path) -> None:
    file = tmp_path / "player.key"
    file.write_text(f"{SECRET}\n")
    assert read_player_key(file, tmp_path / "corpus") == KEY
    assert SECRET not in repr(KEY)
    with pytest.raises(UsageError, match="lies inside the corpus"):
        read_player_key(file, tmp_path)
    file.write_text("short")
    with pytest.raises(UsageError, match="a key of 5 bytes, expected 16 to 4096"):
        read_player_key(file, tmp_path / "corpus")


def test_a_name_is_hidden_only_as_a_word_of_its_own() -> None:
    assert KEY.hide("/rec/ann/annex_ann-1.mp4", "ann") == "/rec/{0}/annex_{0}-1.mp4".format(
        KEY.pseudonym("ann")
    )


def test_a_later_ingest_leaves_out_who_was_forgotten_and_says_so(
    plays: Path, tmp_path: Path
) -> None:
    ingest_here(plays, tmp_path / "c", player_key=KEY)
    corpus = Corpus.open(tmp_path / "c")
    forget(corpus, {"player": players_as_stored(corpus, ["ann"], KEY)})
    told = Told()

    report = ingest_here(plays, tmp_path / "c", player_key=KEY, watch=told)

    assert (report.forgotten, report.already_there, report.ingested) == (2, 1, 0)
    assert report.found == 4 == 2 + 1 + report.quarantined
    assert (
        sorted(told.lines)[:2]
        == [
            f"{plays}/{name}.mp4: left out, this player was forgotten (--allow-forgotten takes it)"
            for name in ("ann", "ann-2")
        ][::-1]
    )
    report = ingest_here(plays, tmp_path / "c", player_key=KEY, allow_forgotten=True)
    assert (report.forgotten, report.ingested) == (0, 2)


def test_masks_are_settings_so_two_kinds_never_mix(plays: Path, tmp_path: Path) -> None:
    masked = IngestSettings(tokenizer=None, masks=parse_masks(["0.0,0.5,1.0,0.5"]))
    ingest_here(plays, tmp_path / "c", masked)

    with pytest.raises(MismatchError, match=r'settings\.masks: "0\.0,0\.5,1\.0,0\.5", not absent'):
        ingest_here(plays, tmp_path / "c", PLAIN)


def test_a_recording_names_masks_of_its_own_beside_it(tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "ann", Cut("doom", 2, 0.5))
    notes = video.with_suffix(".toml")
    notes.write_text(notes.read_text() + 'mask = "0,0,80,96"\n')
    stored = IngestSettings(tokenizer=None, frames="png", masks=parse_masks(["0.0,0.0,1.0,0.5"]))
    ingest_here(tmp_path / "in", tmp_path / "c", stored)
    corpus = Corpus.open(tmp_path / "c")

    frames = corpus.read_episode(corpus.episodes["episode"][0]).frames
    assert frames is not None
    for frame in map(decode_image, frames):
        assert not frame[:90].any()
        assert not frame[:, :150].any()
        assert frame[95:, 155:].any(axis=2).mean() > 0.9


def pictures_of(path: Path, masks: tuple[Mask, ...], fit: Fit, size: tuple[int, int]) -> Frames:
    opened = VideoClip.whole(read_video(path, VideoLimits())).opened()
    opened.masks = masks
    return np.concatenate(list(opened.frames(np.arange(6), size, fit=fit, batch=4, threads=1)))


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(64, 36), (300, 180)])
def test_nothing_of_what_is_under_a_mask_reaches_a_frame(
    tmp_path: Path, fit: Fit, size: tuple[int, int]
) -> None:
    shares, pixels = Mask.parse("0.5,0.25,0.25,0.5"), Mask.parse("11,7,23,15")
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (6, 112, 192, 3), np.uint8)
    other = seen.copy()
    for left, top, right, bottom in (mask.box((192, 112)) for mask in (shares, pixels)):
        hidden = slice(int(top), int(bottom)), slice(int(left), int(right))
        other[:, hidden[0], hidden[1]] = rng.integers(0, 256, 3, np.uint8)
    clips = [
        write_clip(
            tmp_path / f"{name}.mkv",
            [0, 40, 80, 120, 160, 200],
            codec="ffv1",
            pixel_format="yuv444p",  # writing 4:2:0 smears colour over three pixels by itself
            frames=iter(frames),
        )
        for name, frames in (("seen", seen), ("other", other))
    ]

    masked = [pictures_of(clip, (shares, pixels), fit, size) for clip in clips]
    bare = [pictures_of(clip, (), fit, size) for clip in clips]

    assert np.array_equal(*masked)
    assert not np.array_equal(*bare)
    changed = (masked[0] != bare[0]).any(axis=(0, 3))
    assert changed.mean() < 0.35


def test_pictures_that_are_arrays_are_masked_before_they_are_scaled() -> None:
    times_ns, end_ns = even_times(3, Fraction(10))
    white = np.full((90, 150, 3), 255, np.uint8)
    opened = PictureRecording(
        frame_times_ns=times_ns,
        frame_end_ns=end_ns,
        clock=audit_clock(times_ns),
        pictures=lambda picks: iter([white] * len(picks)),
        masks=parse_masks(["0,0,50,90"]),
    )
    (frames,) = opened.frames(np.arange(3), (300, 180), fit="stretch", batch=8, threads=1)

    assert not frames[:, :, :100].any()
    assert (frames[:, :, 100:] == 255).all()
    assert (white == 255).all()


def test_a_mask_in_pixels_that_a_smaller_picture_does_not_hold_is_refused() -> None:
    mask = Mask.parse("1500,0,300,50")
    assert mask.box((1920, 1080)) == (1500, 0, 1800, 50)
    with pytest.raises(RefusedInput, match="leads out of the picture of 1280x720") as refused:
        mask.box((1280, 720))
    assert refused.value.reason is Reason.MASK_OUTSIDE


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,0,1,1", "-1,0,1,1", "0,0,0,5", "0.5,0,0.6,1", "nan,0,1,1"]
)
def test_a_text_that_means_no_mask_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected X,Y,WIDTH,HEIGHT"):
        Mask.parse(text)


def test_the_order_of_masks_does_not_matter() -> None:
    texts = ["1,2,3,4", "0.5,0.5,0.25,0.25", "1, 2, 3, 4"]
    assert masks_text(parse_masks(texts)) == masks_text(parse_masks(texts[::-1]))
    assert [str(mask) for mask in parse_masks(texts)] == ["0.5,0.5,0.25,0.25", "1,2,3,4"]


def test_a_placement_blackens_outwards_to_whole_pixels() -> None:
    frames = np.full((1, 10, 10, 3), 9, np.uint8)
    Placement(0.1, 0.1, 0, 0).black_out(frames, (42, 42, 58, 58))
    assert np.argwhere(frames[0, :, :, 0] == 0).tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]


def test_a_licence_is_kept_for_each_source_and_said_for_those_that_name_none(
    tmp_path: Path,
) -> None:
    cut(tmp_path / "in", "ann", Cut("coinrun", 0, 0.5), license="CC-BY-NC-4.0")
    cut(tmp_path / "in", "bob", Cut("coinrun", 1, 0.5))
    ingest_here(tmp_path / "in", tmp_path / "c", license="CC0-1.0")

    rows = Corpus.open(tmp_path / "c").episodes.select("player", "license")
    assert dict(rows.iter_rows()) == {"ann": "CC-BY-NC-4.0", "bob": "CC0-1.0"}
