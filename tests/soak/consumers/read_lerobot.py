"""Open an export with LeRobot's `LeRobotDataset`: read_lerobot.py EXPORT."""

import sys
from pathlib import Path

import numpy as np
import torch
import without_cuda  # noqa: F401
from expected import Expected
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERA = "observation.images.game"
AHEAD = 3


def main() -> None:
    export = Path(sys.argv[1])
    expected = Expected(export)
    names = {each["number"]: each for each in expected.exported}
    plain = LeRobotDataset("ours/export", root=export)
    rate = plain.fps
    ahead = [step / rate for step in range(AHEAD)]
    data = LeRobotDataset("ours/export", root=export, delta_timestamps={"action": ahead})
    if len(data) != sum(each["steps"] for each in expected.exported):
        raise SystemExit(f"{len(data)} frames")
    if data.num_episodes != len(expected.exported):
        raise SystemExit(f"{data.num_episodes} episodes")
    for split, span in data.meta.info["splits"].items():
        first, last = map(int, span.split(":"))
        if {names[number]["split"] for number in range(first, last)} != {split}:
            raise SystemExit(f"the split {split} is not {span}")

    def check(item: dict) -> None:
        episode, step = names[int(item["episode_index"])], int(item["frame_index"])
        left = episode["steps"] - step
        padding = [place >= left for place in range(AHEAD)]
        if item["action_is_pad"].tolist() != padding:
            raise SystemExit(f"{episode}, step {step}: the end is not where it should be")
        if abs(float(item["timestamp"]) - step / rate) > 1e-5:
            raise SystemExit(f"{episode}, step {step}: at {item['timestamp']} s")
        values = {}
        for place in range(min(AHEAD, left)):
            expected.check(episode["episode"], step + place, actions=item["action"][place].numpy())
        if CAMERA in item:
            picture = (item[CAMERA].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            values["video" if CAMERA in data.meta.video_keys else "frames"] = picture
        if "observation.state" in item:
            values["state"] = item["observation.state"].numpy().reshape(-1)  # a number, if one
        if "next.reward" in item:
            values["reward"] = item["next.reward"].numpy().reshape(())
        if "text" in expected.columns:
            values["text"] = item["task"]
        expected.check(episode["episode"], step, **values)

    for number in np.random.default_rng(0).permutation(len(data))[:40]:
        check(data[int(number)])
    loader = torch.utils.data.DataLoader(
        data, batch_size=8, shuffle=True, num_workers=2, multiprocessing_context="spawn"
    )
    seen = set()
    for batch in loader:
        for row in range(len(batch["index"])):
            check({name: values[row] for name, values in batch.items()})
        seen.update(batch["index"].tolist())
    if seen != set(range(len(data))):
        raise SystemExit("shuffled, not every frame comes once")
    statistics(plain, expected)
    print(f"{len(data)} frames of {data.num_episodes} episodes, shuffled by two workers")


def statistics(data: LeRobotDataset, expected: Expected) -> None:
    """The statistics that LeRobot normalises with are those of the exported actions."""
    rows = [
        expected.row(each["episode"], step)
        for each in expected.exported
        for step in range(each["steps"])
    ]
    actions = expected.columns["actions"][rows].astype(np.float64)
    for name, want in (("mean", actions.mean(0)), ("std", actions.std(0)), ("max", actions.max(0))):
        if not np.allclose(data.meta.stats["action"][name], want, atol=1e-5):
            raise SystemExit(f"statistics: {name} is {data.meta.stats['action'][name]}")


if __name__ == "__main__":
    main()
