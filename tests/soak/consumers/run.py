"""Open what we export with the programs that it is made for, and compare every value.

    python tests/soak/consumers/run.py [--environment build/consumers] [--only lerobot,minari,...]

LeRobot's `LeRobotDataset`, Minari, webdataset and MosaicML's streaming are installed into an
environment of their own, where nothing of ours is. Each opens exports of three corpora: that of the
bundled recordings, one with states, rewards, texts, numbered actions and some that are not known, and
one of JPEGs. A line for each; the first value that differs ends it with exit 1.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.corpora import TOKENIZER  # noqa: E402
from makers.exports import picture_corpus  # noqa: E402

import wham_data  # noqa: E402
from wham_data.corpus import Corpus  # noqa: E402

CONSUMERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "lerobot": ("lerobot", {}),
    "lerobot pictures=image": ("lerobot", {"pictures": "image"}),
    "minari": ("minari", {}),
    "webdataset": ("webdataset", {}),
    "mds": ("mds", {}),
}
"""By what is printed: the format, whose reader is read_<format>.py, and the options of the export."""


def environment(folder: Path) -> dict[str, str]:
    """Install the programs into a folder, or bring it up to date; the variables to run them with."""
    if not (folder / "bin/python").exists():
        venv.create(folder, with_pip=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pin for pin in pins if pin.startswith("torch==")))
    subprocess.run([*pip, "-c", constraints, "-r", HERE / "requirements.txt"], check=True)
    subprocess.run([*pip, "--no-deps", "-r", HERE / "requirements-without-deps.txt"], check=True)
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HF_HUB_OFFLINE": "1",
        "LD_LIBRARY_PATH": str(ffmpeg_of(folder)),
    }


def ffmpeg_of(folder: Path) -> Path:
    """A folder in which torchcodec finds FFmpeg: the libraries of PyAV, under their usual names."""
    links = folder / "ffmpeg"
    links.mkdir(exist_ok=True)
    for library in folder.glob("lib/python*/site-packages/av.libs/lib*.so.*"):
        name, _, rest = library.name.partition("-")
        if name.startswith(("libav", "libsw")):
            link = links / f"{name}.so.{rest.split('.so.')[1].split('.')[0]}"
            link.unlink(missing_ok=True)
            link.symlink_to(library.absolute())
    return links


def corpora(folder: Path) -> dict[str, Corpus]:
    """The corpora, by what they are called in a line."""
    recordings = Path(str(files("wham_data.pipelines"))) / "demo_recordings"
    wham_data.ingest(
        [recordings], out=folder / "bundled/corpus", frames="png", actions="wham16", workers=0
    )
    split = {"e0": "train", "e1": "val", "e2": "train", "e3": "test"}
    episodes = {name: {"split": each, "n_steps": 30} for name, each in split.items()}
    picture_corpus(
        folder / "told/corpus", "discrete4", episodes, unknown=(11,), size=(95, 63),
        rate=Fraction(20), state_size=3, reward=True, text=True, tokenizer=TOKENIZER,
    )  # fmt: skip
    picture_corpus(folder / "jpeg/corpus", "vpt", episodes, frames="jpeg", state_size=1)
    return {name: Corpus.open(folder / name / "corpus") for name in ("bundled", "told", "jpeg")}


def pixels(coded: bytes) -> np.ndarray:
    """A picture as Pillow decodes it, like the consumers: JPEG decoders differ by a few levels."""
    return np.asarray(Image.open(io.BytesIO(coded)).convert("RGB"))


def write_expected(corpus: Corpus, path: Path) -> None:
    """What the corpus holds, as `expected.py` describes it."""
    steps = corpus.scan().sort("split", "episode", "step").collect()
    sizes = {"actions": corpus.info.action_space.size, "state": corpus.info.state_size}
    columns = {name: steps[name].to_numpy() for name in ("step", "time_ns")}
    columns |= {name: np.array(steps[name].to_list(), "U") for name in ("episode", "split")}
    columns["known"] = steps["actions"].is_not_null().to_numpy()
    columns["frames"] = np.stack([pixels(each) for each in steps["frame"]])
    for name, size in sizes.items():
        if size:
            rows = [[np.nan] * size if row is None else row for row in steps[name].to_list()]
            columns[name] = np.array(rows, np.float32)
    if corpus.info.tokenizer:
        columns["tokens"] = np.array(steps["tokens"].to_list(), np.uint16)
    if corpus.info.reward:
        columns["reward"] = steps["reward"].cast(pl.Float32).to_numpy()
    if corpus.info.text:
        columns["text"] = np.array(steps["text"].to_list(), "U")
    np.savez(path, **columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=Path("build/consumers"))
    parser.add_argument("--only", default="", help="formats, with commas between; default: all")
    arguments = parser.parse_args()
    variables = environment(arguments.environment.absolute())
    python = arguments.environment.absolute() / "bin/python"
    only = [each for each in arguments.only.split(",") if each]
    failed = False
    with tempfile.TemporaryDirectory(prefix="wham-data-consumers-") as name:
        folder = Path(name)
        for corpus_name, corpus in corpora(folder).items():
            write_expected(corpus, folder / corpus_name / "expected.npz")
            for label, (format_name, options) in CONSUMERS.items():
                if only and format_name not in only:
                    continue
                out = folder / corpus_name / label.replace(" ", "-")
                report = wham_data.export(corpus, to=format_name, out=out, options=options)
                read = [python, HERE / f"read_{format_name}.py", out]
                done = subprocess.run(
                    read, env=variables, cwd=folder, capture_output=True, text=True, check=False
                )
                bad = done.returncode != 0 or report.failed
                failed = failed or bool(bad)
                said = done.stdout if done.returncode == 0 else done.stderr
                lines = said.splitlines()[-1 if not bad else -12 :]
                print(f"{'WRONG' if bad else 'right'}  {corpus_name}, {label}:", end=" ")
                print("\n".join(lines), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
