"""Open an export with MosaicML's `streaming`: read_mds.py EXPORT."""

import sys
from pathlib import Path

import numpy as np
import without_cuda  # noqa: F401
from expected import Expected
from streaming import StreamingDataLoader, StreamingDataset


def main() -> None:
    export = Path(sys.argv[1])
    expected = Expected(export)
    for split in expected.splits():
        want = {
            (each["episode"], step)
            for each in expected.episodes(split)
            for step in range(each["steps"])
        }
        data = StreamingDataset(local=str(export), split=split, shuffle=False, batch_size=4)
        if len(data) != len(want):
            raise SystemExit(f"{split}: {len(data)} samples, not {len(want)}")
        for number in np.random.default_rng(0).permutation(len(data)):
            check(expected, data[int(number)])
        shuffled = StreamingDataset(
            local=str(export), split=split, shuffle=True, batch_size=4, num_canonical_nodes=1
        )
        loader = StreamingDataLoader(shuffled, batch_size=4, num_workers=2, collate_fn=list)
        found = [check(expected, sample) for batch in loader for sample in batch]
        if set(found) != want:
            raise SystemExit(f"{split}: shuffled, not every sample comes")
    print(f"{len(expected.exported)} episodes, at random places, and shuffled by two workers")


def check(expected: Expected, sample: dict) -> tuple[str, int]:
    """Compare a sample; its episode and step."""
    known = {"actions", "time_ns", "state", "reward", "text"} & set(sample)
    values = {name: sample[name] for name in known}
    values |= {"frames": np.asarray(sample["frame"]), "known": bool(sample["action_known"])}
    if "tokens" in sample:
        values["tokens"] = sample["tokens"].ravel()
    place = str(sample["episode"]), int(sample["step"])
    expected.check(*place, **values)
    return place


if __name__ == "__main__":
    main()
