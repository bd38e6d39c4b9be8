"""Verify finds every flipped bit and every lie, names the place, and cries no wolf."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers.corpora import TOKENIZER, add_shard, info, small_corpus

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.delta.table import Change, ManifestTable, Snapshot
from wham_data.corpus.shards import CORPUS_KEY
from wham_data.corpus.storage.contract import hash_file
from wham_data.corpus.storage.local import LocalStorage
from wham_data.schemas.errors import IntegrityError
from wham_data.schemas.manifest import EPISODES_SCHEMA

Record = dict[str, Any]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return small_corpus(tmp_path / "c")


def problems(corpus: Corpus) -> str:
    return "\n".join(Corpus.open(corpus.location).verify().problems)


def shard_of_ann(corpus: Corpus) -> Path:
    """The shard with the episodes ann-0 (rows 0 to 20) and ann-1 (rows 20 to 40)."""
    return corpus.shard_path(corpus.episodes.row(0, named=True)["shard"])


def let_manifest_say(corpus: Corpus, change: Callable[[Record], None]) -> None:
    """Change the manifest's rows of ann, with a proper transaction."""
    table = ManifestTable(LocalStorage(Path(corpus.location)), "episodes", EPISODES_SCHEMA)

    def plan(snapshot: Snapshot) -> Change:
        records = table.read(list(snapshot.files)).to_pylist()
        for record in records:
            if record["episode"].startswith("ann"):
                change(record)
        rows = pa.Table.from_pylist(records, schema=EPISODES_SCHEMA)
        return Change(rows, remove=tuple(snapshot.files))

    table.transact(table.snapshot(), plan)


def let_shard_say(corpus: Corpus, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change ann's shard, and let the manifest agree to its hash: a lie, not damage."""
    path = shard_of_ann(corpus)
    metadata = {k: v for k, v in pq.read_metadata(path).metadata.items() if k != b"ARROW:schema"}
    table = change(pq.read_table(path).replace_schema_metadata(metadata))
    pq.write_table(
        table, path, compression="NONE", use_dictionary=["episode"], write_page_checksum=True
    )
    let_manifest_say(corpus, lambda record: record.update(shard_sha256=hash_file(path)))


def with_values(name: str, change: Callable[[list[Any]], None]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        values = table.column(name).to_pylist()
        change(values)
        field = table.schema.field(name)
        return table.set_column(
            table.schema.get_field_index(name), field, pa.array(values, field.type)
        )

    return changed


def swap(first: int, second: int) -> Callable[[list[Any]], None]:
    def swapped(values: list[Any]) -> None:
        values[first], values[second] = values[second], values[first]

    return swapped


def put(index: int, value: object) -> Callable[[list[Any]], None]:
    def changed(values: list[Any]) -> None:
        values[index] = value

    return changed


def test_a_sound_corpus_has_no_problems(corpus: Corpus) -> None:
    report = corpus.verify()
    assert (report.problems, report.notes, report.ok) == ((), (), True)
    assert (report.shards, report.episodes, report.steps) == (2, 4, 80)
    assert report.n_bytes == sum(
        p.stat().st_size for p in Path(corpus.location, "shards").iterdir()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": Fraction(30000, 1001)},
        {"rate": "native"},
        {"tokenizer": None},
        {"frames": "jpeg"},
        {"layout": "cold"},
    ],
)
def test_a_sound_corpus_of_any_kind_has_no_problems(tmp_path: Path, changes: Any) -> None:
    corpus = small_corpus(tmp_path / "c", **changes)
    corpus.commit(add_shard(corpus, "long-0", n_steps=5000))
    assert corpus.verify().problems == ()


def test_every_one_of_400_flipped_bits_is_found(corpus: Corpus) -> None:
    path = shard_of_ann(corpus)
    whole = path.read_bytes()
    dice = random.Random(7)
    for _ in range(400):
        place, bit = dice.randrange(len(whole)), dice.randrange(8)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        found = corpus.verify().problems
        assert any(path.name in line for line in found), f"byte {place}, bit {bit}"
    path.write_bytes(whole)
    assert corpus.verify().ok


def test_without_hashes_the_page_checksums_still_find_a_flipped_bit_in_the_steps(
    corpus: Corpus,
) -> None:
    path = shard_of_ann(corpus)
    tokens = corpus.read_episode("ann-0").tokens
    assert tokens is not None
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(tokens.tobytes()) + 5] ^= 1
    path.write_bytes(damaged)
    assert "row group 0 is corrupt" in "\n".join(corpus.verify(hashes=False).problems)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_values("step", swap(10, 11)), "row 10: step 11, expected 10"),
        (with_values("step", put(17, 18)), "row 17: step 18, expected 17: a gap"),
        (with_values("time_ns", swap(3, 4)), "row 3: time .* off the grid of 10 Hz"),
        (with_values("time_ns", swap(3, 4)), "row 4: time .* does not come after"),
        (with_values("tokens", put(5, b"\xff" * 12)), "row 5: token 65535 is out of range.* 64"),
        (with_values("actions", put(2, b"\0\0\xc0\x7f" * 3)), "row 2: .* marked as known, but"),
        (with_values("action_known", put(3, False)), "row 3: .* marked as not known, but"),
        (with_values("action_known", put(3, False)), "has 3 steps without an action, .* 2"),
        (with_values("episode", put(25, "ann-0")), "row 25: episode ann-0, expected ann-1"),
        (lambda t: t.drop_columns(["actions"]), "column actions is missing"),
        (lambda t: t.replace_schema_metadata({}), "no corpus metadata"),
        (lambda t: t.slice(0, 39), "its episodes have 40 steps, but it has 39 rows"),
        (
            lambda t: t.replace_schema_metadata(
                {
                    **t.schema.metadata,
                    CORPUS_KEY: info(
                        tokenizer=replace(TOKENIZER, fingerprint="fingerprint-2")
                    ).to_json(),
                }
            ),
            'tokenizer.fingerprint: "fingerprint-2", not "fingerprint-1"',
        ),
    ],
)
def test_a_lie_in_a_shard_is_found(corpus: Corpus, change: Any, told: str) -> None:
    let_shard_say(corpus, change)
    found = Corpus.open(corpus.location).verify().problems
    assert any(re.search(told, line) for line in found), found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shard": "../../../../etc/passwd"}, "unsafe path '../../../../etc/passwd'"),
        ({"shard": "http://host/x.parquet"}, "unsafe path"),
        ({"shard": f"{'0' * 24}.parquet"}, "the shard is missing"),
        ({"shard_sha256": "0" * 64}, f"but the manifest has {'0' * 64}"),
        ({"n_steps": 4000}, "4000 rows from 0 in the manifest, 20 from 0 in the shard"),
        ({"row_start": 7}, "20 rows from 7 in the manifest"),
        ({"episode": "ann-9"}, "episode ann-9 appears 2 times"),
        ({"start_ns": 1}, "but the manifest has 1"),
        ({"settings": "0" * 24}, f"settings {'0' * 24}, but corpus.json has"),
        ({"tokenizer": "fingerprint-2"}, "tokenizer fingerprint-2, but corpus.json has"),
        ({"split": "holdout"}, "split 'holdout' is none of train, val, test"),
        ({"keep": [{"start": 3, "end": 21}]}, "keep range"),
    ],
)
def test_a_lie_in_the_manifest_is_found(corpus: Corpus, changes: Record, told: str) -> None:
    let_manifest_say(corpus, lambda record: record.update(changes))
    assert told in problems(corpus)


def test_a_missing_truncated_or_foreign_shard_is_named(corpus: Corpus) -> None:
    path = shard_of_ann(corpus)
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole[:-300],
        b"episode,step\na,0\n",
        b"",
        b"\0" * 900,
    ):
        path.write_bytes(content)
        told = problems(corpus)
        assert f"shards/{path.name}: corrupt: sha256 is" in told
        assert "truncated or not a Parquet file" in told
    path.unlink()
    assert f"{path.name}: the shard is missing" in problems(corpus)


def test_all_problems_are_listed_not_the_first_only(corpus: Corpus) -> None:
    for path in Path(corpus.location, "shards").iterdir():
        path.write_bytes(b"gone")
    let_manifest_say(corpus, lambda record: record.update(split="holdout"))
    told = problems(corpus)
    assert told.count("corrupt: sha256") == 2
    assert told.count("holdout") == 2


def test_a_damaged_manifest_is_a_problem_or_an_error_of_opening(corpus: Corpus) -> None:
    for path in Path(corpus.location, "episodes").glob("*.parquet"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    assert "is missing or corrupt" in problems(corpus)
    assert not Corpus.open(corpus.location).verify().ok


def test_a_damaged_corpus_json_is_an_error_of_opening(corpus: Corpus) -> None:
    path = Path(corpus.location, "corpus.json")
    described = json.loads(path.read_text())
    path.write_text(json.dumps({**described, "format_version": 99}))
    with pytest.raises(IntegrityError, match="needs wham-data >= 99"):
        Corpus.open(corpus.location)
    path.write_text(json.dumps({**described, "rate": "20"}))
    told = problems(corpus)
    assert 'rate: "10", not "20"' in told
    assert "but corpus.json has" in told


def test_what_is_no_damage_is_a_note(corpus: Corpus) -> None:
    rows = add_shard(corpus, "dan-0", player="ann", split="test")
    corpus.write_shard([corpus.read_episode("ann-0")], "0" * 24)
    corpus.adopt(rows)
    report = corpus.verify()
    assert report.ok
    assert len(report.notes) == 2
    assert "player ann is in test and train" in report.notes[0]
    assert re.search(f"1 file is not part of this version.*{'0' * 24}", report.notes[1])


def test_a_shard_with_more_episodes_than_the_manifest_is_a_note(corpus: Corpus) -> None:
    corpus.commit(add_shard(corpus, "dan-0", "eve-0")[:1])
    report = corpus.verify()
    assert report.ok
    assert "1 of its episodes are not in the manifest" in report.notes[0]
