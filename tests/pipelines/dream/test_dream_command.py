"""`wham-data dream` as a person meets it: what it leaves, and how it goes on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from makers.commands import command
from makers.dreams import GREEDY, arrays_of, dream, small_checkpoint, wham_episode, write_npz
from makers.slow_gpt import slow_dream
from torch.nn.modules.module import register_module_forward_pre_hook

from wham_data.inference.checkpoints.convert import convert
from wham_data.inference.gpt.model import MLP
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Sampling
from wham_data.inference.world_model import load_world_model
from wham_data.schemas.actions import load_space
from wham_data.schemas.wham_tokens import bins_from_measured, measured_from_bins


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> GPTWorldModel:
    return load_world_model(checkpoint, "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two of WHAM's files, one in a folder of its own."""
    write_npz(tmp_path / "data" / "a.npz", wham_episode(seed=1))
    write_npz(tmp_path / "data" / "sub" / "b.npz", wham_episode(seed=2))
    return tmp_path / "data"


@pytest.mark.parametrize(("protocol", "crop"), [("base", 3), ("base", 4), ("comprehensive", 3)])
def test_the_npz_is_what_the_published_program_writes(
    data: Path, checkpoint: Path, model: GPTWorldModel, tmp_path: Path, protocol: str, crop: int
) -> None:
    run = dream(
        data, "--model", checkpoint, "--out", tmp_path / "out", "--protocol", protocol,
        "--context", crop, "--steps", 3, "--top-p", 0, "--batch-size", 2, "--save", "npz",
    )  # fmt: skip

    assert run.code == 0, run.error
    tokenizer = model.tokenizer
    assert tokenizer is not None
    for name in ("a", "sub/b"):
        given = arrays_of(data / f"{name}.npz")
        frames = np.ascontiguousarray(given["images"][: crop + 3].transpose(0, 2, 3, 1))
        tokens, actions = tokenizer.encode(frames), measured_from_bins(given["actions"])
        images, acted = slow_dream(
            model.gpt,
            tokens[:crop].astype(np.int64),
            actions[:crop],
            3,
            crop,
            Sampling(greedy=True),
            given_actions=actions[crop : crop + 3] if protocol == "base" else None,
        )
        found = arrays_of(tmp_path / "out" / f"{name}.npz")
        done = np.concatenate([given["actions"][:crop], bins_from_measured(acted)[0]])
        wanted = {
            "context_length": np.array(crop),
            "steps_to_dream": np.array(3),
            "raw_context": given["images"][:crop],
            "dreamt_images": tokenizer.decode(images).transpose(0, 3, 1, 2),
            "all_actions": done,
            "encoded_decoded_ground_truth_images": tokenizer.decode(tokens).transpose(0, 3, 1, 2),
        }
        assert list(found) == list(wanted)
        for key, values in wanted.items():
            assert found[key].dtype == values.dtype, key
            assert np.array_equal(found[key], values), key


def test_every_kind_of_file_is_written_and_the_account_says_how(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run = dream(
        data / "a.npz", "--model", checkpoint, "--out", tmp_path, *GREEDY,
        "--save", "npz,mp4,gif,png,csv,overlay", "--upscale", 4, "--json", "--seed", 5,
    )  # fmt: skip

    assert run.code == 0, run.error
    assert (run.report["made"], run.report["frames"]) == (1, 2)
    for file in ("a.npz", "a.mp4", "a.gif", "a/overlay.mp4", "a/actions.csv", "a/tokens.npy"):
        assert (tmp_path / file).stat().st_size > 0
    assert sorted(path.name for path in (tmp_path / "a/frames").iterdir()) == [
        "00000.png",
        "00001.png",
    ]
    account = json.loads((tmp_path / "a/dream.json").read_text())
    assert account["model"]["wham"] is True
    assert account["actions"] == {"source": "recorded", "clamped": 0}
    assert (account["mode"], account["seed"], account["context"]["start"]) == ("world", 5, 0)
    assert account["stats"]["ms_per_frame"] > 0


def test_actions_csv_has_a_row_per_dreamt_step(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    dream(data, "--model", checkpoint, "--out", tmp_path, *GREEDY, "--save", "csv,npz")

    with (tmp_path / "a/actions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", *load_space("wham16").names]
    assert [row[0] for row in rows[1:]] == ["0", "1"]
    bins, _ = bins_from_measured(np.array([row[1:] for row in rows[1:]], np.float64))
    assert np.array_equal(bins, arrays_of(tmp_path / "a.npz")["all_actions"][3:])


def test_where_recorded_actions_run_out_only_that_episode_fails(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    write_npz(data / "short.npz", wham_episode(4))
    (data / "torn.npz").write_bytes((data / "a.npz").read_bytes()[:-400])
    arguments = (data, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY, "--save", "npz")

    run = dream(*arguments, "--json")
    full = dream(*arguments[:3], "--out", tmp_path / "full", *GREEDY, "--mode", "full", "--json")

    assert (run.code, full.code) == (3, 3)
    assert run.report["dreams"] == ["a", "sub/b"]
    assert {each["episode"]: each["reason"] for each in run.report["failed"]} == {
        "short": "too_short",
        "torn": "truncated",
    }
    assert "recorded actions run out" in run.report["failed"][0]["message"]
    assert full.report["dreams"] == ["a", "short", "sub/b"]


def test_a_dream_depends_on_seed_and_episode_alone(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def dreamt(name: str, *more: object, source: Path = data) -> bytes:
        arguments = ("--context", 3, "--steps", 3, "--mode", "full", "--save", "npz", *more)
        run = dream(source, "--model", checkpoint, "--out", tmp_path / name, *arguments)
        assert run.code == 0, run.error
        return next((tmp_path / name).rglob("b.npz")).read_bytes()

    together = dreamt("together", "--batch-size", 2)

    assert dreamt("one by one", "--batch-size", 1) == together
    assert dreamt("plain", "--no-speculate") == together
    assert dreamt("alone", source=data / "sub" / "b.npz") == together
    assert dreamt("other", "--seed", 1) != together


def test_running_it_again_makes_only_what_is_missing(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (data, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY, "--json")

    def ran(save: str) -> tuple[int, ...]:
        report = dream(*arguments, "--save", save).report
        return report["made"], report["completed"], report["already_there"]

    assert ran("npz") == (2, 0, 0)
    before = (tmp_path / "out/a.npz").read_bytes()
    assert ran("npz") == (0, 0, 2)
    assert ran("npz,csv,gif") == (0, 2, 0)
    (tmp_path / "out/a.npz").unlink()
    assert ran("npz,csv") == (0, 1, 1)
    assert (tmp_path / "out/a.npz").read_bytes() == before
    shutil.rmtree(tmp_path / "out/sub/b")
    assert ran("npz") == (1, 0, 1)
    (tmp_path / "out/a.npz").unlink()
    (tmp_path / "out/a/tokens.npy").write_bytes(b"torn")
    assert ran("npz") == (1, 0, 1)
    assert (tmp_path / "out/a.npz").read_bytes() == before
    assert not list((tmp_path / "out").glob(".*"))


def test_other_settings_stop_with_what_differs(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (data, "--model", checkpoint, "--out", tmp_path / "out", "--save", "csv")
    dream(*arguments, *GREEDY)
    other = small_checkpoint(tmp_path, "other.ckpt", seed=9)

    run = dream(*arguments, *GREEDY, "--steps", 3, "--seed", 7)
    assert run.code == 4
    assert "(seed: 0, not 7; steps: 2, not 3)" in run.error
    assert dream(*arguments, *GREEDY, "--batch-size", 1, "--episodes", 1).code == 0
    assert dream(*arguments, *GREEDY, "--dtype", "bf16").code == 4
    assert dream(data, "--model", other, "--out", tmp_path / "out", *GREEDY).code == 4


def test_settings_are_free_until_something_is_made_with_them(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (data, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY)

    assert dream(*arguments, "--start", 9).code == 6
    assert dream(*arguments, "--save", "npz", "--upscale", 3).code == 0
    assert dream(*arguments, "--save", "gif", "--upscale", 2).code == 0
    run = dream(*arguments, "--save", "mp4", "--upscale", 4)
    assert run.code == 4
    assert "(upscale: 2, not 4)" in run.error


def test_another_recording_of_the_same_name_is_not_taken_for_the_old_one(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (data, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY, "--save", "csv")
    dream(*arguments)
    write_npz(data / "a.npz", wham_episode(seed=3))

    run = dream(*arguments)

    assert run.code == 4
    assert "a dream of another a" in run.error


def test_a_run_that_is_interrupted_goes_on_where_it_was(
    data: Path, checkpoint: Path, tmp_path: Path, command_environment: dict[str, str]
) -> None:
    for number in range(12):
        write_npz(data / f"more{number:02d}.npz", wham_episode(seed=number))
    arguments = (
        "dream", data, "--model", checkpoint, "--out", tmp_path / "out", "--context", "3",
        "--steps", "5", "--batch-size", "1", "--save", "npz", "--verbose",
    )  # fmt: skip
    running = subprocess.Popen(
        command(arguments), env=command_environment, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    told = running.stderr.readline()
    running.send_signal(signal.SIGINT)
    rest = running.stderr.read()

    assert running.wait(60) == 130, told + rest
    assert "run the same command again:\n  wham-data dream" in rest
    done = list((tmp_path / "out").glob("*/dream.json"))
    assert 0 < len(done) < 14
    assert not list((tmp_path / "out").glob(".*"))
    again = dream(*arguments[1:], "--json").report
    assert again["already_there"] >= len(done)
    assert again["already_there"] + again["made"] == 14


def test_left_overs_of_a_killed_run_go_after_a_day(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    fresh, old = tmp_path / "out/.dream-1", tmp_path / "out/.dream-2"
    for folder in (fresh, old):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))

    dream(data, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY, "--save", "csv")

    assert (fresh.exists(), old.exists()) == (True, False)


def test_nothing_is_written_among_what_is_dreamt_from(data: Path, checkpoint: Path) -> None:
    within = dream(data, "--model", checkpoint, "--out", data / "out", *GREEDY)
    over = dream(data / "a.npz", "--model", checkpoint, "--out", data, *GREEDY)

    assert (within.code, over.code) == (2, 2)
    assert "would be overwritten" in over.error


def test_nothing_to_dream_from_is_exit_6(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    run = dream(tmp_path / "empty", "--model", checkpoint, "--out", tmp_path / "out")

    assert run.code == 6
    assert "no corpus, no .npz" in run.error


def test_unexpected_keys_of_a_checkpoint_are_told_once(data: Path, tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["state_dict"]["predictor.surprise"] = next(iter(content["state_dict"].values()))

    odd = small_checkpoint(tmp_path, "odd.ckpt", edit=edit)

    run = dream(data, "--model", odd, "--out", tmp_path / "out", *GREEDY, "--save", "csv")

    assert run.code == 0, run.error
    assert run.said == "odd.ckpt: left out 1 unexpected keys, as predictor.surprise\n"


def test_a_model_says_whether_it_was_a_wham_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    folder = convert(checkpoint, tmp_path / "folder").out
    before, after = load_world_model(checkpoint, "cpu"), load_world_model(folder, "cpu")
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("converted_from") == "WHAM checkpoint"
    (folder / "config.json").write_text(json.dumps(config))
    own = load_world_model(folder, "cpu")

    assert (before.wham, after.wham, own.wham) == (True, True, False)
    assert before.fingerprint() == after.fingerprint() == own.fingerprint()


def test_dreams_that_do_not_fit_into_memory_end_in_one_line_with_what_to_lower(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def full(layer: torch.nn.Module, _: object) -> None:
        if isinstance(layer, MLP):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = register_module_forward_pre_hook(full)
    run = dream(data, "--model", checkpoint, "--out", tmp_path / "out", *GREEDY)
    hook.remove()

    assert run.code == 1
    assert run.error == (
        "2 dreams at once on cpu: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB). Give a "
        "--batch-size below 2, a shorter --context or --dtype bf16"
    )
