"""Do two checkouts make the same corpus, exports and dreams, byte for byte?

    python tests/equal_to_before.py BEFORE AFTER [--recordings 3] [--steps 2] [--keep FOLDER]

Each makes a corpus of the bundled recordings, exports it in three formats and dreams on from it
with one seed, in processes of its own that import from that checkout. Then everything is compared:
shards, exports and pictures as bytes; the manifest, run by run the same, without what tells when,
where and by whom it was made; dreams array by array. What was compared is printed; the exit code is
1 where something differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RECORDINGS = "wham_data/pipelines/demo_recordings"
FORMATS = ("wham-npz", "webdataset", "lerobot")
PASSING = {
    *("created", "started", "ended", "seconds", "run", "command", "versions", "ms_per_frame"),
    *("python", "platform", "host", "user", "pid", "timings"),
}
"""Fields that tell when, where or how fast, at any depth."""


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("before", type=Path)
    asked.add_argument("after", type=Path)
    asked.add_argument("--recordings", type=int, default=3, help="How many, up to 3.")
    asked.add_argument("--steps", type=int, default=2, help="Steps to dream of each recording.")
    asked.add_argument("--keep", type=Path, help="Leave what was made here.")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        for name in ("before", "after"):
            out = (folder / name).resolve()
            make(getattr(given, name).resolve(), out, given.recordings, given.steps)
        different = [*compared(folder / "before", folder / "after")]
    for each in different:
        print("DIFFERS", each)
    return 1 if different else 0


def make(checkout: Path, out: Path, most: int, steps: int) -> None:
    """A corpus, exports and dreams, from one checkout."""
    recordings = out / "recordings"
    shutil.copytree(checkout / RECORDINGS, recordings)
    corpus = out / "corpus"
    run(
        checkout,
        *(
            "ingest",
            recordings,
            "--quiet",
            "--out",
            corpus,
            "--actions",
            "wham16",
            "--frames",
            "png",
        ),
        *("--workers", "0", "--limit", most),
    )
    for name in FORMATS:
        run(checkout, "export", corpus, "--to", name, "--out", out / name)
    run(
        checkout,
        *("dream", corpus, "--model", "wham-tiny", "--out", out / "dreams", "--start", "30"),
        *("--steps", steps, "--seed", "7", "--device", "cpu", "--save", "npz,csv,png"),
    )


def run(checkout: Path, *arguments: object) -> None:
    words = [str(each) for each in arguments]
    print(f"{checkout}: wham-data {words[0]}", flush=True)
    program = "from wham_data.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def compared(before: Path, after: Path) -> Iterator[str]:
    """What differs; what was compared is printed, a line per folder and ending."""
    manifests = [rows(folder / "corpus") for folder in (before, after)]
    print(f"manifest: {len(manifests[0])} rows of episodes and quarantine")
    if manifests[0] != manifests[1]:
        yield "the rows of the manifest"
    names = [files(folder) for folder in (before, after)]
    yield from (f"{name}: only in one of the two" for name in sorted(names[0] ^ names[1]))
    counts: dict[str, int] = {}
    for name in sorted(names[0] & names[1]):
        kind = f"{name.split('/')[0]}: {Path(name).suffix or Path(name).name}"
        counts[kind] = counts.get(kind, 0) + 1
        contents = [content(folder / name, folder) for folder in (before, after)]
        if contents[0] != contents[1]:
            yield name
    for kind, count in counts.items():
        print(f"{kind}: {count} files")


def files(folder: Path) -> set[str]:
    """What was made, without the tables of the manifest and the records of runs."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in found)
    return {
        name
        for name in names
        if not re.match(r"corpus/(episodes|quarantine|runs)/|recordings/", name)
    }


def content(path: Path, folder: Path) -> object:
    """A file as it is to be compared."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: digest(arrays[name]) for name in arrays.files}
    if path.suffix == ".json":
        return lasting(json.loads(path.read_text().replace(str(folder), "")))
    return hashlib.sha256(path.read_bytes().replace(os.fsencode(folder), b"")).hexdigest()


def digest(array: np.ndarray) -> tuple[str, tuple[int, ...], str]:
    return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()


def rows(corpus: Path) -> list[str]:
    """The manifest's rows as text, without what passes."""
    import deltalake

    found = []
    for table in ("episodes", "quarantine"):
        if (corpus / table / "_delta_log").exists():
            arrow = deltalake.DeltaTable(corpus / table).to_pyarrow_table()
            found += [
                json.dumps(lasting(row), default=str, sort_keys=True).replace(
                    str(corpus.parent), ""
                )
                for row in arrow.to_pylist()
            ]
    return sorted(found)


def lasting(value: object) -> object:
    """`value` without the fields that tell when, where or how fast."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in PASSING}
    return [lasting(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
