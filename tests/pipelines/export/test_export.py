"""What holds for every export: whole or absent, again for free, licences, and one bad episode."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.exports import actions_of, picture_corpus, tokens_of
from typer.testing import CliRunner

import wham_data
from wham_data.cli.main import app
from wham_data.corpus.corpus import Corpus
from wham_data.inference.tokenizer import load_tokenizer, tokenizer_info
from wham_data.pipelines.export.folder import ExportFolder
from wham_data.pipelines.export.licences import is_restricted
from wham_data.pipelines.export.report import FORMATS
from wham_data.pipelines.readers.kit.options import options_of
from wham_data.pipelines.writers import WRITERS
from wham_data.pipelines.writers.stretches import ExportSource, Stretch, runs_between
from wham_data.schemas.actions import load_space
from wham_data.schemas.conversion import find_conversion
from wham_data.schemas.errors import MismatchError, NoInputsError, UsageError
from wham_data.schemas.manifest import EpisodeRow

WHAM = {"size": (300, 180)}


def files_in(folder: Path) -> dict[str, bytes]:
    """What an export left for others to read."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".export" not in path.parts
    }


def test_a_second_run_writes_nothing_and_says_so(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", **WHAM)
    first = wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")
    there = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/train/*")}

    again = wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    assert (first.written, first.already_there, first.exit_code) == (2, 0, 0)
    assert (again.written, again.already_there, again.exit_code) == (0, 2, 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/train/*")} == there


def test_more_episodes_join_those_that_are_there(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", episodes=3, **WHAM)
    whole = wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "whole")
    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", episodes=1)

    report = wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    assert (whole.written, report.written, report.already_there) == (3, 2, 1)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "whole")


def test_an_interrupted_run_leaves_whole_files_and_the_next_one_the_same_as_one_run(
    tmp_path: Path,
) -> None:
    picture_corpus(tmp_path / "corpus", episodes=3, **WHAM)
    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "whole")

    class Impatient:
        def progressed(self, progress: object) -> None:
            if getattr(progress, "steps_done", 0) == 9:
                raise KeyboardInterrupt

        def message(self, text: str, *, warning: bool, event: object = None) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        wham_data.export(
            tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", watch=Impatient()
        )
    half = files_in(tmp_path / "out")
    report = wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    assert [name for name in half if name.endswith(".npz")] == ["train/e0.npz"]
    assert (report.written, report.already_there) == (2, 1)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "whole")


def test_a_damaged_episode_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes={"good": {}}, **WHAM)
    other = picture_corpus(tmp_path / "other", episodes={"poor": {}}, **WHAM)
    (row,) = other.episodes["shard"]
    content = bytearray((tmp_path / "other/shards" / row).read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "corpus/shards" / row).write_bytes(content)
    with_both = wham_data.Corpus.open(tmp_path / "corpus")
    with_both.commit(rows_of(other))

    report = wham_data.export(corpus.location, to="wham-npz", out=tmp_path / "out")

    assert [each.episode for each in report.failed] == ["poor"]
    assert "corrupt" in report.failed[0].message
    assert (report.found, report.written, report.exit_code) == (2, 1, 3)
    assert [path.name for path in (tmp_path / "out/train").iterdir()] == ["good.npz"]


def rows_of(corpus: Corpus) -> list[EpisodeRow]:
    return [EpisodeRow.from_record(row) for row in corpus.episodes.drop("created").rows(named=True)]


def test_an_episode_is_cut_where_its_action_is_not_known_or_it_is_not_kept(tmp_path: Path) -> None:
    episodes = {"a": {"keep": ((0, 10),)}, "b": {"keep": ((2, 12),)}}
    picture_corpus(tmp_path / "corpus", episodes=episodes, n_steps=12, unknown=(4, 11), **WHAM)

    report = wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    lengths = {p.stem: len(np.load(p)["actions"]) for p in (tmp_path / "out/train").iterdir()}
    assert lengths == {"a": 4, "a.5": 5, "b.2": 2, "b.5": 6}
    assert report.left_out_steps == 24 - 17


def test_a_licence_that_restricts_has_to_be_acknowledged_and_lies_beside_the_export(
    tmp_path: Path,
) -> None:
    episodes = {"a": {"license": "cc-by-nc-4.0"}, "b": {"license": "MIT"}}
    picture_corpus(tmp_path / "corpus", episodes=episodes, **WHAM)

    with pytest.raises(UsageError, match=r"cc-by-nc-4\.0.*--acknowledge-licence"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

    wham_data.export(
        tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", acknowledge_licence=True
    )
    text = (tmp_path / "out/LICENCES.txt").read_text()
    assert "Licence: cc-by-nc-4.0 (restricted" in text
    assert "recordings/b.mp4" in text


@pytest.mark.parametrize(
    ("license", "restricted"),
    [
        (None, False),
        ("MIT", False),
        ("Apache-2.0", False),
        ("CC-BY-SA-4.0", False),
        ("Freedoom levels and art: BSD-3-Clause; VizDoom: MIT", False),
        ("cc-by-nc-4.0", True),
        ("CC BY-NC-SA", True),
        ("non-commercial (personal use and open research)", True),
        ("Microsoft Research Licence", True),
        ("All Rights Reserved", True),
    ],
)
def test_which_licences_restrict(license: str | None, restricted: bool) -> None:
    assert is_restricted(license) == restricted


def test_a_corpus_with_neither_pictures_nor_tokens_is_refused_in_one_line(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", frames="none", **WHAM)

    with pytest.raises(UsageError, match=r"neither pictures nor tokens.*--frames png"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")


def test_pictures_are_decoded_from_tokens_where_none_are_stored_and_that_is_said(
    tmp_path: Path,
) -> None:
    made_by = tokenizer_info("wham-tiny")
    corpus = picture_corpus(
        tmp_path / "corpus", episodes=1, n_steps=2, frames="none", tokenizer=made_by, **WHAM
    )

    report = wham_data.export(corpus, to="wham-npz", out=tmp_path / "out", device="cpu")

    assert report.pictures == "decoded"
    assert "decoded from its tokens, not as recorded" in report.notes[0]
    wanted = load_tokenizer("wham-tiny", "cpu").decode(tokens_of(0, 2, corpus.info))
    with np.load(tmp_path / "out/train/e0.npz") as arrays:
        assert (arrays["images"].transpose(0, 2, 3, 1) == wanted).all()


def test_only_the_tokenizer_that_made_the_tokens_decodes_them(tmp_path: Path) -> None:
    made_by = replace(tokenizer_info("wham-tiny"), name="ours", fingerprint="other")
    content = {"frames": "none", "tokenizer": made_by, **WHAM}
    picture_corpus(tmp_path / "corpus", episodes=1, n_steps=2, **content)

    with pytest.raises(UsageError, match="were made by ours: say where that lies with --tokenizer"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")
    with pytest.raises(MismatchError, match="is not the one that made the tokens"):
        wham_data.export(
            tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", tokenizer="wham-tiny"
        )


def test_a_space_without_a_declared_conversion_is_refused_and_a_mapping_helps(
    tmp_path: Path,
) -> None:
    picture_corpus(tmp_path / "corpus", "discrete3", **WHAM)
    mapping = tmp_path / "map.toml"
    mapping.write_text(
        'source = "discrete3"\ntarget = "wham16"\n[rules]\n'
        f'{load_space("wham16").names[0]} = "action_1"\n'
    )

    with pytest.raises(UsageError, match=r"wham-npz needs actions in wham16.*discrete3.*--mapping"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")
    report = wham_data.export(
        tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", mapping=mapping
    )

    with np.load(tmp_path / "out/train/e0.npz") as arrays:
        pressed = arrays["actions"][:, 0]
    assert pressed.tolist() == actions_of(load_space("discrete3"), 0, 6)[:, 1].tolist()
    assert report.converted_from == "discrete3"
    assert report.lost == ("action_0 and action_2 are dropped.",)


def test_settings_that_differ_from_what_is_there_are_refused_with_the_difference(
    tmp_path: Path,
) -> None:
    picture_corpus(tmp_path / "corpus", **WHAM)
    picture_corpus(tmp_path / "other", frames="jpeg", **WHAM)
    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    with pytest.raises(MismatchError, match="corpus: "):
        wham_data.export(tmp_path / "other", to="wham-npz", out=tmp_path / "out")


def test_what_is_there_may_grow_but_not_be_left_out_of_the_account(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", episodes={"a": {}, "b": {"split": "val"}}, **WHAM)
    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", split=["train"])

    with pytest.raises(MismatchError, match="holds a, which this run would leave out"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", split=["val"])
    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    assert len((tmp_path / "out/episodes.jsonl").read_text().splitlines()) == 2


def test_a_numbered_format_does_not_grow(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", "discrete4")
    wham_data.export(tmp_path / "corpus", to="diamond", out=tmp_path / "out", episodes=1)

    with pytest.raises(MismatchError, match=r"episodes: 1 \(.*not 2 \("):
        wham_data.export(tmp_path / "corpus", to="diamond", out=tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", **WHAM)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("mine")

    with pytest.raises(UsageError, match=r"holds thesis\.doc and no export"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")
    with pytest.raises(UsageError, match="expected a path, s3://bucket/folder or gs://"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out="ftp://bucket/out")
    with pytest.raises(UsageError, match="this is the folder of the corpus"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "corpus/out")


def test_one_export_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", **WHAM)

    with (
        ExportFolder(tmp_path / "out").opened({}),
        pytest.raises(UsageError, match="another export is writing to it"),
    ):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")


def test_splits_are_chosen_by_name_and_an_empty_choice_is_exit_6(tmp_path: Path) -> None:
    picture_corpus(tmp_path / "corpus", episodes={"a": {}, "b": {"split": "val"}}, **WHAM)

    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out", split=["val"])

    assert [p.name for p in tmp_path.glob("out/*/*.npz")] == ["b.npz"]
    with pytest.raises(NoInputsError, match="no episodes in test"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "o", split=["test"])
    with pytest.raises(UsageError, match="--split 'dev'"):
        wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "o", split=["dev"])


def test_episodes_jsonl_tells_where_each_episode_lies_and_comes_from(tmp_path: Path) -> None:
    fields = {"match": "m1", "player": "ann", "game": "maze", "license": "MIT"}
    picture_corpus(tmp_path / "corpus", episodes={"a": fields}, **WHAM)

    wham_data.export(tmp_path / "corpus", to="wham-npz", out=tmp_path / "out")

    (line,) = (tmp_path / "out/episodes.jsonl").read_text().splitlines()
    said = json.loads(line)
    assert said["files"] == ["train/a.npz"]
    assert {name: said[{"license": "license"}.get(name, name)] for name in fields} == fields
    assert said["source"] == "recordings/a.mp4"


def test_the_command_prints_one_json_object_and_an_unknown_format_lists_the_known(
    tmp_path: Path,
) -> None:
    picture_corpus(tmp_path / "corpus", **WHAM)
    run = CliRunner()
    where = [str(tmp_path / "corpus"), "--out", str(tmp_path / "out")]

    done = run.invoke(app, ["export", *where, "--to", "wham-npz", "--json", "-q"])

    assert done.exit_code == 0
    assert json.loads(done.stdout)["written"] == 2
    with pytest.raises(UsageError, match="no such format; there are wham-npz"):
        wham_data.export(tmp_path / "corpus", to="zarr", out=tmp_path / "o")
    with pytest.raises(UsageError, match="--option speed: no option of wham-npz"):
        wham_data.export(
            tmp_path / "corpus", to="wham-npz", out=tmp_path / "o", options={"speed": "2"}
        )


def test_every_format_is_in_the_help_and_on_the_page_of_exports_with_its_options() -> None:
    page = (Path(__file__).parents[3] / "docs/export.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]

    assert tuple(writer.name for writer in WRITERS) == FORMATS
    for writer in WRITERS:
        mine = [row for row in rows if f"`{writer.name}`" in row.split("|")[1]]
        assert mine, writer.name
        assert [name for name in options_of(writer) if f"| `{name}` |" not in "".join(mine)] == []


def test_steps_over_the_edge_of_a_row_group_are_read_in_order(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "vector2", 1, n_steps=5000, frames="none")
    (row,) = rows_of(corpus)
    same = find_conversion(corpus.info.action_space, corpus.info.action_space)

    stretch = Stretch(ExportSource(corpus, same), row, 4000, 4500)

    assert (stretch.actions() == actions_of(load_space("vector2"), 0, 5000)[4000:4500]).all()
    assert (np.diff(stretch.times_ns()) == 100_000_000).all()


@pytest.mark.parametrize(
    ("acted", "pieces"),
    [
        ([1, 1, 1], [(0, 3)]),
        ([1, 1, 0], [(0, 3)]),
        ([0, 1, 1], [(1, 3)]),
        ([1, 0, 1, 0, 0, 1], [(0, 2), (2, 4), (5, 6)]),
        ([0, 0], []),
    ],
)
def test_a_frame_without_a_known_action_ends_what_led_to_it(
    acted: list[int], pieces: list[tuple[int, int]]
) -> None:
    known = np.array(acted, np.bool_)

    assert runs_between(np.ones(len(known), np.bool_), known) == pieces
    assert all(known[start : stop - 1].all() for start, stop in pieces)


def test_what_is_not_kept_is_in_no_piece() -> None:
    good, acted = np.array([1, 1, 0, 1, 1], np.bool_), np.array([1, 0, 1, 1, 1], np.bool_)

    assert runs_between(good, acted) == [(0, 2), (3, 5)]
