"""Dreams go on step by step, and come out as if they had been made in one go."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from makers.slow_gpt import random_model
from numpy.typing import NDArray

import wham_data
from wham_data.inference.dream import Dream, dream_batch
from wham_data.inference.gpt.session import GPTSession
from wham_data.inference.gpt.world_model import GPTWorldModel
from wham_data.inference.sampling import Sampling
from wham_data.inference.session import LATER, Context, Session, Step, WorldModel, one_by_one
from wham_data.schemas.errors import IntegrityError, MismatchError, UsageError
from wham_data.schemas.wham_tokens import measured_from_bins

STEPS = 7
SEEDS, INDICES = [3, 3, 3], [0, 1, 2]


def some_tokens(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 20, (count, 6))


def some_actions(count: int, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    buttons, sticks = random.integers(0, 2, (count, 12)), random.integers(0, 11, (count, 4))
    return measured_from_bins(np.concatenate([buttons, sticks], axis=1))


CONTEXTS = [Context(actions=some_actions(n, n), tokens=some_tokens(n, n)) for n in (3, 1, 5)]
FUTURE = [some_actions(STEPS, 10 + row) for row in range(3)]
PICTURES = [some_tokens(STEPS, 10 + row) for row in range(3)]


def begun(model: GPTWorldModel | None = None, **how: Any) -> GPTSession:
    return (model or random_model()).begin(CONTEXTS, SEEDS, indices=INDICES, **how)


def acted(k: int) -> NDArray[np.float32]:
    return np.stack([future[k] for future in FUTURE])


def shown(k: int) -> NDArray[np.int64]:
    return np.stack([frames[k] for frames in PICTURES])


def same(made: list[Step], dreams: list[Dream], first: int = 0) -> bool:
    return all(
        np.array_equal(step.tokens[row], dreamt.tokens[first + k])
        and np.array_equal(step.actions[row], dreamt.actions[first + k])
        for k, step in enumerate(made)
        for row, dreamt in enumerate(dreams)
    )


def expected(mode: Any, **how: Any) -> list[Dream]:
    given: dict[str, Any] = {"world": {"actions": FUTURE}, "policy": {"frames": PICTURES}}
    more = given.get(mode, {})
    return dream_batch(random_model(), CONTEXTS, steps=STEPS, mode=mode, seed=3, **more, **how)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("how", [{}, {"speculate": False}, {"context_steps": 1}])
def test_step_by_step_is_the_dream_in_every_mode(how: dict[str, Any], compiled: bool) -> None:
    model = replace(random_model(), compiled=compiled)
    world, full, policy = (begun(model, **how) for _ in range(3))
    assert same([world.step(acted(k)) for k in range(STEPS)], expected("world", **how))
    assert same([full.step() for _ in range(STEPS)], expected("full", **how))
    assert same([policy.step(frames=shown(k)) for k in range(STEPS)], expected("policy", **how))


def test_an_action_decided_after_the_frame_was_seen_is_the_same_action() -> None:
    session, dreams = begun(), expected("world")
    for k in range(STEPS):
        step = session.step(LATER)
        assert np.isnan(step.actions).all()
        taken = session.act(acted(k))
        assert same([replace(step, actions=taken)], dreams, first=k)


def test_the_model_may_decide_afterwards_too() -> None:
    session, dreams = begun(), expected("full")
    for k in range(STEPS):
        step = session.step(LATER)
        assert same([replace(step, actions=session.act())], dreams, first=k)


def test_who_decides_may_change_at_any_step() -> None:
    session, again = begun(), begun()
    first = [session.step(), session.step(acted(1)), session.step(frames=shown(2))]
    second = [again.step(first[0].actions), again.step(acted(1)), again.step(frames=shown(2))]
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))
    both = session.step(acted(3), frames=shown(3))
    assert np.array_equal(both.tokens, shown(3))
    assert np.array_equal(both.actions, acted(3))
    assert both.stats[0].generated == second[-1].stats[0].generated + 16


def test_an_action_changes_what_comes_after_it_and_nothing_before() -> None:
    one, two = begun(), begun()
    first = one.step(acted(0)), two.step(acted(1))
    assert np.array_equal(first[0].tokens, first[1].tokens)
    assert not np.array_equal(one.step().tokens, two.step().tokens)


def test_a_clone_goes_on_equal_and_by_itself() -> None:
    session, dreams = begun(), expected("world")
    for k in range(3):
        session.step(acted(k))
    branch, other = session.clone(), session.clone()
    other.step(acted(0))
    other.close()
    assert same([branch.step(acted(k)) for k in range(3, STEPS)], dreams, first=3)
    ours = [session.step(acted(k)) for k in range(3, STEPS)]
    assert same(ours, dreams, first=3)
    assert list(ours[-1].stats) == [dreamt.stats for dreamt in dreams]


def test_a_saved_session_goes_on_equal_where_it_is_restored() -> None:
    session, dreams = begun(), expected("full")
    for _ in range(3):
        session.step()
    session.step(LATER)
    restored = random_model().restore(session.save())
    taken = restored.act()
    assert np.array_equal(taken, np.stack([dreamt.actions[3] for dreamt in dreams]))
    assert same([restored.step() for _ in range(4, STEPS)], dreams, first=4)
    assert restored.save() != session.save()


def test_what_was_made_ahead_is_forgotten_when_plans_change() -> None:
    session, dreams = begun(), expected("world")
    ahead = session.steps(STEPS, FUTURE)
    assert same([next(ahead), next(ahead)], dreams)
    branch, saved = session.clone(), session.save()
    assert same([branch.step(acted(2))], dreams, first=2)
    assert same([random_model().restore(saved).step(acted(2))], dreams, first=2)
    assert same([next(ahead)], dreams, first=2)
    assert same([session.step(acted(3))], dreams, first=3)
    with pytest.raises(UsageError, match="meanwhile"):
        next(ahead)
    assert same(list(one_by_one(session, 2, [f[4:6] for f in FUTURE])), dreams, first=4)


def test_a_long_session_keeps_no_more_than_it_looks_at() -> None:
    session = begun(random_model())
    for _ in range(12):
        session.step()
    sizes = [len(dream["place"]["tokens"]) for dream in json.loads(session.save())["dreams"]]
    assert sizes == [3, 3, 3]


def test_a_closed_session_refuses() -> None:
    session = begun()
    session.close()
    session.close()
    calls: list[Any] = [session.step, session.act, session.clone, session.save]
    for call in [*calls, lambda: session.steps(2)]:
        with pytest.raises(UsageError, match="closed"):
            call()


def test_steps_and_acts_out_of_turn_are_refused() -> None:
    session = begun()
    with pytest.raises(UsageError, match="no actions are waited for"):
        session.act(acted(0))
    session.step(LATER)
    with pytest.raises(UsageError, match="call act"):
        session.step()
    with pytest.raises(UsageError, match="expected"):
        session.act(acted(0)[:, :5])
    session.act(acted(0))
    for wrong in ("now", acted(0)[:2], np.full((3, 16), np.nan)):
        with pytest.raises(UsageError):
            session.step(wrong)  # type: ignore[arg-type]
    assert same([session.step(acted(1))], expected("world"), first=1)


def test_sessions_that_cannot_begin_are_refused() -> None:
    model = random_model()
    with pytest.raises(UsageError, match="no contexts"):
        model.begin([], [])
    with pytest.raises(UsageError, match="1 seeds for 3 contexts"):
        model.begin(CONTEXTS, [0])
    with pytest.raises(UsageError, match="expected 1 to 4"):
        model.begin(CONTEXTS, SEEDS, context_steps=5)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"dreams": [{}]},
        {"dreams": 3},
        {"sampling": {"temperature": "hot"}},
        {"context_steps": -1},
    ],
)
def test_a_damaged_save_is_refused(change: dict[str, Any]) -> None:
    saved = json.loads(begun().save())
    with pytest.raises(IntegrityError, match="saved session"):
        random_model().restore(json.dumps({**saved, **change}).encode())


def test_a_save_of_another_model_is_refused() -> None:
    saved = begun().save()
    with pytest.raises(MismatchError, match="with the model"):
        random_model(seed=1).restore(saved)
    with pytest.raises(IntegrityError, match="saved session"):
        random_model().restore(saved[:100])


def test_the_gpt_is_a_world_model_and_its_sessions_are_sessions() -> None:
    model: WorldModel = random_model()
    session: Session = model.begin(CONTEXTS, SEEDS, sampling=Sampling(0.5))
    assert session.step().tokens.shape == (3, model.spec.image_tokens)
    assert model.dream_bytes(1) == 2 * 2 * 24 * (2 * model.spec.tokens_per_step) * 4
    assert wham_data.WorldModel is WorldModel
    assert (wham_data.Session, wham_data.Step, wham_data.LATER) == (Session, Step, LATER)
