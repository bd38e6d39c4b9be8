"""A pass that a GPU records gives the tokens of any other pass, whatever it was used for before."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from makers.slow_gpt import random_gpt, random_model, tiny_spec
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from wham_data.inference.dream import Context, Dream, dream_batch
from wham_data.inference.gpt.attention import Seen, attend_each, without_plans
from wham_data.inference.gpt.choosing import Chooser, Ids
from wham_data.inference.gpt.fixed_pass import FixedPass, recorded_work
from wham_data.inference.gpt.kept import MOST_KEPT, KeptDecoders
from wham_data.inference.gpt.model import GPT, Cache, Decoder, Feed, float32_logits
from wham_data.inference.gpt.split_keys import (
    CHOICES,
    attend_in_pieces,
    attention_seconds,
    best_pieces,
)
from wham_data.inference.gpt.static_decode import MOST_PASSES, StaticDecoder, lengths_of
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Draw, HeldNoise, Noise, Sampling, choose, gumbel
from wham_data.schemas.errors import UsageError

CPU = torch.device("cpu")
EIGHT_STEPS = {"positions": 8 * 22}
NO_KERNELS = {"aten.resolve_conj.default", "aten.resolve_neg.default", "aten.to.dtype_layout"}
SAMPLINGS = [Sampling(), Sampling(greedy=True), Sampling(top_k=3), Sampling(top_p=0.8)]


class Ops(TorchDispatchMode):
    """Counts the operations that torch starts."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.kernels[str(func)] += not func.is_view and str(func) not in NO_KERNELS
        return func(*args, **(kwargs or {}))


def random_tokens(gpt: GPT, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, gpt.spec.image_vocab, (count,), generator=generator)


def draw(gpt: GPT, dream: int, step: int, first: int, count: int) -> Draw:
    noise = HeldNoise(Noise(3, dream), gpt.spec.vocabulary, CPU)
    return Draw(noise, step, range(first, first + count))


def three_passes(gpt: GPT, decoder: Decoder, chooser: Chooser) -> list[Ids]:
    """All rows, then one with fewer tokens, then two with others elsewhere; each after a prefill."""
    one, two, three = (random_tokens(gpt, 170, seed) for seed in range(3))
    decoder.advance([Feed(0, 0, one[:100], 1), Feed(1, 0, two[:90], 1), Feed(2, 0, three[:120], 1)])
    return [
        decoder.choose(feeds, draws, chooser)
        for feeds, draws in (
            (
                [
                    Feed(0, 100, one[100:116], 16),
                    Feed(1, 90, two[90:99], 4),
                    Feed(2, 120, three[120:121], 1),
                ],
                [draw(gpt, 0, 0, 2, 16), draw(gpt, 1, 0, 0, 4), draw(gpt, 2, 1, 21, 1)],
            ),
            ([Feed(1, 94, two[94:96], 2)], [draw(gpt, 1, 0, 4, 2)]),
            (
                [Feed(2, 121, three[5:18], 13), Feed(0, 101, one[7:12], 1)],
                [draw(gpt, 2, 2, 0, 13), draw(gpt, 0, 0, 7, 1)],
            ),
        )
    ]


def dreams(model: GPTWorldModel, rows: int = 2, **how: Any) -> list[Dream]:
    random = np.random.default_rng(1)
    contexts = [
        Context(
            actions=np.zeros((2, 16), np.float32),
            tokens=random.integers(0, model.spec.image_vocab, (2, model.spec.image_tokens)),
        )
        for _ in range(rows)
    ]
    return dream_batch(
        model, contexts, steps=2, actions=[np.zeros((2, 16), np.float32)] * rows, **how
    )


# The pass


@pytest.mark.parametrize("sampling", SAMPLINGS)
@torch.inference_mode()
def test_a_pass_that_is_used_again_chooses_what_a_new_one_would(sampling: Sampling) -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    chooser = Chooser(gpt.spec, sampling, CPU)
    fixed = StaticDecoder(gpt, 3, gpt.spec.positions)
    plain = Decoder(gpt, Cache(gpt, 3, gpt.spec.positions))

    found, expected = three_passes(gpt, fixed, chooser), three_passes(gpt, plain, chooser)

    assert fixed.passes_made == 1  # all three had 16 tokens a row
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@torch.inference_mode()
def test_no_value_decides_what_a_pass_computes(sampling: Sampling) -> None:
    gpt = random_gpt(tiny_spec())
    chooser = Chooser(gpt.spec, sampling, CPU)
    table = torch.zeros(2, 4 + 3, dtype=torch.int64)
    table[:, :4] = random_tokens(gpt, 8, 0).view(2, 4)
    table[:, 4:] = torch.tensor([[5, 77, 1], [30, -78, 6]])
    traced = torch.compile(recorded_work, backend="eager", fullgraph=True)

    found, expected = (
        work(gpt, Cache(gpt, 2, 64), chooser, 1, False, table) for work in (traced, recorded_work)
    )

    assert torch.equal(found, expected)


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_pass_moves_nothing_to_or_from_its_device(sampling: Sampling, pieces: int) -> None:
    """On the device "meta" tensors have no values: to read one, or to mix devices, is an error."""
    with torch.device("meta"):
        gpt = GPT(tiny_spec()).requires_grad_(False)
    chooser = Chooser(gpt.spec, sampling, torch.device("meta"))
    table = torch.zeros(2, 16 + 3, dtype=torch.int64, device="meta")

    chosen = recorded_work(gpt, Cache(gpt, 2, 128), chooser, pieces, False, table)

    assert (chosen.device.type, chosen.dtype, chosen.shape) == ("meta", torch.int64, (2, 16))


@torch.inference_mode()
def test_a_pass_is_one_copy_and_its_recorded_work_however_many_dreams_there_are() -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    chooser = Chooser(gpt.spec, Sampling(), CPU)
    counts = []
    for rows in (1, 12):
        cache = Cache(gpt, rows, 192)
        each = FixedPass(gpt, cache, 1, 176, chooser)
        feeds = [Feed(row, 0, random_tokens(gpt, 1, row), 1) for row in range(rows)]
        draws = [draw(gpt, row, 0, 0, 1) for row in range(rows)]
        with Ops() as whole:
            each.tokens(feeds, draws)
        table = torch.zeros(rows, 4, dtype=torch.int64)
        with Ops() as recorded:
            recorded_work(gpt, cache, chooser, 1, False, table)
        assert whole.kernels["aten.copy_.default"] - recorded.kernels["aten.copy_.default"] == 1
        assert whole.kernels.total() - recorded.kernels.total() == 1
        counts.append(recorded.kernels.total())

    assert counts[0] == counts[1]


@torch.inference_mode()
def test_the_mask_is_made_once_a_pass_and_not_in_each_layer() -> None:
    made = []
    for layers in (1, 4):
        gpt = random_gpt(tiny_spec(n_layer=layers))
        with Ops() as ops:
            recorded_work(
                gpt, Cache(gpt, 1, 64), None, 1, False, torch.zeros(1, 4, dtype=torch.int64)
            )
        made.append(ops.kernels["aten.le.Tensor"])

    assert made == [1, 1]


def test_a_gpu_has_kernels_of_its_own_for_logits_and_for_keys_in_pieces() -> None:
    """Torch's pretended tensors have a device, a type and a shape, but no values, and need no GPU."""
    half = {"device": "cuda", "dtype": torch.bfloat16}
    with FakeTensorMode(), Ops() as ops:
        logits = float32_logits(torch.zeros(2, 3, 48, **half), torch.zeros(500, 48, **half))
        keys, mask = torch.zeros(1, 18, 640, 64, **half), torch.zeros(4, 1, 5, 160, **half)
        mixed = attend_in_pieces(torch.zeros(1, 18, 5, 64, **half), keys, keys, mask, 4)

    assert (logits.dtype, logits.shape) == (torch.float32, (2, 3, 500))
    assert (mixed.dtype, mixed.shape) == (torch.bfloat16, (1, 18, 5, 64))
    assert ops.kernels["aten.mm.dtype"] == 1
    assert ops.kernels["aten._scaled_dot_product_efficient_attention.default"] == 1


# Choosing


def test_the_noise_of_many_dreams_is_that_of_each() -> None:
    noises = [Noise(7, 0), Noise(7, 1), Noise(1 << 40, 5)]
    keys = torch.tensor([noise.key(step) for step, noise in enumerate(noises)])

    together = gumbel(keys, torch.tensor([5, 0, 555]), 300)

    for row, (noise, place) in enumerate(zip(noises, (5, 0, 555), strict=True)):
        assert torch.equal(together[row], noise.at(row, place, 1, 300, CPU)[0])


@pytest.mark.parametrize("sampling", [*SAMPLINGS, Sampling(top_p=0.2), Sampling(top_p=1.0)])
@pytest.mark.parametrize("ids", [40, 3000])
def test_what_can_be_recorded_chooses_alike(sampling: Sampling, ids: int) -> None:
    logits = torch.randn(64, ids, generator=torch.Generator().manual_seed(0)) * 2
    ranges = torch.tensor([[3, ids - 2]]).expand(64, 2)
    noise = Noise(0, 0).at(0, 0, 64, ids, CPU)

    plain, recorded = (
        choose(logits, ranges, sampling, noise, recorded=each) for each in (False, True)
    )

    assert torch.equal(plain, recorded)


# Attention


@pytest.mark.parametrize("pieces", [each for each in CHOICES if each > 1])
@pytest.mark.parametrize("rows", [1, 3])
def test_keys_in_pieces_give_the_same_attention(rows: int, pieces: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(rows, 5, 6, 16, generator=generator)
    keys, values = (torch.randn(rows, 6, 640, 16, generator=generator) for _ in "kv")
    positions = torch.tensor([[3], [70], [500]])[:rows] + torch.arange(5)  # most pieces are unseen

    found, expected = (
        attend_each(query, keys, values, Seen.at(positions, keys, count)) for count in (pieces, 1)
    )

    assert float((found - expected).norm() / expected.norm()) < 5e-7
    seen = (torch.arange(640) <= positions[..., None])[:, None]
    torch_s = functional.scaled_dot_product_attention(query.transpose(1, 2), keys, values, seen)
    assert torch.equal(expected, torch_s.transpose(1, 2).flatten(2))


def test_pieces_are_measured_on_a_gpu_and_not_used_on_a_cpu() -> None:
    keys = torch.zeros(1, 2, 64, 8)

    assert best_pieces(keys, keys, 16) == 1
    assert set(attention_seconds(keys, keys, 16)) == set(CHOICES)


def test_attention_on_a_gpu_takes_no_kernel_that_plans_for_each_shape() -> None:
    flags = torch.backends.cuda
    with without_plans(torch.device("cuda")):
        assert not flags.cudnn_sdp_enabled()
        assert flags.flash_sdp_enabled()
        assert flags.mem_efficient_sdp_enabled()
        assert flags.math_sdp_enabled()
    assert flags.cudnn_sdp_enabled()


# Decoders that are kept


def test_calls_one_after_another_share_a_decoder_and_its_passes() -> None:
    model = replace(random_model(**EIGHT_STEPS), compiled=True)

    made = [dreams(model) for _ in range(3)]

    assert model.kept.built == 1
    decoder = model.kept.take(model.gpt, 2, model.spec.positions)
    assert model.kept.built == 1
    assert decoder.passes_made <= len(decoder.lengths)
    for again in made[1:]:  # nothing of the dreams before is left in the cache
        assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(again, made[0], strict=True))


def test_dreams_in_a_used_decoder_are_those_in_a_new_one() -> None:
    model = replace(random_model(image_vocab=5, **EIGHT_STEPS), compiled=True)
    dreams(model, seed=8)
    used = dreams(model, seed=9, sampling=Sampling(top_k=2))
    new = dreams(replace(model), seed=9, sampling=Sampling(top_k=2))

    assert model.kept.built == 1
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(used, new, strict=True))


def test_a_decoder_is_lent_to_one_session_at_a_time() -> None:
    model = replace(random_model(), compiled=True)
    context = Context(np.zeros((1, 16), np.float32), tokens=np.zeros((1, 6), np.int64))
    one, two = (model.begin([context], [0]) for _ in range(2))
    assert model.kept.built == 2
    one.close()
    one.close()
    three = model.begin([context], [0])
    with pytest.raises(UsageError, match="closed"):
        one.step()
    three.step()
    two.close()
    assert model.kept.built == 2


def test_few_decoders_are_kept_and_none_after_they_are_let_go() -> None:
    model = replace(random_model(), compiled=True)
    for rows in range(1, MOST_KEPT + 2):
        dreams(model, rows)
    built = model.kept.built
    for rows in range(MOST_KEPT + 1, 1, -1):
        dreams(model, rows)
    assert model.kept.built == built  # the newest are kept
    dreams(model, 1)
    assert model.kept.built == built + 1  # and the oldest are not
    model.let_go()
    dreams(model, 1)
    assert model.kept.built == built + 2


def test_a_decoder_whose_pass_failed_is_not_kept() -> None:
    model = replace(random_model(), compiled=True)
    context = Context(np.zeros((1, 16), np.float32), tokens=np.zeros((1, 6), np.int64))
    session = model.begin([context], [0])
    weight = model.gpt.lm_head.weight
    model.gpt.lm_head.weight = torch.nn.Parameter(weight[:, :3], requires_grad=False)
    with pytest.raises(RuntimeError):
        session.step()
    session.close()
    model.gpt.lm_head.weight = weight
    dreams(model, 1)

    assert model.kept.built == 2


def test_weights_that_were_moved_get_a_decoder_of_their_own() -> None:
    model = replace(random_model(), compiled=True)
    dreams(model)
    model.gpt.to(torch.bfloat16)
    dreams(model)

    assert model.kept.built == 2


def test_a_copy_of_a_model_in_another_process_keeps_decoders_of_its_own() -> None:
    kept = KeptDecoders()
    kept.give_back(StaticDecoder(random_gpt(tiny_spec()), 1, 88))

    assert pickle.loads(pickle.dumps(kept))._idle == []


def test_passes_are_few_however_often_the_sampling_changes() -> None:
    gpt = random_gpt(tiny_spec(**EIGHT_STEPS))
    decoder = StaticDecoder(gpt, 1, gpt.spec.positions)
    for number in range(MOST_PASSES + 3):
        chooser = Chooser(gpt.spec, Sampling(temperature=1 + number), CPU)
        feed = Feed(0, 0, random_tokens(gpt, 2, 0), 1)
        decoder.choose([feed], [draw(gpt, 0, 0, 0, 1)], chooser)

    assert decoder.passes_made == MOST_PASSES + 3
    assert len(decoder._passes) == MOST_PASSES


def test_a_decoder_has_few_lengths() -> None:
    assert lengths_of(torch.zeros(1), 1) == (1, 16, 64, 80)
    with FakeTensorMode():
        half = torch.zeros(1, dtype=torch.bfloat16, device="cuda")
        assert lengths_of(half, 1) == (1, 16, 64, 80)
        assert lengths_of(half, 12) == (1, 16, 32)
        assert lengths_of(half.float(), 1) == (1, 16, 32)


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", SAMPLINGS)
@torch.inference_mode()
def test_a_recorded_pass_chooses_what_the_same_work_chooses(cuda: str, sampling: Sampling) -> None:
    gpt = random_gpt(tiny_spec(n_embd=48, **EIGHT_STEPS)).to(cuda)
    chooser = Chooser(gpt.spec, sampling, torch.device(cuda))
    recorded = three_passes(gpt, StaticDecoder(gpt, 3, gpt.spec.positions), chooser)
    plain = three_passes(gpt, Decoder(gpt, Cache(gpt, 3, gpt.spec.positions)), chooser)
    fused = three_passes(gpt, StaticDecoder(gpt, 3, gpt.spec.positions, fused=True), chooser)

    for ours, theirs, joined in zip(recorded, plain, fused, strict=True):
        assert np.array_equal(ours, theirs)
        assert np.array_equal(ours, joined)


@pytest.mark.gpu
def test_logits_of_half_precision_are_not_rounded_to_it(cuda: str) -> None:
    states, weight = (torch.randn(n, 48, device=cuda).bfloat16() for n in (3, 5000))

    found = float32_logits(states, weight)

    torch.testing.assert_close(found, states.float() @ weight.float().t(), atol=1e-4, rtol=1e-4)
    assert float((found - found.bfloat16()).abs().max()) > 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("pieces", [each for each in CHOICES if each > 1])
def test_keys_in_pieces_give_the_same_attention_on_a_gpu(cuda: str, pieces: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, 64, 18, 128, device=cuda, dtype=torch.bfloat16)
    keys, values = (torch.randn(1, 18, 5696, 128, device=cuda, dtype=torch.bfloat16) for _ in "kv")
    positions = torch.arange(700, 764, device=cuda)[None]

    found = attend_each(query, keys, values, Seen.at(positions, keys, pieces)).float()

    seen = (torch.arange(5696, device=cuda) <= positions[..., None])[:, None]
    wide = (query.transpose(1, 2).float(), keys.float(), values.float())
    expected = functional.scaled_dot_product_attention(*wide, attn_mask=seen)
    expected = expected.transpose(1, 2).flatten(2)
    assert float((found - expected).norm() / expected.norm()) < 1e-2


@pytest.mark.gpu
def test_calls_one_after_another_share_recordings_on_a_gpu(cuda: str) -> None:
    model = replace(random_model(n_embd=48, **EIGHT_STEPS), compiled=True)
    model.gpt.to(cuda)

    made = [dreams(model, seed=seed) for seed in (0, 0, 1)]

    assert model.kept.built == 1
    for again, first in zip(made[1], made[0], strict=True):
        assert np.array_equal(again.tokens, first.tokens)
    assert any(not np.array_equal(a.tokens, b.tokens) for a, b in zip(*made[1:], strict=True))
    before = torch.cuda.memory_allocated()
    model.let_go()
    assert torch.cuda.memory_allocated() < before
