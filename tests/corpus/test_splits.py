"""Splits keep matches and players whole, and never move what is placed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.corpus.splits import (
    Conflict,
    Placed,
    SplitIndex,
    SplitPlan,
    Ties,
    assign_splits,
    tied_by,
)
from wham_data.schemas.errors import UsageError

FEW = st.sampled_from([None, "1", "2", "3", "4", "5", "6"])
HASHES = st.text("0123456789abcdef", min_size=4, max_size=4)
RECORDINGS = st.lists(
    st.builds(Ties, HASHES, FEW, FEW), max_size=14, unique_by=lambda r: r.recording
)


def groups_slowly(recordings: list[Ties]) -> dict[str, set[str]]:
    """Each recording's group: add whoever shares a match or a player until nobody is added."""
    groups = {}
    for start in recordings:
        group = {start}
        while True:
            more = {
                other
                for other in recordings
                if any(set(other.names) & set(member.names) for member in group)
            }
            if more <= group:
                break
            group |= more
        groups[start.recording] = {each.recording for each in group}
    return groups


@given(RECORDINGS, st.integers(0, 3))
def test_what_is_tied_over_any_number_of_steps_is_in_one_split(
    recordings: list[Ties], seed: int
) -> None:
    splits = assign_splits(recordings, [], (1, 1, 1), seed)
    for group in groups_slowly(recordings).values():
        assert len({splits[each] for each in group}) == 1


@given(RECORDINGS, st.randoms())
def test_the_order_of_the_inputs_does_not_matter(recordings: list[Ties], random: object) -> None:
    shuffled = sorted(recordings, key=lambda r: hash((r.recording, str(random))))
    assert assign_splits(recordings, [], (2, 1, 1)) == assign_splits(shuffled, [], (2, 1, 1))


@given(RECORDINGS, RECORDINGS, st.sets(st.integers(0, 13)), st.integers(0, 2))
@settings(max_examples=300)
def test_a_run_killed_half_way_and_started_again_splits_as_an_undisturbed_one(
    old: list[Ties], new: list[Ties], done: set[int], seed: int
) -> None:
    first = assign_splits(old, [], (1, 1, 1), seed)
    placed = [Placed(each, str(first[each.recording])) for each in old]
    taken = {each.recording for each in old}
    inputs = [each for each in new if each.recording not in taken]
    undisturbed = assign_splits(inputs, placed, (1, 1, 1), seed)
    committed = [
        Placed(each, split)
        for index, each in enumerate(inputs)
        if index in done and isinstance(split := undisturbed[each.recording], str)
    ]
    assert assign_splits(inputs, placed + committed, (1, 1, 1), seed) == undisturbed


@given(RECORDINGS, RECORDINGS)
def test_appending_never_moves_what_is_placed_and_never_ties_two_splits(
    old: list[Ties], new: list[Ties]
) -> None:
    first = assign_splits(old, [], (1, 1, 1))
    placed = [Placed(each, str(first[each.recording])) for each in old]
    both = assign_splits([*old, *new], placed, (1, 1, 1))
    assert all(both[each.recording] == first[each.recording] for each in old)
    sides: dict[str, set[str]] = {}
    known = {each.recording: each for each in [*new, *old]}
    for recording, split in both.items():
        if isinstance(split, str):
            for name in known[recording].names:
                sides.setdefault(name, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())


SHARES = st.sampled_from([(90, 5, 5), (1, 1, 1), (90, 10, 0), (5, 90, 5), (0, 1, 1), (1, 0, 0)])


@given(RECORDINGS, SHARES, st.integers(0, 5), st.sets(st.integers(0, 13)))
@settings(max_examples=300)
def test_every_split_asked_for_gets_a_group_where_there_are_enough(
    recordings: list[Ties], shares: tuple[int, ...], seed: int, bad: set[int]
) -> None:
    refused = {each.recording for at, each in enumerate(recordings) if at in bad}
    splits = assign_splits(recordings, [], shares, seed, refused=refused)
    groups = {frozenset(each) for each in groups_slowly(recordings).values()}
    taken = [each for each in groups if not each <= refused]
    asked = [s for s, share in zip(("train", "val", "test"), shares, strict=True) if share]
    there = {splits[each] for group in taken for each in group - refused}

    assert there == set(asked[: len(taken)])  # train before val, val before test


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [3, 5, 10])
def test_a_corpus_that_grows_one_by_one_has_every_split_from_the_third_group_on(
    count: int, seed: int
) -> None:
    placed: list[Placed] = []
    for number in range(count):
        new = Ties(f"{number * 7919 % 10007:05d}")
        split = assign_splits([new], placed, (90, 5, 5), seed)[new.recording]
        placed.append(Placed(new, str(split)))

    assert {each.split for each in placed} == {"train", "val", "test"}


def test_an_empty_split_takes_the_smallest_group_and_leaves_the_largest_in_train() -> None:
    recordings = [Ties(f"{name}{i}", player=name) for name in "abc" for i in range(3)]
    recordings += [Ties(f"x{i}", player="x") for i in range(50)]
    for seed in range(10):
        splits = assign_splits(recordings, [], (98, 1, 1), seed)
        assert [splits[f"x{i}"] for i in range(50)] == ["train"] * 50
        assert set(splits.values()) == {"train", "val", "test"}


@given(RECORDINGS, RECORDINGS, SHARES, st.data())
@settings(max_examples=400)
def test_the_order_in_which_recordings_are_taken_or_refused_does_not_matter(
    old: list[Ties], new: list[Ties], shares: tuple[int, ...], data: st.DataObject
) -> None:
    """Whatever is final is committed at any moment; the run may be killed and started again."""
    first = assign_splits(old, [], shares)
    placed = [Placed(each, str(first[each.recording])) for each in old]
    inputs = [each for each in new if each.recording not in first]
    refused = {each.recording for each in inputs if data.draw(st.booleans())}
    undisturbed = assign_splits(inputs, placed, shares, refused=refused)

    plan, committed, finished = SplitPlan(inputs, placed, shares), dict[str, str](), set[str]()
    for each in data.draw(st.permutations(inputs)):
        name = each.recording
        if isinstance(plan.splits()[name], Conflict):
            continue
        finished.add(name)
        plan.refuse(name) if name in refused else plan.take(name)
        waiting = finished - refused
        for done in sorted(plan.final(waiting)):
            split = committed.setdefault(done, str(plan.splits()[done]))
            assert split == undisturbed[done]
        if data.draw(st.booleans()):
            there = [Placed(t, committed[t.recording]) for t in inputs if t.recording in committed]
            again = assign_splits(inputs, placed + there, shares, refused=refused)
            assert {k: s for k, s in again.items() if k not in refused} == {
                k: s for k, s in undisturbed.items() if k not in refused
            }


TIED = {
    "player": ("m", "ann"),
    "match": ("m", None),
    "recording": (None, None),
    "time": (None, None),
}


@pytest.mark.parametrize(("by", "ties"), TIED.items())
def test_what_ties_recordings_can_be_chosen(by: str, ties: tuple[str | None, str | None]) -> None:
    assert tied_by(by, "a", "m", "ann") == Ties("a", *ties)


def test_a_recording_that_would_tie_two_splits_is_set_aside_unless_told_where_to() -> None:
    placed = [Placed(Ties("a", player="ann"), "train"), Placed(Ties("b", match="final"), "test")]
    new = [Ties("c", match="final", player="ann"), Ties("d", player="ann")]
    splits = assign_splits(new, placed)
    assert splits == {"c": Conflict(("test", "train")), "d": "train"}
    assert "ties" not in str(splits["c"]) or "test and train" in str(splits["c"])
    assert assign_splits(new, placed, tie_to="val")["c"] == "val"


def test_a_match_and_a_player_of_one_name_are_not_the_same() -> None:
    placed = [Placed(Ties("a", match="x"), "test")]
    assert assign_splits([Ties("b", player="x")], placed, (1, 0, 0)) == {"b": "train"}


def test_the_shares_are_kept_and_another_seed_draws_anew() -> None:
    recordings = [Ties(f"{i:05d}") for i in range(4000)]
    splits = assign_splits(recordings, [], (90, 5, 5))
    counts = Counter(splits.values())
    assert 0.88 < counts["train"] / 4000 < 0.92
    assert 0.04 < counts["val"] / 4000 < 0.06
    assert splits != assign_splits(recordings, [], (90, 5, 5), seed=1)
    assert set(assign_splits(recordings, [], (0, 0, 1)).values()) == {"test"}


@pytest.mark.parametrize("fractions", [(90, 10), (0, 0, 0), (-1, 1, 1), (float("nan"), 1, 1)])
def test_shares_that_make_no_sense_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="such as 90,5,5"):
        assign_splits([], [], fractions)


def test_a_commit_follows_who_was_committed_in_the_meantime() -> None:
    index = SplitIndex(base=SplitIndex())
    index.add(Placed(Ties("a", match="m", player="ann"), "val"))
    assert index.place(Ties("b", player="ann"), "train") == "val"
    assert index.place(Ties("c", player="bob"), "train") == "train"
    index.add(Placed(Ties("d", player="bob"), "train"))
    assert index.place(Ties("e", match="m", player="bob"), "train") == Conflict(("train", "val"))
    assert index.place(Ties("e", match="m", player="bob"), "train", tie_to="test") == "test"
