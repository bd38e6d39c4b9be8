"""Who is forgotten is gone from the corpus, then from the disk, and does not come back by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pytest
from makers.corpora import add_shard, recording_of, small_corpus, steps
from makers.object_stores import Bucket

from wham_data.corpus.compact import compact, compact_to
from wham_data.corpus.corpus import Corpus
from wham_data.corpus.forget import forget, players_as_stored
from wham_data.corpus.vacuum import vacuum
from wham_data.schemas.errors import MismatchError, Reason, UsageError
from wham_data.schemas.manifest import QuarantineRow
from wham_data.schemas.player_key import PlayerKey

TESTS = Path(__file__).parents[1]
ANN = {"player": ["ann"]}


def mixed_corpus(location: Path | str) -> Corpus:
    """Ann in a shard of her own, in one with Bob and Cem, and in an account of a run."""
    corpus = small_corpus(location)
    corpus.commit(add_shard(corpus, "ann2-0", player="ann", match="m2"))
    corpus.commit(add_shard(corpus, "dan-0", player="dan"))
    compact(corpus)
    corpus.record_run({"sources": ["recordings/ann-0.mp4", "recordings"], "exit_code": 0})
    return corpus


def secrets_of(*episodes: str) -> list[bytes]:
    """What of these episodes must not be found: pieces of their tokens and actions."""
    found = []
    for episode in episodes:
        played = steps(episode)
        assert played.tokens is not None
        found += [row.tobytes() for row in played.tokens[::5]]
        found += [row.astype("<f4").tobytes() for row in played.actions[:5]]
    return found


def bytes_of(location: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in location.rglob("*") if path.is_file())


def content(corpus: Corpus) -> dict[str, Any]:
    names = corpus.episodes["episode"].to_list()
    read = {name: corpus.read_episode(name) for name in names}
    return {name: (each.tokens.tobytes(), each.actions.tobytes()) for name, each in read.items()}  # type: ignore[union-attr]


def test_no_byte_of_a_players_steps_is_in_the_current_version(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")

    forget(corpus, ANN)

    named = {corpus.shard_path(name) for name in corpus.episodes["shard"]}
    held = b"".join(path.read_bytes() for path in named)
    assert [piece for piece in secrets_of("ann-0", "ann-1", "ann2-0") if piece in held] == []
    assert "ann" not in corpus.episodes["player"].to_list()
    assert corpus.verify().ok


def test_after_a_vacuum_no_byte_of_theirs_is_on_disk_manifest_and_log_included(
    tmp_path: Path,
) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    secrets = [*secrets_of("ann-0", "ann-1", "ann2-0"), b"ann-", b"ann2-", b'"ann"']
    before = bytes_of(tmp_path / "c")
    assert all(piece in before for piece in secrets[:-1])

    forget(corpus, ANN)
    vacuum(corpus)

    after = bytes_of(tmp_path / "c")
    assert [piece for piece in secrets if piece in after] == []
    assert b"recordings/bob-0.mp4" in after


def test_on_an_object_store_it_is_the_same(bucket: Bucket) -> None:
    corpus = mixed_corpus(bucket.location)
    version = corpus.version

    forget(corpus, ANN)
    report = vacuum(corpus)

    assert {name.partition("/")[0] for name in report.files["forgotten"]} == {"shards", "episodes"}
    store = bucket.raw
    left = b"\0".join(bytes(obstore.get(store, name).bytes()) for name in bucket.names())
    assert [piece for piece in secrets_of("ann-0", "ann-1", "ann2-0") if piece in left] == []
    assert corpus.verify().ok
    with pytest.raises(UsageError, match=f"version {version} is gone"):
        Corpus.open(bucket.location, version)
    assert corpus.commit(add_shard(corpus, "ann-0", player="ann")).committed == ()


def test_the_others_keep_their_steps_and_only_shards_that_held_some_are_rewritten(
    tmp_path: Path,
) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    corpus.commit(add_shard(corpus, "eve-0", player="eve"))
    before, shard_of_eve = content(corpus), corpus.episodes["shard"][-1]

    report = forget(corpus, ANN)

    assert (report.episodes, report.recordings, report.steps) == (3, 2, 60)
    assert (report.shards_left, report.shards_rewritten) == (0, 1)
    assert content(corpus) == {name: before[name] for name in ("bob-0", "cem-0", "dan-0", "eve-0")}
    assert corpus.episodes["shard"][-1] == shard_of_eve


def test_a_match_and_a_recording_can_be_forgotten_too(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")

    forget(corpus, {"match": ["m1"], "recording": [recording_of("dan-0")]})

    assert corpus.episodes["episode"].to_list() == ["ann2-0", "bob-0", "cem-0"]


def test_older_versions_can_be_read_until_a_vacuum_which_then_says_why_not(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    version = corpus.version
    forget(corpus, ANN)
    assert Corpus.open(tmp_path / "c", version).read_episode("ann-0").n_steps == 20

    vacuum(corpus)

    with pytest.raises(UsageError, match=r"version \d is gone: a vacuum .* forgotten since"):
        Corpus.open(tmp_path / "c", version)
    assert Corpus.open(tmp_path / "c", corpus.version).verify().ok


def test_who_was_forgotten_is_left_out_of_commits_unless_that_is_asked_for(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    forget(corpus, ANN)
    runner = Corpus.open(tmp_path / "c")
    again = add_shard(runner, "ann-0", "ann-1", player="ann")
    another = add_shard(runner, "ann3-0", player="ann")
    nameless = add_shard(runner, "ann2-0")

    report = runner.commit([*again, *another, *nameless])

    assert report.committed == ()
    assert report.forgotten == tuple(sorted(map(recording_of, ("ann-0", "ann2-0", "ann3-0"))))
    assert runner.commit(another, allow_forgotten=True).committed == (recording_of("ann3-0"),)


def test_copies_made_later_keep_out_the_same(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    forget(corpus, ANN)
    compact_to(corpus, tmp_path / "d", "mapped")
    copy = Corpus.open(tmp_path / "d")

    assert copy.commit(add_shard(copy, "ann-0", player="ann")).committed == ()


def test_a_refused_input_of_a_forgotten_recording_leaves_the_quarantine(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    rows = [
        QuarantineRow(f"{name}.mp4", recording_of(name), "ingest", Reason.CORRUPT, "m", "other")
        for name in ("ann-0", "bob-0")
    ]
    corpus.commit([], rows)

    forget(corpus, ANN)
    vacuum(corpus)

    assert Corpus.open(tmp_path / "c").quarantine["path"].to_list() == ["bob-0.mp4"]
    assert b"ann-0.mp4" not in bytes_of(tmp_path / "c")


def test_an_account_of_a_run_no_longer_names_a_forgotten_file(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")

    forget(corpus, ANN)

    (account,) = (tmp_path / "c" / "runs").iterdir()
    assert json.loads(account.read_text()) == {
        "sources": ["recordings"],
        "exit_code": 0,
        "log": {"episodes": 5, "quarantine": 0},
    }


def test_nobody_by_that_name_changes_nothing(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    version = corpus.version

    with pytest.raises(UsageError, match=r"no episode of player 'an' .* nothing was changed"):
        forget(corpus, {"player": ["bob", "an"]})
    with pytest.raises(UsageError, match="nothing to forget"):
        forget(corpus, {"player": []})

    assert Corpus.open(tmp_path / "c").version == version
    assert not (tmp_path / "c" / "forgotten").exists()


def test_forgetting_somebody_again_does_nothing(tmp_path: Path) -> None:
    corpus = mixed_corpus(tmp_path / "c")
    version = forget(corpus, ANN).version

    assert forget(corpus, ANN).version == version


class _Overtaken(Corpus):
    """A corpus into which others commit just before its next change."""

    def amend(self, operation: str, amended: Callable[[list[pa.Table]], list[pa.Table]]) -> None:
        """See `Corpus.amend`."""
        meanwhile, self.meanwhile = self.meanwhile, []
        for act in meanwhile:
            act(Corpus.open(self.location))
        super().amend(operation, amended)

    meanwhile: list[Callable[[Corpus], object]]


def test_what_others_commit_in_the_meantime_is_forgotten_too_or_kept(tmp_path: Path) -> None:
    mixed_corpus(tmp_path / "c")
    corpus = _Overtaken.open(tmp_path / "c")
    assert isinstance(corpus, _Overtaken)
    corpus.meanwhile = [
        lambda other: other.commit(
            add_shard(other, "ann4-0", "gus-0", player="ann"), allow_forgotten=True
        ),
        lambda other: other.commit(add_shard(other, "eve-0", player="eve")),
        compact,
    ]

    report = forget(corpus, ANN)

    assert report.episodes == 5
    assert corpus.episodes["episode"].to_list() == ["bob-0", "cem-0", "dan-0", "eve-0"]
    assert corpus.verify().ok


KILLED_EVERYWHERE = """
import os, shutil, sys, json
from pathlib import Path
import deltalake, polars, pyarrow  # here, so that no fork has to
from wham_data import faults
from wham_data.corpus import Corpus
from wham_data.corpus import verify
from wham_data.corpus.forget import forget
from wham_data.corpus.vacuum import vacuum

def in_a_child(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]

def killed(location, fault):
    faults.arm(fault)
    forget(Corpus.open(location), {"player": ["ann"]})

def finished(location):
    corpus = Corpus.open(location)
    forget(corpus, {"player": ["ann"]})
    vacuum(corpus, older_than_seconds=0)
    assert corpus.verify().ok
    files = sorted(p.relative_to(location).as_posix() for p in Path(location).glob("shards/*"))
    rows = corpus.episodes.drop("created").rows(named=True)
    (Path(location) / "found").write_text(json.dumps([files, rows, corpus.version], default=str))

pyarrow.table({'a': [1]})  # loads pandas where there is one
base, points = Path(sys.argv[1]), ("name.written", "name.linked")
kills = 0
for point in points:
    for number in range(1, 100):
        location = base.parent / f"{point}{number}"
        shutil.copytree(base, location, copy_function=shutil.copy2)
        status = in_a_child(lambda: killed(location, f"{point}@{number}:kill"))
        assert os.WIFSIGNALED(status) or status == 0, status
        assert in_a_child(lambda: finished(location)) == 0
        kills += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            break
print(kills)
"""


def test_killed_anywhere_the_same_again_does_the_rest(tmp_path: Path) -> None:
    mixed_corpus(tmp_path / "c")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, str(tmp_path / "c")],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 6

    found = {path.read_text() for path in tmp_path.glob("name.*/found")}
    assert len(found) == 1
    shutil.rmtree(tmp_path)


KEY = PlayerKey(b"sixteen bytes or more")


def keyed(location: Path) -> Corpus:
    corpus = small_corpus(location, settings={"player_key": KEY.check})
    corpus.commit(add_shard(corpus, "eve-0", player=KEY.pseudonym("eve")))
    return corpus


def test_with_the_key_a_player_is_found_by_name_and_without_it_by_pseudonym(tmp_path: Path) -> None:
    corpus = keyed(tmp_path / "c")
    stored = KEY.pseudonym("eve")

    assert players_as_stored(corpus, ["eve"], KEY) == {stored}
    assert players_as_stored(corpus, [stored], KEY) == {stored}
    assert players_as_stored(corpus, [stored], None) == {stored}
    with pytest.raises(UsageError, match="'eve' is none; give the pseudonym, or the name and"):
        players_as_stored(corpus, ["eve"], None)
    with pytest.raises(MismatchError, match="pseudonyms of another key"):
        players_as_stored(corpus, ["eve"], PlayerKey(b"another sixteen bytes"))


def test_a_mark_of_a_pseudonym_is_not_the_pseudonym(tmp_path: Path) -> None:
    corpus = keyed(tmp_path / "c")
    forget(corpus, {"player": players_as_stored(corpus, ["eve"], KEY)})
    vacuum(corpus)

    assert KEY.pseudonym("eve").encode() not in bytes_of(tmp_path / "c")
    assert not any(KEY.pseudonym("eve") in path.name for path in tmp_path.rglob("*"))
    again = add_shard(corpus, "eve-0", player=KEY.pseudonym("eve"))
    assert corpus.commit(again).committed == ()
