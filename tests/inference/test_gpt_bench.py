"""What `bench dream` says fits together, and its floor is the one that its page explains."""

from __future__ import annotations

import json

import pytest
import torch
from makers.commands import Run

from wham_data.inference.gpt.bench import (
    bench_dream,
    cache_bytes,
    floor_ms_per_frame,
    random_model,
    weight_bytes,
)
from wham_data.inference.gpt.world_model import torch_dtype
from wham_data.schemas.errors import UsageError

TINY = "1x2x16"


def test_a_frame_takes_as_many_passes_as_its_tokens_per_pass_say() -> None:
    plain = bench_dream(random_model(TINY, "cpu"), steps=1, context=1, speculate=False)

    assert (plain.tokens_per_pass, plain.acceptance) == (1, 0)
    assert plain.floor_ms_per_frame == pytest.approx(
        floor_ms_per_frame(540, plain.bytes_per_pass, plain.bandwidth)
    )
    assert plain.tokens_per_second == pytest.approx(540 / plain.ms_per_frame * 1000)
    assert plain.times_floor == plain.ms_per_frame / plain.floor_ms_per_frame


def test_the_passes_that_are_measured_were_set_up_before() -> None:
    model = random_model(TINY, "cpu", compile=True)
    bench_dream(model, steps=1, context=1)

    assert model.kept.built == 1


def test_random_weights_are_the_same_each_time_and_draw_from_no_generator() -> None:
    before = torch.random.get_rng_state()
    one, two = (random_model(TINY, "cpu").fingerprint() for _ in range(2))

    assert one == two
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_model_computes_in_float32_on_a_cpu_unless_told_otherwise() -> None:
    assert random_model(TINY, "cpu").dtype == "float32"
    assert torch_dtype(None, torch.device("cuda")) is torch.bfloat16
    assert torch_dtype("float32", torch.device("cuda")) is torch.float32


def test_passes_are_not_fused_on_a_cpu() -> None:
    with pytest.raises(UsageError, match="only on a GPU"):
        random_model(TINY, "cpu", compile=True, fuse=True)


def test_the_floor_is_bytes_by_bandwidth() -> None:
    assert floor_ms_per_frame(540, 10**9, 10**12) == pytest.approx(540)


def test_a_pass_reads_the_weights_and_the_keys_and_values() -> None:
    model = random_model(TINY, "cpu")
    half = random_model(TINY, "cpu", "bf16")
    block = 3 * 16 * 16 + 16 * 16 + 2 * 4 * 16 * 16 + 3 * 16 + 16 + 64 + 16 + 4 * 16
    weights = 4 * ((16384 + 68) * 16 + block + 2 * 16)

    assert weight_bytes(model.gpt) == weights
    assert weight_bytes(half.gpt) == weights // 2
    assert cache_bytes(model.spec, 1, model.gpt) == 2 * 834 * 16 * 4


@pytest.mark.parametrize("shape", ["big", "0x1x8", "2x3x8", "1x2x99999"])
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    with pytest.raises(UsageError, match="shape"):
        random_model(shape, "cpu")


def test_more_context_than_the_model_sees_is_refused() -> None:
    with pytest.raises(UsageError, match="sees 1 to 9 steps"):
        bench_dream(random_model(TINY, "cpu"), context=10)


def test_the_command_prints_one_object(cli: Run) -> None:
    ran = cli(
        *("bench", "dream", "--shape", TINY, "--steps", "1", "--context", "1", "--batch", "2"),
        *("--device", "cpu", "--json"),
    )

    said = json.loads(ran.stdout)
    assert (ran.returncode, said["batch"], said["attention"]) == (0, 2, "SDPA")
    assert said["times_floor"] > 0


def test_a_model_and_a_shape_are_one_too_many(cli: Run) -> None:
    ran = cli("bench", "dream", "--model", "wham-tiny", "--shape", "mid")

    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
