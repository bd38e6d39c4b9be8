"""A known input costs a look-up, and a look-up never gives a recording a wrong identity."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.recordings import PLAIN, Cut, cut, digest, ingest_here

from wham_data.corpus import Corpus
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.intake.known_inputs import NAME, FileStamp, KeySet, KnownInputs
from wham_data.pipelines.run.progress import Event, Silent
from wham_data.schemas.errors import Reason
from wham_data.schemas.player_key import PlayerKey

KEY = PlayerKey(b"a secret of the people who record")


def age(folder: Path, seconds: float = 60.0) -> None:
    """Let the files of a folder be written a while ago, as recordings are."""
    for path in folder.rglob("*"):
        if path.is_file():
            then = time.time() - seconds
            os.utime(path, (then, then))


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file so that its size and the time of its last change stay."""
    before = path.stat()
    content = path.read_bytes().replace(old, new)
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    for number in range(3):
        cut(folder, f"play-{number}", Cut("coinrun", number, 0.6), player=f"player {number}")
    return folder


@pytest.fixture
def recordings(three: Path, tmp_path: Path) -> Path:
    shutil.copytree(three, tmp_path / "in")
    age(tmp_path / "in")
    return tmp_path / "in"


class Heard(Silent):
    """Keeps what a person is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:  # noqa: ARG002
        self.lines.append(text)


def test_what_is_known_is_not_read_again(recordings: Path, tmp_path: Path) -> None:
    first = ingest_here(recordings, tmp_path / "corpus")
    for path in recordings.iterdir():
        path.chmod(0o600)
    age(recordings)
    ingest_here(recordings, tmp_path / "corpus")  # other times, so this run reads them again
    again = ingest_here(recordings, tmp_path / "corpus")

    assert (first.hashed, first.known) == (3, 0)
    assert (again.hashed, again.known, again.already_there) == (0, 3, 3)


def test_what_is_known_in_part_is_looked_up_file_by_file(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    cut(recordings, "play-3", Cut("doom", 1, 0.6))

    again = ingest_here(recordings, tmp_path / "corpus")

    assert (again.hashed, again.known) == (1, 3)
    assert (again.ingested, again.already_there) == (1, 3)


def test_rehash_believes_nothing(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus")

    again = ingest_here(recordings, tmp_path / "corpus", rehash=True)

    assert (again.hashed, again.known, again.already_there) == (3, 0, 3)


def test_a_changed_file_is_noticed_by_its_time(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    log = recordings / "play-0.csv"
    log.write_text(log.read_text().replace("0,0,0", "0,0,1", 1))

    again = ingest_here(recordings, tmp_path / "corpus")

    assert (again.ingested, again.already_there, again.hashed) == (1, 2, 1)


def test_a_change_that_keeps_size_and_time_is_noticed_by_the_time_of_the_entry(
    recordings: Path, tmp_path: Path
) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    rewritten(recordings / "play-0.toml", b"player 0", b"player 9")

    again = ingest_here(recordings, tmp_path / "corpus")

    assert (again.ingested, again.already_there) == (1, 2)


def test_a_file_written_a_moment_ago_is_not_trusted_the_next_time(
    recordings: Path, tmp_path: Path
) -> None:
    (recordings / "play-0.csv").touch()

    ingest_here(recordings, tmp_path / "corpus")
    again = ingest_here(recordings, tmp_path / "corpus")

    assert (again.hashed, again.known) == (1, 2), "it may change again within one tick of its clock"


def test_a_wrong_hint_can_leave_a_recording_out_and_never_gives_a_shard_its_name(
    recordings: Path, tmp_path: Path
) -> None:
    ingest_here(recordings, tmp_path / "corpus", limit=2)
    storage = open_storage(tmp_path / "corpus")
    wrong = KnownInputs(storage)
    for path in recordings.glob("play-2.*"):
        wrong.note(wrong.stamp(path, FileStamp.of(path)), bytes(32))
    wrong.save()

    misled = ingest_here(recordings, tmp_path / "corpus")
    (why,) = Corpus.open(tmp_path / "corpus").quarantine["message"]
    mended = ingest_here(recordings, tmp_path / "corpus", rehash=True)

    assert (misled.ingested, misled.reasons) == (0, {Reason.CHANGED_WHILE_READ: 1})
    assert "--rehash" in why
    assert (mended.ingested, mended.quarantined) == (1, 0)
    fresh = ingest_here(recordings, tmp_path / "fresh")
    assert digest(tmp_path / "fresh")["shards"] == digest(tmp_path / "corpus")["shards"]
    assert fresh.ingested == 3


@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1" + bytes(100) + b"PAR1"])
def test_damaged_hints_are_not_used_and_said(
    recordings: Path, tmp_path: Path, content: bytes
) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    (tmp_path / "corpus" / NAME).write_bytes(content)
    heard = Heard()

    again = ingest_here(recordings, tmp_path / "corpus", watch=heard)
    after = ingest_here(recordings, tmp_path / "corpus")

    assert (again.hashed, again.already_there) == (3, 3)
    assert any(NAME in line and "hashed again" in line for line in heard.lines)
    assert after.known == 3, "they are written anew"


def test_hints_of_another_kind_are_not_used(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    pq.write_table(pa.table({"path": ["x"], "sha256": ["y"]}), tmp_path / "corpus" / NAME)
    heard = Heard()

    assert ingest_here(recordings, tmp_path / "corpus", watch=heard).hashed == 3
    assert any("another kind" in line for line in heard.lines)


def test_hints_may_be_deleted(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    shutil.rmtree(tmp_path / "corpus" / "hints")

    again = ingest_here(recordings, tmp_path / "corpus")

    assert (again.hashed, again.already_there) == (3, 3)


def test_two_runs_that_note_at_once_lose_at_most_hints(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    one, other = KnownInputs(storage), KnownInputs(storage)
    one.note(b"1" * 16, b"a" * 32)
    other.note(b"2" * 16, b"b" * 32)
    one.save()
    other.save()

    both = KnownInputs(storage)

    assert both.hash_of(b"1" * 16) == b"a" * 32
    assert both.hash_of(b"2" * 16) == b"b" * 32
    assert both.hash_of(b"3" * 16) is None


def test_hashes_that_end_in_zeros_are_kept_whole(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    known = KnownInputs(storage)
    known.note(b"s".ljust(16, b"\0"), b"h".ljust(32, b"\0"))
    known.save()

    again = KnownInputs(storage)

    assert again.hash_of(b"s".ljust(16, b"\0")) == b"h".ljust(32, b"\0")


def test_a_set_of_keys_holds_what_a_set_of_texts_holds() -> None:
    random = np.random.default_rng(0)
    texts = [random.bytes(32).hex() for _ in range(100)] + ["00" * 32, "ab" * 31 + "00"]
    keys = KeySet([*texts[::2], "", None, "no hash"])

    assert [bytes.fromhex(text) in keys for text in texts] == [True, False] * 51
    assert keys.has_all([bytes.fromhex(text) for text in texts[::2]])
    assert not keys.has_all([bytes.fromhex(text) for text in texts[:2]])
    assert bytes(32) not in KeySet([])


def test_no_name_is_stored_in_a_hint(recordings: Path, tmp_path: Path) -> None:
    for key, out in ((None, tmp_path / "named"), (KEY, tmp_path / "hidden")):
        ingest_here(recordings, out, player_key=key)
        assert b"play" not in (out / NAME).read_bytes()


def test_with_pseudonyms_nobody_can_check_a_guess_of_a_path(
    recordings: Path, tmp_path: Path
) -> None:
    ingest_here(recordings, tmp_path / "corpus", player_key=KEY)
    storage, video = open_storage(tmp_path / "corpus"), recordings / "play-0.mp4"

    def knows(known: KnownInputs) -> bool:
        return known.hash_of(known.stamp(video, FileStamp.of(video))) is not None

    assert knows(KnownInputs(storage, KEY))
    assert not knows(KnownInputs(storage))
    assert not knows(KnownInputs(storage, PlayerKey(b"another secret of sixteen bytes")))
    again = ingest_here(recordings, tmp_path / "corpus", player_key=KEY)
    assert (again.known, again.already_there) == (3, 3)


def test_a_known_folder_named_after_a_player_does_not_put_the_name_in_the_record_of_a_run(
    three: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ann"
    shutil.copytree(three, folder)
    for path in folder.glob("*.toml"):
        path.write_text(path.read_text().replace("player 0", "ann"))
    age(folder)

    for _ in range(2):
        report = ingest_here(folder, tmp_path / "corpus", PLAIN, player_key=KEY)

    assert (report.known, report.already_there) == (3, 3)
    for path in (tmp_path / "corpus" / "runs").iterdir():
        assert "ann" not in path.read_text().replace("channel", "")


def test_a_copy_of_a_known_recording_is_told_by_its_name(recordings: Path, tmp_path: Path) -> None:
    ingest_here(recordings, tmp_path / "corpus")
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(recordings / f"play-0{ending}", tmp_path / f"copy{ending}")
    more = recordings / "z"
    more.mkdir()
    for ending in (".mp4", ".csv", ".toml"):
        (tmp_path / f"copy{ending}").rename(more / f"copy{ending}")
    heard = Heard()

    again = ingest_here(recordings, tmp_path / "corpus", watch=heard)

    assert (again.found, again.already_there, again.duplicates) == (4, 3, 1)
    line = f"{more / 'copy.mp4'}: duplicate of {recordings / 'play-0.mp4'}"
    assert line in heard.lines
