"""Reads files in which something went wrong, thousands of them, and watches what comes of it.

    python tests/fuzz/fuzzing.py readers --minutes 10 [--seed 0]

Whatever a file holds, reading it ends within a time limit and raises nothing but the error family.
A case is a number: target, file and mutations follow from it and the seed. Cases run in a child, so
that a crash or a hang is a finding like any other; its files are kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "pipelines" / "readers")]

from fuzz_mutations import mutated  # noqa: E402
from fuzz_targets import NEVER_CHANGED, TARGETS, Target  # noqa: E402

from wham_data.schemas.errors import RefusedInput, WhamDataError  # noqa: E402

CASE_SECONDS = 120
"""Of the clock, on a machine that may be busy with other things."""
START_SECONDS = 600
MOST_BYTES = 6 << 30
"""Of address space: a file of a few kilobytes that asks for more has asked for too much."""


@dataclass(slots=True)
class Outcome:
    """What came of many cases.

    cases     how many were read
    came      how often each end came: "read", or the name of an error of the family
    findings  the last line of each other end, by the number of its case
    """

    cases: int = 0
    came: Counter[str] = field(default_factory=Counter)
    findings: dict[int, str] = field(default_factory=dict)

    def count(
        self, case: int, came: str | None, why: str | None, found: Callable[[int, str], None]
    ) -> None:
        """One more case: what came of it, or why it is a finding."""
        self.cases += 1
        if came is not None:
            self.came[came] += 1
        else:
            self.findings[case] = str(why)
            found(case, str(why))


@dataclass(frozen=True, slots=True)
class Fuzzer:
    """The cases of one group of targets, in a scratch folder."""

    group: str
    seed: int
    scratch: Path

    def good(self, target: Target) -> Path:
        """Where a target's good files lie; they are made when they are first asked for."""
        folder = self.scratch / "good" / target.name
        if not folder.exists():
            folder.mkdir(parents=True)
            target.make(folder)
        return folder

    def files_of(self, case: int) -> tuple[Target, Path]:
        """Write the files of a case; the target, and their folder."""
        rng = np.random.default_rng((self.seed, case))
        targets = TARGETS[self.group]
        target = targets[case % len(targets)]
        folder = self.scratch / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good(target), folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        chosen = [path for path in files if path.suffix not in NEVER_CHANGED]
        path = chosen[rng.integers(len(chosen))]
        path.write_bytes(mutated(path.read_bytes(), rng))
        return target, folder

    def read(self, case: int) -> str:
        """How reading a case ended.

        Raises:
            Exception: whatever is not of the error family.
        """
        target, folder = self.files_of(case)
        try:
            target.read(folder)
        except RefusedInput as refused:
            return f"refused: {refused.reason}"
        except WhamDataError as error:
            return type(error).__name__
        return "read"


def fuzz(
    group: str,
    scratch: Path,
    *,
    seed: int = 0,
    first: int = 0,
    cases: int | None = None,
    minutes: float | None = None,
    found: Callable[[int, str], None] = lambda _, __: None,
) -> Outcome:
    """Read cases from number `first` on, so many or for so long."""
    fuzzer = Fuzzer(group, seed, scratch)
    outcome = Outcome()
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    last = first + cases if cases is not None else sys.maxsize
    case = first
    while case < last and time.monotonic() < end:
        mine, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("spawn").Process(  # libraries with threads do not fork
            target=_read_on, args=(fuzzer, case, last, end, theirs), daemon=True
        )
        child.start()
        theirs.close()
        case = _watch(child, mine, case, outcome, found)
    return outcome


def _read_on(fuzzer: Fuzzer, first: int, last: int, end: float, told: Connection) -> None:
    """In the child: case after case, each end told at once."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in range(first, last):
        if time.monotonic() > end:
            break
        try:
            told.send((case, fuzzer.read(case), None))
        except BaseException as error:  # panics of libraries in Rust are no Exception
            where = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__} at {where.filename}:{where.lineno}: {error}"
            told.send((case, None, why[:500]))


def _watch(
    child: multiprocessing.process.BaseProcess,
    told: Connection,
    case: int,
    outcome: Outcome,
    found: Callable[[int, str], None],
) -> int:
    """Count what a child tells until it is done, dead or hung; the next case to read."""
    patience = START_SECONDS
    while True:
        try:
            if not told.poll(patience):
                child.kill()
                raise TimeoutError(f"hung for {patience} s")
            case, came, why = told.recv()
        except (EOFError, TimeoutError) as end:
            child.join()
            if child.exitcode == 0:
                return sys.maxsize
            outcome.count(case, None, str(end) or f"died with exit code {child.exitcode}", found)
            return case + 1
        outcome.count(case, came, why, found)
        case += 1
        patience = CASE_SECONDS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", type=int, help="one case only, with its traceback")
    parser.add_argument("--keep", type=Path, help="folder for the files of what was found")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wham-data-fuzz-") as scratch:
        if settings.case is not None:
            fuzzer = Fuzzer(settings.group, settings.seed, Path(scratch))
            print(fuzzer.read(settings.case))
            return
        outcome = fuzz(
            settings.group,
            Path(scratch),
            seed=settings.seed,
            minutes=settings.minutes,
            found=lambda case, why: print(f"FOUND case {case}: {why}", flush=True),
        )
        if settings.keep and outcome.findings:
            fuzzer = Fuzzer(settings.group, settings.seed, Path(tempfile.mkdtemp(dir=scratch)))
            for case in outcome.findings:
                shutil.copytree(fuzzer.files_of(case)[1], settings.keep / str(case))
    print(f"{settings.group}: seed {settings.seed}, {outcome.cases} cases")
    for came, count in outcome.came.most_common():
        print(f"  {count:7} {came}")
    print(f"  {len(outcome.findings):7} FOUND")
    sys.exit(bool(outcome.findings))


if __name__ == "__main__":
    main()
