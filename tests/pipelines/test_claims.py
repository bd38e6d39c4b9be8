"""Claims: two who work into one folder, and what becomes of the claim of one that died."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from wham_data.pipelines.run.claims import PREFIX, WHOLE, Claims, Holder, alone
from wham_data.schemas.errors import UsageError

SLEEPS = "import time; print('ready', flush=True); time.sleep(60)"


def process() -> subprocess.Popen[str]:
    running = subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()
    return running


def column(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def claimed_by(holder: Holder, folder: Path, name: str) -> Path:
    """Leave the claim of another process."""
    with Claims(folder).taken([name]):
        (path,) = files(folder)
        content = json.loads(path.read_text()) | asdict(holder)
    path.write_text(json.dumps(content))
    return path


def test_a_piece_is_held_by_one_and_free_again_at_the_end(tmp_path: Path) -> None:
    mine, other = Claims(tmp_path), Claims(tmp_path)

    with mine.taken(["a", "b/c"]) as held, other.taken(["b/c", "d"]) as theirs:
        assert (held, theirs) == ({"a", "b/c"}, {"d"})
        assert other.holder("a") == Holder.here()
        assert other.holder("e") is None

    assert (other.holder("a"), files(tmp_path)) == (None, [])


def test_a_claim_is_given_up_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Claims(tmp_path).taken(["a"]):
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_of_many_who_come_at_once_each_piece_goes_to_one(tmp_path: Path) -> None:
    names = [str(number) for number in range(40)]

    def work(_: int) -> list[str]:
        done = []
        for name in names:
            with Claims(tmp_path).taken([name]) as mine:
                if mine and not (tmp_path / name).exists():
                    (tmp_path / name).touch()
                    done.append(name)
        return done

    with ThreadPoolExecutor(4) as pool:
        done = list(itertools.chain(*pool.map(work, range(4))))
    assert sorted(done) == sorted(names)


def test_the_claim_of_a_killed_process_is_taken_over_at_once_by_one(tmp_path: Path) -> None:
    running = process()
    holder = replace(Holder.here(), pid=running.pid, begun=column(running.pid))
    claimed_by(holder, tmp_path, "a")
    with Claims(tmp_path).taken(["a"]) as held:
        assert held == frozenset()
    assert Claims(tmp_path).holder("a") == holder

    running.kill()

    while running.poll() is None:  # dead, but not yet forgotten by its parent
        if Claims(tmp_path).holder("a") is None:
            break
    assert Claims(tmp_path).holder("a") is None
    with Claims(tmp_path).taken(["a"]) as first, Claims(tmp_path).taken(["a"]) as second:
        assert (first, second) == ({"a"}, frozenset())
    assert files(tmp_path) == []
    running.wait()


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path: Path) -> None:
    claimed_by(replace(Holder.here(), begun="1"), tmp_path, "a")
    assert Claims(tmp_path).holder("a") is None


def test_a_holder_elsewhere_is_dead_after_a_long_silence_by_the_clock_of_who_waits(
    tmp_path: Path,
) -> None:
    now = [100.0]
    elsewhere = Holder("another boot", "far", 7, "123")
    path = claimed_by(elsewhere, tmp_path, "a")
    os.utime(path, (0, 0))  # its clock is decades behind
    waits = Claims(tmp_path, silent_seconds=60, clock=lambda: now[0])

    assert waits.holder("a") == elsewhere
    now[0] += 59
    assert waits.holder("a") == elsewhere
    os.utime(path, (1, 1))  # a sign of life
    now[0] += 59
    assert waits.holder("a") == elsewhere
    now[0] += 59
    assert waits.holder("a") == elsewhere
    now[0] += 1
    assert waits.holder("a") is None

    with Claims(tmp_path).taken(["a"]) as unaware:
        assert unaware == frozenset()
    with Claims(tmp_path, waits.dead).taken(["a"]) as aware:
        assert aware == {"a"}
    assert files(tmp_path) == []


def test_who_was_taken_over_and_awakes_leaves_the_claim_of_the_next_alone(tmp_path: Path) -> None:
    suspended, next_one, third = (Claims(tmp_path, silent_seconds=0) for _ in range(3))
    with suspended.taken(["a"]):
        (path,) = files(tmp_path)  # as if it were elsewhere
        content = json.loads(path.read_text()) | {"machine": "another boot"}
        path.write_text(json.dumps(content))
        assert next_one.holder("a") is None
        taken_over = next_one.taken(["a"])
        assert taken_over.__enter__() == {"a"}

    assert third.holder("a") == Holder.here()
    taken_over.__exit__(None, None, None)
    assert files(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x"}', b"\xff" * 9000])
def test_a_damaged_claim_counts_as_one_of_an_unknown_machine(
    tmp_path: Path, content: bytes
) -> None:
    claimed_by(Holder.here(), tmp_path, "a").write_bytes(content)
    claims = Claims(tmp_path, silent_seconds=0)
    assert str(claims.holder("a") or "an unknown machine").endswith("an unknown machine")
    assert claims.holder("a") is None


def test_a_whole_folder_is_for_one_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(UsageError, match=rf"process {os.getpid()} on"):
        alone(tmp_path).__enter__()
    with alone(tmp_path):
        pass

    path = claimed_by(Holder("another boot", "far", 7, "123"), tmp_path, WHOLE)
    with pytest.raises(UsageError, match="remove") as refusal:
        alone(tmp_path).__enter__()
    assert str(path) in str(refusal.value)
    claimed_by(replace(Holder.here(), begun="1"), tmp_path / "killed", WHOLE)
    with alone(tmp_path / "killed"):
        pass


def test_a_claim_that_is_held_is_renewed(tmp_path: Path) -> None:
    with Claims(tmp_path, beat_seconds=0.01).taken(["a"]):
        (path,) = files(tmp_path)
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            pass
