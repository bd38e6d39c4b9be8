"""The published filters in their order, and draws that depend on their place alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.inference.sampling import HeldNoise, Noise, Sampling, choose, filtered
from wham_data.schemas.errors import UsageError

CPU = torch.device("cpu")


def probabilities(
    logits: list[float], sampling: Sampling, lowest: int = 0, highest: int | None = None
) -> list[float]:
    last = len(logits) - 1 if highest is None else highest
    rows = filtered(torch.tensor([logits]), torch.tensor([[lowest, last]]), sampling)
    return rows.softmax(dim=1)[0].tolist()


def left(
    logits: list[float], sampling: Sampling, lowest: int = 0, highest: int | None = None
) -> list[int]:
    """The ids that keep a chance."""
    chances = probabilities(logits, sampling, lowest, highest)
    return [index for index, chance in enumerate(chances) if chance > 0]


def slow_left(logits: list[float], sampling: Sampling, lowest: int, highest: int) -> list[int]:
    """Which ids keep a chance, in words of plain Python."""
    scaled = {i: logits[i] / max(sampling.temperature, 0.1) for i in range(lowest, highest + 1)}
    if sampling.top_k is not None:
        k = max(sampling.top_k, sampling.min_tokens_to_keep)
        ranked = sorted(scaled.values(), reverse=True)
        if k >= len(ranked):
            return sorted(scaled)
        return [i for i, value in scaled.items() if value >= ranked[k - 1]]
    assert sampling.top_p is not None
    total = sum(math.exp(value - max(scaled.values())) for value in scaled.values())
    kept, mass = [], 0.0
    for rank, i in enumerate(sorted(scaled, key=lambda i: -scaled[i])):
        mass += math.exp(scaled[i] - max(scaled.values())) / total
        if mass <= sampling.top_p or rank < sampling.min_tokens_to_keep:
            kept.append(i)
    return sorted(kept)


quarters = st.lists(st.integers(-12, 12).map(lambda n: n / 4), min_size=6, max_size=12)
distinct = st.permutations(range(8)).map(lambda order: [0.37 * n for n in order])


@settings(max_examples=60, deadline=None)
@given(quarters, st.integers(1, 8), st.integers(1, 3), st.sampled_from([0.05, 0.5, 0.9, 2.0]))
def test_top_k_keeps_what_plain_python_keeps(
    logits: list[float], k: int, keep: int, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=k, min_tokens_to_keep=keep)
    assert left(logits, sampling, 1, 4) == slow_left(logits, sampling, 1, 4)


@settings(max_examples=60, deadline=None)
@given(distinct, st.floats(0, 0.99), st.integers(1, 3), st.sampled_from([0.5, 0.9, 2.0]))
def test_top_p_keeps_what_plain_python_keeps(
    logits: list[float], p: float, keep: int, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, top_p=p, min_tokens_to_keep=keep)
    assert left(logits, sampling, 1, 6) == slow_left(logits, sampling, 1, 6)


def test_ties_with_the_kth_best_survive() -> None:
    assert left([3.0, 1.0, 2.0, 2.0, 2.0], Sampling(top_k=2)) == [0, 2, 3, 4]


@pytest.mark.parametrize("p", [0.3, 0.9, 0.999])
def test_top_p_is_the_same_whether_few_ids_make_up_the_mass_or_many(p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for spread in (0.1, 3.0):
        logits = (torch.randn(1200, generator=generator).double() * spread).float().tolist()
        sampling = Sampling(temperature=1, top_p=p)
        assert left(logits, sampling) == slow_left(logits, sampling, 0, 1199)


def test_the_token_that_crosses_top_p_is_removed() -> None:
    logits = [math.log(share) for share in (0.5, 0.3, 0.2)]
    assert left(logits, Sampling(temperature=1, top_p=0.79)) == [0]
    assert left(logits, Sampling(temperature=1, top_p=0.81)) == [0, 1]
    assert left(logits, Sampling(temperature=1, top_p=0)) == [0]
    assert left(logits, Sampling(temperature=1, top_p=0, min_tokens_to_keep=2)) == [0, 1]


def test_a_temperature_below_a_tenth_counts_as_a_tenth() -> None:
    cold, tenth = (probabilities([0.1, 0.2], Sampling(temperature=t)) for t in (0.0, 0.1))
    assert cold == tenth == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)])


def test_only_ids_of_the_range_are_left() -> None:
    assert left([9.0, 1.0, 1.0, 9.0], Sampling(), 1, 2) == [1, 2]


def test_greedy_takes_the_first_of_equals_and_forgets_the_filters() -> None:
    logits, ranges = torch.tensor([[5.0, 1.0, 2.0, 2.0]]), torch.tensor([[1, 3]])
    assert choose(logits, ranges, Sampling(greedy=True, top_k=4, top_p=0.9), None).tolist() == [2]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": float("nan")},
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_k": 2.0},
        {"top_p": 1.5},
        {"top_p": float("nan")},
        {"top_k": 2, "top_p": 0.5},
        {"min_tokens_to_keep": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Sampling(**settings)  # type: ignore[arg-type]


def test_noise_depends_on_its_place_and_not_on_what_is_asked_with_it() -> None:
    noise = Noise(seed=7, dream=3)
    whole = noise.at(2, 0, 6, 10, CPU)
    assert torch.equal(whole[2:5], noise.at(2, 2, 3, 10, CPU))
    for other in (Noise(8, 3), Noise(7, 4)):
        assert not torch.equal(whole, other.at(2, 0, 6, 10, CPU))
    assert not torch.equal(whole, noise.at(3, 0, 6, 10, CPU))


def test_noise_is_made_of_split_mix_64() -> None:
    mask = (1 << 64) - 1
    key = int(np.random.SeedSequence((5, 1, 4)).generate_state(1, np.uint64)[0])

    def gumbel(place: int) -> float:
        word = (key + (place + 1) * 0x9E3779B97F4A7C15) & mask
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        word ^= word >> 31
        return -math.log(-math.log(((word >> 12) + 0.5) / 2**52))

    expected = [gumbel(place) for place in range(30, 50)]
    assert Noise(5, 1).at(4, 3, 2, 10, CPU).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_draws_come_with_the_probabilities_of_the_filtered_logits() -> None:
    logits = torch.tensor([1.0, 0.0, 2.5, -1.0, 1.0, 0.5])
    sampling = Sampling(temperature=0.8)
    draws = 20_000
    rows, ranges = logits.expand(draws, -1), torch.tensor([[1, 5]]).expand(draws, -1)
    chosen = choose(rows, ranges, sampling, Noise(0, 0).at(0, 0, draws, 6, CPU))
    expected = np.array(probabilities(logits.tolist(), sampling, 1, 5)) * draws
    found = np.bincount(chosen.numpy(), minlength=6)
    assert found[0] == 0
    chi_square = ((found[1:] - expected[1:]) ** 2 / expected[1:]).sum()
    assert chi_square < 18.5  # 1 in 1000 for 4 degrees of freedom


def test_held_noise_is_the_noise_of_its_place() -> None:
    noise = Noise(seed=3, dream=1)
    held = HeldNoise(noise, 7, CPU)
    for step, first, count in [(0, 0, 5), (0, 2, 6), (0, 2, 3), (0, 4, 9), (1, 6, 2), (2, 0, 1)]:
        found = held.at(step, range(first, first + count))
        assert torch.equal(found, noise.at(step, first, count, 7, CPU))
