"""On Ray the nodes hash inputs beside the driver, and every recording gets the identity it gets here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wham_data.pipelines.ingest.intake.identity import (
    FileHash,
    Identities,
    Unreadable,
    hash_file,
)
from wham_data.pipelines.ingest.intake.inputs import Found
from wham_data.pipelines.ingest.intake.known_inputs import FileStamp, KnownInputs
from wham_data.pipelines.run import errands
from wham_data.pipelines.run.errands import Errands
from wham_data.pipelines.run.progress import Event, Silent
from wham_data.pipelines.run.ray_jobs import Patience, RayRunner
from wham_data.pipelines.run.runner import Advance, Stage, Work
from wham_data.schemas.errors import RefusedInput
from wham_data.schemas.recording import Recording

pytestmark = pytest.mark.timeout(200)
SOON_MISSED = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with a CPU each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "_system_config": SOON_MISSED}
    with pytest.MonkeyPatch.context() as patch:  # workers are to find this module
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            started.add_node(num_cpus=1)
            yield started
        finally:
            started.shutdown()


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:  # noqa: ARG002
        self.lines.append(text)


def recordings(folder: Path, count: int) -> list[Recording]:
    """Recordings of two files each; one of the files is missing."""
    folder.mkdir()
    found = []
    for number in range(count):
        video, log = folder / f"{number:03}.mp4", folder / f"{number:03}.csv"
        video.write_bytes(number.to_bytes(4) * 1000)
        log.write_text(f"{number}\n")
        for path in (video, log):
            os.utime(path, (1e9, 1e9))
        found.append(Recording(video, (video, log), "video-log"))
    found[count // 2].files[1].unlink()
    return found


@dataclass
class Hashed:
    """The recordings as items of a run, while they are hashed. Threads here are slow."""

    identities: Identities
    search: list[Recording]
    left = 0
    all_known = False

    def __post_init__(self) -> None:
        self.identities.errands = Errands(self.slow, hash_file, 1, "hashing of inputs")
        self.here: list[Path] = []

    def slow(self, path: Path) -> FileHash | RefusedInput:
        self.here.append(path)
        time.sleep(0.5)
        return hash_file(path)

    @property
    def errands(self) -> Errands[Path, FileHash | RefusedInput]:
        return self.identities.errands

    def __iter__(self) -> Iterator[Found | Unreadable]:
        for each in self.identities.of_all(self.search):
            assert isinstance(each, Found | Unreadable)
            yield each


def same(_: object) -> Work[Any, Any]:
    def work(item: Any, _advance: Advance) -> Any:
        return item

    return work


def run_on(address: str, items: Hashed, heard: Heard, after: Callable[[int], None]) -> list[Any]:
    done = []
    for outcome in RayRunner(2, address, watch=heard).run(
        Stage("same", same), items, lambda _: None
    ):
        done.append(outcome.item)
        after(len(done))
    return done


def test_nodes_hash_what_the_driver_would_hash(cluster: Any, tmp_path: Path) -> None:
    search = recordings(tmp_path / "in", 300)
    expected = list(map(told, Identities(KnownInputs()).of_all(search)))
    known, heard = KnownInputs(), Heard()
    items = Hashed(Identities(known), search)

    found = run_on(cluster.address, items, heard, lambda _: None)

    assert sorted(map(told, found)) == expected
    assert len(items.here) < 150, "most of 600 files are hashed on the nodes"
    assert sum(isinstance(each, Unreadable) for each in found) == 1
    assert known._new.count(known.stamp(search[0].path, FileStamp.of(search[0].path))) == 1
    assert len(known._new) == 52 * 599
    assert heard.lines == []


def test_what_a_lost_node_had_is_hashed_all_the_same(cluster: Any, tmp_path: Path) -> None:
    search = recordings(tmp_path / "in", 300)
    expected = list(map(told, Identities(KnownInputs()).of_all(search)))
    heard = Heard()
    items = Hashed(Identities(KnownInputs()), search)
    third = cluster.add_node(num_cpus=1)

    def lose_one(done: int) -> None:
        if done == 2:
            cluster.remove_node(third, allow_graceful=False)

    found = run_on(cluster.address, items, heard, lose_one)

    assert sorted(map(told, found)) == expected
    assert any("is lost" in line for line in heard.lines)


def never(path: Path) -> FileHash | RefusedInput:
    time.sleep(1000)
    return hash_file(path)


def test_a_node_that_never_answers_is_named_and_then_done_without(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "TAKEN_OVER_SECONDS", 6.0)
    search = recordings(tmp_path / "in", 6)
    expected = list(map(told, Identities(KnownInputs()).of_all(search)))
    heard = Heard()
    items = Hashed(Identities(KnownInputs()), search)
    items.identities.errands = Errands(items.slow, never, 1, "hashing of inputs")
    runner = RayRunner(2, cluster.address, watch=heard, patience=Patience(speak=2.0, end=3.0))

    outcomes = runner.run(Stage("same", same), items, lambda _: None)
    found = [told(outcome.item) for outcome in outcomes]

    assert sorted(found) == expected
    assert any("waiting for the hashing of inputs on" in line for line in heard.lines)


def told(each: object) -> tuple[object, ...]:
    """What a recording turned out to be, in a form that can be compared."""
    assert isinstance(each, Found | Unreadable)
    if isinstance(each, Unreadable):
        return each.recording.source, str(each.why), each.why.reason
    return each.recording.source, each.key, each.content, each.bytes, each.stamps, each.hashed
