"""Open an export with Minari: read_minari.py EXPORT."""

import os
import sys
from pathlib import Path

os.environ["MINARI_DATASETS_PATH"] = sys.argv[1]
import minari
import numpy as np
import torch
from expected import Expected


def main() -> None:
    expected = Expected(Path(sys.argv[1]))
    if set(minari.list_local_datasets()) != {f"wham-data/{s}-v0" for s in expected.splits()}:
        raise SystemExit(f"Minari lists {sorted(minari.list_local_datasets())}")
    for split in expected.splits():
        data = minari.load_dataset(f"wham-data/{split}-v0")
        episodes = expected.episodes(split)
        steps = sum(each["steps"] - 1 for each in episodes)
        if (data.total_episodes, data.total_steps) != (len(episodes), steps):
            raise SystemExit(f"{split}: {data.total_episodes} episodes, {data.total_steps} steps")
        for found in data.iterate_episodes():
            check(expected, episodes[found.id]["episode"], found, data)
        for found in data.sample_episodes(min(2, len(episodes))):
            check(expected, episodes[found.id]["episode"], found, data)
        loader = torch.utils.data.DataLoader(
            data, batch_size=1, shuffle=True, num_workers=2, collate_fn=list,
            multiprocessing_context="spawn",
        )  # fmt: skip
        found = [each for batch in loader for each in batch]
        for each in found:
            check(expected, episodes[each.id]["episode"], each, data)
        if sorted(each.id for each in found) != list(range(len(episodes))):
            raise SystemExit(f"{split}: shuffled, not every episode comes once")
    print(f"{len(expected.exported)} episodes, sampled, and shuffled by two workers")


def check(expected: Expected, name: str, found: object, data: minari.MinariDataset) -> None:
    """Compare an episode."""
    count = len(found)
    seen = found.observations
    frames = seen["frame"] if isinstance(seen, dict) else seen
    if len(frames) != count + 1 or found.terminations.any():
        raise SystemExit(f"{name}: {len(frames)} pictures, {count} actions")
    if found.truncations.tolist() != [False] * (count - 1) + [True]:
        raise SystemExit(f"{name}: the end is not where it should be")
    numbered = found.actions.ndim == 1
    size = expected.columns["actions"].shape[1]
    actions = np.eye(size, dtype=np.float32)[found.actions] if numbered else found.actions
    if not data.action_space.contains(found.actions[0]):
        raise SystemExit(f"{name}: {found.actions[0]!r} is not in {data.action_space}")
    first = {key: value[0] for key, value in seen.items()} if isinstance(seen, dict) else seen[0]
    if not data.observation_space.contains(first):
        raise SystemExit(f"{name}: the first observation is not in {data.observation_space}")
    for step in range(count + 1):
        values = {"frames": frames[step]}
        if isinstance(seen, dict):
            values["state"] = seen["state"][step]
        if step < count:
            values["actions"] = actions[step]
            if "reward" in expected.columns:
                values["reward"] = np.float32(found.rewards[step])
        expected.check(name, step, **values)


if __name__ == "__main__":
    main()
