"""The card has the numbers of the corpus and a person's words, and nobody's name by accident."""

from __future__ import annotations

import hashlib
import html
import io
import json
import os
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from makers.corpora import add_shard, info, small_corpus
from makers.exports import picture_corpus
from makers.object_stores import Bucket
from markdown_it import MarkdownIt
from PIL import Image

from wham_data.corpus.corpus import Corpus
from wham_data.corpus.delta.table import Change, ManifestTable
from wham_data.corpus.vacuum import vacuum
from wham_data.pipelines.curate.card import croissant, readme
from wham_data.pipelines.curate.card.escape import plain, quoted
from wham_data.pipelines.curate.card.job import CardReport, write_card
from wham_data.pipelines.curate.card.readme import size_category
from wham_data.pipelines.curate.card.words import QUESTIONS, read_words, template
from wham_data.schemas.errors import NoInputsError, Reason, UsageError
from wham_data.schemas.manifest import QuarantineRow
from wham_data.schemas.player_key import SETTING

EVIL = "|](x)<script>alert(1)</script> --- \"' `#\\ {{ @me & www.evil.org http://e.org\u202e\n# head\n---"
"""A name that would break Markdown, YAML, JSON or HTML, were it taken for more than a text."""


def text_of(corpus: Corpus, name: str = "README.md") -> str:
    return (Path(corpus.location) / name).read_text()


def front_matter(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("\n---\n")[0])
    assert isinstance(found, dict)
    return found


def answer(corpus: Corpus, **answers: str) -> None:
    (Path(corpus.location) / "card.toml").write_text(
        "".join(f"{key} = {json.dumps(text)}\n" for key, text in answers.items())
    )


def test_the_card_has_the_numbers_of_the_corpus(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    settings = corpus.info.settings_hash
    refused = QuarantineRow("in/ann.mp4", "ab" * 32, "decode", Reason.TRUNCATED, "cut", settings)
    corpus.commit(add_shard(corpus, "long-0", n_steps=2_000, keep=((0, 500),)), [refused])
    report = write_card(corpus.location)
    text = text_of(corpus)

    for part in (
        "5 episodes of 4 recordings, 2,080 steps, in the action space pad",
        "| train | 3 | 2,040 | 0.057 |",
        "| maze | 2 | 40 | 0.0011 |",
        "| CC0-1&#46;0 | 2 | 40 | 0.0011 |",
        "| truncated | 1 |",
        "0.016 of 0.058 hours are marked for training",
        "Do the actions belong to the pictures?\n\nNot measured.",
        "menus and pauses: not measured",
        "2x3 of 64, by tiny",
    ):
        assert part in text
    assert "in/ann" not in text
    assert report.version == corpus.version


def test_the_front_matter_names_the_files_of_each_split(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    write_card(corpus.location)
    found = front_matter(text_of(corpus))
    steps, episodes = found["configs"]
    paths = {each["split"]: each["path"] for each in steps["data_files"]}

    assert (found["license"], found["size_categories"]) == ("other", ["n<1K"])
    for split in ("train", "val"):
        rows = corpus.episodes.filter(split=split)
        assert paths[split] == [f"shards/{name}" for name in sorted(set(rows["shard"]))]
    assert len(episodes["data_files"][0]["path"]) == 2


def test_hugging_face_loads_the_folder_by_its_card(tmp_path: Path) -> None:
    import datasets

    corpus = small_corpus(tmp_path / "c")
    write_card(corpus.location)
    steps = datasets.load_dataset(corpus.location, cache_dir=str(tmp_path / "cache"))

    assert {split: len(rows) for split, rows in steps.items()} == {"train": 40, "val": 40}


def test_hugging_face_gets_many_files_by_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(readme, "MOST_FILES", 1)
    corpus = small_corpus(tmp_path / "c")
    write_card(corpus.location)
    steps = datasets.load_dataset(corpus.location, cache_dir=str(tmp_path / "cache"))

    assert {split: len(rows) for split, rows in steps.items()} == {"mixed": 80}


@pytest.mark.parametrize("rate", ["native", Fraction(30000, 1001)])
def test_a_corpus_of_any_rate_has_a_card(tmp_path: Path, rate: Any) -> None:
    corpus = Corpus.create(tmp_path / "c", info(rate=rate, frames="jpeg", layout="cold"))
    corpus.commit(add_shard(corpus, "ann-0", n_steps=60))
    write_card(corpus.location)

    assert "1 episodes of 1 recordings, 60 steps" in text_of(corpus)


def test_a_corpus_without_a_known_action_has_a_card(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    corpus.commit(add_shard(corpus, "ann-0", keep=()))
    files = write_card(corpus.location).files

    assert "card/hours.png" in files
    assert "card/controls.png" not in files
    assert "of the 0 steps that are kept" in text_of(corpus)


def test_a_shard_with_episodes_of_two_splits_belongs_to_neither(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info())
    first, second = add_shard(corpus, "ann-0", "bob-0")
    object.__setattr__(second, "split", "test")
    corpus.commit([first, second])
    write_card(corpus.location)

    assert front_matter(text_of(corpus))["configs"][0]["data_files"][0]["split"] == "mixed"


def test_what_a_person_must_say_is_missing_until_it_is_said(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    report = write_card(corpus.location)
    assert report.asked
    assert "consent" in report.missing
    assert "- `consent`: Did the players agree" in text_of(corpus).split("\n## Missing\n")[1]
    assert "Not stated yet (card.toml: consent)" in text_of(corpus, "croissant.json")

    answer(
        corpus, consent="All *signed*.", title="Mazes", licence="CC-BY-4.0", purpose="World models."
    )
    report = write_card(corpus.location)
    described = json.loads(text_of(corpus, "croissant.json"))
    assert not report.asked
    assert {"consent", "purpose"}.isdisjoint(report.missing)
    assert "- `consent`" not in text_of(corpus)
    assert "## Consent\n\nAll *signed*." in text_of(corpus)
    assert front_matter(text_of(corpus))["license"] == "cc-by-4.0"
    assert described["name"] == "Mazes"
    assert described["rai:dataUseCases"] == "World models."
    assert "All *signed*." in described["rai:personalSensitiveInformation"]


def test_a_card_made_again_is_the_same_and_keeps_the_answers(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    write_card(corpus.location)
    answer(corpus, purpose="Ours.")

    def files() -> dict[str, bytes]:
        root = Path(corpus.location)
        return {name: (root / name).read_bytes() for name in write_card(root).files}

    first = files()
    assert files() == first
    assert first["card.toml"] == b'purpose = "Ours."\n'


@pytest.mark.parametrize("name", ["README.md", "croissant.json"])
def test_a_file_that_a_person_changed_is_not_replaced_unasked(tmp_path: Path, name: str) -> None:
    corpus = small_corpus(tmp_path / "c")
    write_card(corpus.location)
    path = Path(corpus.location) / name
    path.write_text(path.read_text().replace("gameplay", "game play"))
    with pytest.raises(UsageError, match=r"a person wrote or changed this file.*--force"):
        write_card(corpus.location)
    write_card(corpus.location, force=True)
    assert "game play" not in path.read_text()


def test_a_run_that_was_killed_before_its_last_file_can_be_repeated(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    write_card(corpus.location)
    old = text_of(corpus)
    corpus.commit(add_shard(corpus, "new-0"))
    write_card(corpus.location)
    (Path(corpus.location) / "README.md").write_text(old)
    write_card(corpus.location)

    assert "5 episodes" in text_of(corpus)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("purpos = 'x'", "purpos"),
        ("purpose = 3", "expected a text"),
        ("purpose = 'x", "not TOML"),
        ("tags = 'x'", "expected a list"),
        ("published = 'soon'", "expected a date"),
    ],
)
def test_a_card_toml_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_words(text.encode(), "card.toml")


def test_the_questions_are_asked_in_a_file_that_is_read_as_unanswered() -> None:
    words = read_words(template().encode(), "card.toml")

    assert not words.texts
    assert all(each.ask in template() for each in QUESTIONS)


def test_names_of_players_are_counted_and_shown_on_request_alone(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    assert write_card(corpus.location).players == "names hidden"
    for name in ("README.md", "croissant.json"):
        assert "ann" not in text_of(corpus, name).replace("planned", "")
    assert "2 players. The data has their names" in text_of(corpus)

    assert write_card(corpus.location, show_players=True).players == "names shown"
    assert "| ann | 2 | 40 |" in text_of(corpus)


def test_pseudonyms_are_shown(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(settings={SETTING: "0" * 16}))
    corpus.commit(add_shard(corpus, "ann-0", player="ab" * 16))

    assert write_card(corpus.location).players == "pseudonyms"
    assert f"| {'ab' * 16} | 1 | 20 |" in text_of(corpus)


def test_a_name_where_pseudonyms_should_be_is_not_shown(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "c", info(settings={SETTING: "0" * 16}))
    corpus.commit(add_shard(corpus, "xyz-0", player="Real Name"))

    assert write_card(corpus.location).players == "names hidden"
    assert "Real Name" not in text_of(corpus)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / EVIL.replace("/", ";")[:40], info(settings={"a": EVIL}))
    refused = QuarantineRow(EVIL, "ab" * 32, "open", EVIL, EVIL, corpus.info.settings_hash)
    corpus.commit(
        add_shard(corpus, "ann-0", player=EVIL, game=EVIL, map=EVIL, license=EVIL), [refused]
    )
    write_card(corpus.location, show_players=True)
    text = text_of(corpus)
    body = text.split("\n---\n", 1)[1]

    assert front_matter(text)["license_name"] == EVIL.replace("\u202e", "\\u202e").replace(
        "\n", "\\n"
    )
    for active in ("<script", "](x)", "www.evil", "http://e", "\n# head", "@me", "\u202e"):
        assert active not in body
    shown = (
        MarkdownIt("commonmark")
        .enable("table")
        .parse(body.replace("<!-- ", "").replace(" -->", ""))
    )
    inline = [child.type for token in shown for child in token.children or ()]
    assert {"html_block", "hr"}.isdisjoint(token.type for token in shown)
    assert {"html_inline", "link_open"}.isdisjoint(inline)
    assert sum(kind == "image" for kind in inline) == 3
    tables = [line for line in body.splitlines() if "alert" in line and line.startswith("|")]
    assert {line.count("|") for line in tables} <= {3, 5}  # of two and of four columns
    assert json.loads(text_of(corpus, "croissant.json"))["license"]


def test_escaped_text_has_nothing_active() -> None:
    assert plain("a|b") == "a&#124;b"
    assert plain("cc-by 4.0, (x)") == "cc-by 4&#46;0, (x)"
    assert plain("Art: MIT.") == "Art: MIT."
    assert len(html.unescape(plain("x" * 500))) == 120
    assert yaml.safe_load(quoted(EVIL)).startswith("|](x)<script>")
    assert yaml.safe_load(quoted(["é🎮", "\x85\ufeff\x00"])) == ["é🎮", "\\x85\\ufeff\\x00"]


@pytest.mark.parametrize(
    ("rows", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (5 * 10**8, "100M<n<1B"), (10**13, "n>1T")],
)
def test_sizes_have_the_names_of_the_hub(rows: int, size: str) -> None:
    assert size_category(rows) == size


def test_the_pictures_are_there_and_small(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    corpus.commit(
        add_shard(corpus, "long-0", n_steps=500, game="A game of \u30de\u30a4\u30f3 " * 9)
    )
    pictures = [name for name in write_card(corpus.location).files if name.endswith(".png")]

    assert pictures == ["card/hours.png", "card/controls.png", "card/holds.png"]
    for name in pictures:
        assert f"]({name})" in text_of(corpus)
        content = (Path(corpus.location) / name).read_bytes()
        assert len(content) < 200_000
        assert Image.open(io.BytesIO(content)).width == 1440


def test_the_audit_is_summed_up_from_its_table(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    rows = pa.table(
        {
            "episode": ["ann-0", "ann-1", "bob-0", "gone-0"],
            "verdict": ["ok", "late", "unmeasurable", "unrelated"],
            "lag_ms": [10.0, 130.0, None, 900.0],
            "menu": [0.5, 0.0, 0.0, 1.0],
            "method": ["shift"] * 4,
        }
    )
    table = ManifestTable(corpus.storage, "audit", rows.schema)
    table.create()
    table.transact(table.snapshot(), lambda _: Change(rows))
    write_card(corpus.location)
    text = text_of(corpus)

    for part in (
        "3 of 4 episodes were measured",
        "| late | 1 |",
        "in 2 episodes: median 70 ms, half of them 40 to 100 ms, all 10 to 130 ms",
        "| menu | 0.00028 |",
    ):
        assert part in text
    assert "unrelated" not in text


def test_verify_and_vacuum_leave_the_card_alone(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    files = write_card(corpus.location).files
    leftover = Path(corpus.location) / "card/.tmp-killed"
    leftover.write_bytes(b"half")
    before = corpus.verify()
    report = vacuum(corpus, older_than_seconds=-1)

    assert (before.problems, before.notes) == ((), ())
    assert report.files == {"temporary": ["card/.tmp-killed"]}
    assert all((Path(corpus.location) / name).is_file() for name in files)


def test_a_card_can_be_written_elsewhere_and_of_an_earlier_version(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    report = write_card(corpus.location, tmp_path / "cards" / "c", version=1)

    assert (tmp_path / "cards/c/README.md").is_file()
    assert report.version == 1
    assert "2 episodes of 1 recordings" in (tmp_path / "cards/c/README.md").read_text()
    assert not (Path(corpus.location) / "README.md").exists()


def test_a_corpus_on_an_object_store_gets_its_card_there(bucket: Bucket) -> None:
    corpus = small_corpus(bucket.location)

    def write() -> CardReport:
        return write_card(bucket.location)

    assert write().asked
    assert not write().asked
    assert {"README.md", "croissant.json", "card.toml", "card/hours.png"} <= set(bucket.names())
    assert corpus.verify().problems == ()


def test_a_corpus_without_episodes_has_no_card(tmp_path: Path) -> None:
    Corpus.create(tmp_path / "c", info())
    with pytest.raises(NoInputsError, match="nothing to describe"):
        write_card(tmp_path / "c")


def test_croissant_names_every_file_with_its_hash_and_no_other(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "c")
    add_shard(corpus, "orphan-0")
    write_card(corpus.location)
    described = json.loads(text_of(corpus, "croissant.json"))
    files = [each for each in described["distribution"] if each["@type"] == "cr:FileObject"]
    (steps,) = (each for each in described["distribution"] if each["@id"] == "steps-files")

    assert steps["includes"] == [f"shards/{name}" for name in sorted(set(corpus.episodes["shard"]))]
    assert len(files) == 4
    for each in files:
        content = (Path(corpus.location) / each["contentUrl"]).read_bytes()
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert each["contentSize"] == f"{len(content)} B"


PYTHON = os.environ.get("WHAM_DATA_TEST_CROISSANT_PYTHON") or (
    sys.executable if find_spec("mlcroissant") else None
)
"""A Python with mlcroissant; it is large, so `make soak` installs it beside ours."""
LOADED = """
import json, sys
import mlcroissant
data = mlcroissant.Dataset(sys.argv[1])
assert data.metadata.ctx.is_v1_1()
assert not data.metadata.ctx.issues.errors
rows = [
    {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
    for row in data.records("steps")
]
episodes = [row["episodes/episode"].decode() for row in data.records("episodes")]
pictures = [row.pop("steps/frame").size for row in rows if "steps/frame" in row]
print(json.dumps({"rows": rows, "episodes": sorted(episodes), "pictures": pictures}, default=str))
"""


@pytest.mark.skipif(PYTHON is None, reason="needs a Python with mlcroissant")
@pytest.mark.parametrize("case", ["plain", "hostile", "many files", "pictures"])
def test_mlcroissant_accepts_the_description_and_loads_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    corpus = small_corpus(tmp_path / "c")
    if case == "many files":
        monkeypatch.setattr(croissant, "MOST_LISTED", 1)
    if case == "pictures":
        corpus = picture_corpus(tmp_path / "p", "wham16", 2)
    if case == "hostile":
        corpus.commit(add_shard(corpus, "eve-0", player=EVIL, game=EVIL, license=EVIL))
        answer(corpus, title=EVIL, purpose=EVIL, creator=EVIL, citation=EVIL, consent=EVIL)
    write_card(corpus.location)
    described = Path(corpus.location) / "croissant.json"
    program = [str(PYTHON), "-m", "mlcroissant.scripts.validate", "--jsonld", str(described)]
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(program, env=apart, check=True, capture_output=True)
    run = subprocess.run(
        [str(PYTHON), "-c", LOADED, str(described)], env=apart, check=True, capture_output=True
    )
    found = json.loads(run.stdout)

    shards = [corpus.shard_path(name) for name in sorted(set(corpus.episodes["shard"]))]
    stored = pa.concat_tables(pq.read_table(path) for path in shards).to_pylist()
    assert len(found["pictures"]) == (len(stored) if case == "pictures" else 0)
    assert found["episodes"] == corpus.episodes["episode"].to_list()
    assert [(row["steps/step"], row["steps/actions"]) for row in found["rows"]] == [
        (row["step"], row["actions"].hex()) for row in stored
    ]
