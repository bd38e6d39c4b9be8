"""Open an export with the package `webdataset`: read_webdataset.py EXPORT."""

import sys
from pathlib import Path

import numpy as np
import webdataset as wds
from expected import Expected


def main() -> None:
    export = Path(sys.argv[1])
    expected = Expected(export)
    for split in expected.splits():
        shards = sorted(map(str, (export / split).glob("*.tar")))
        want = [
            f"{each['episode']}/{step:06d}"
            for each in expected.episodes(split)
            for step in range(each["steps"])
        ]
        plain = wds.WebDataset(shards, shardshuffle=False).decode("rgb8")
        found = [check(expected, sample) for sample in plain]
        if sorted(found) != sorted(want):
            raise SystemExit(f"{split}: {len(found)} samples, not {len(want)}")
        shuffled = wds.WebDataset(shards, shardshuffle=10, empty_check=False).shuffle(100)
        loader = wds.WebLoader(
            shuffled.decode("rgb8"), batch_size=None, num_workers=2, multiprocessing_context="spawn"
        )
        found = [check(expected, sample) for sample in loader]
        if sorted(found) != sorted(want) or found == want:
            raise SystemExit(f"{split}: shuffled, not every sample comes once")
    print(f"{len(expected.exported)} episodes, also shuffled by two workers")


def check(expected: Expected, sample: dict) -> str:
    """Compare a sample; its key."""
    episode, step = sample["__key__"].split("/")
    told = sample["step.json"]
    values = {
        "actions": np.asarray(sample["actions.npy"]),
        "frames": np.asarray(sample["png"] if "png" in sample else sample["jpg"]),
        "time_ns": told["time_ns"],
        "known": told["action_known"],
    }
    if "tokens" in expected.columns:
        values["tokens"] = np.asarray(sample["tokens.npy"]).ravel()
    if "state" in expected.columns:
        values["state"] = np.asarray(sample["state.npy"])
    for name in {"reward", "text"} & set(expected.columns):
        values[name] = told[name]
    expected.check(episode, int(step), **values)
    return sample["__key__"]


if __name__ == "__main__":
    main()
