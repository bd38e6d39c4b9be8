"""`~/` means the home folder wherever a path can be given, and a folder called `~` never comes to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import Cut, cut

import wham_data
from wham_data.corpus import Corpus
from wham_data.feed import WindowDataset
from wham_data.schemas.errors import UsageError, WhamDataError
from wham_data.schemas.paths import expanded

QUICK = ("--tokenizer", "none", "--workers", "0", "-q")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a recording, and an empty folder to work in."""
    cut(tmp_path / "home" / "in", "play", Cut("coinrun", 0, 1))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("~", "HOME"),
        ("~/corpus", "HOME/corpus"),
        ("~/a/../b c", "HOME/a/../b c"),
        ("./~/corpus", "./~/corpus"),
        ("~$open.csv", "~$open.csv"),
        ("~old/corpus", "~old/corpus"),
        ("a/~/b", "a/~/b"),
        ("s3://bucket/~/corpus", "s3://bucket/~/corpus"),
    ],
)
def test_what_is_expanded(home: Path, path: str, found: str) -> None:
    assert expanded(path) == found.replace("HOME", str(home))


def test_without_a_home_it_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UsageError, match="no home folder is known; set HOME"):
        expanded("~/corpus")


def test_options_arguments_variables_and_files(cli: Run, home: Path) -> None:
    Path("job.toml").write_text(
        '[ingest]\nsources = ["~/in"]\nout = "~/c"\ntokenizer = "none"\nworkers = 0\n'
    )
    variables = {"HOME": str(home)}
    runs = [
        cli("ingest", "~/in", "--out=~/a", *QUICK, **variables),
        cli("ingest", home / "in", *QUICK, WHAM_DATA_INGEST_OUT="~/b", **variables),
        cli("--config", "job.toml", "ingest", "-q", **variables),
        cli("verify", "~/a", **variables),
        cli("quarantine", "list", "~/b", **variables),
        cli("compact", "~/c", "--cold", "--out=~/d", **variables),
        cli("export", "~/a", "--to", "webdataset", "--out=~/e", "-q", **variables),
    ]
    assert [run.returncode for run in runs] == [0] * len(runs), [run.stderr for run in runs]
    assert sorted(each.name for each in home.iterdir()) == ["a", "b", "c", "d", "e", "in"]
    assert [each.name for each in Path().iterdir()] == ["job.toml"]


def test_an_option_of_a_format_that_is_a_file(cli: Run, home: Path) -> None:
    run = cli("ingest", "~/in", "--out=~/a", "--option", "space=~/no.toml", *QUICK, HOME=str(home))
    assert f"{home}/no.toml" in run.stderr


def test_a_config_file_in_the_home_folder(cli: Run, home: Path) -> None:
    (home / "job.toml").write_text('[ingest]\ntokenizer = "none"\nworkers = 0\n')
    run = cli("--config=~/job.toml", "ingest", "~/in", "--out", "~/a", "-q", HOME=str(home))
    assert (run.returncode, (home / "a" / "corpus.json").is_file()) == (0, True)


def test_from_python(home: Path) -> None:
    wham_data.ingest(["~/in"], out="~/a", tokenizer=None, workers=0)
    assert Corpus.open("~/a").location == str(home / "a")
    assert next(iter(WindowDataset("~/a", length=2, split=None, fields=("actions",))))
    for load in (wham_data.load_world_model, wham_data.open_checkpoint):
        with pytest.raises(WhamDataError, match=f"{home}/WHAM.ckpt"):
            load("~/WHAM.ckpt")
    assert not any(Path().iterdir())
