"""The figures of `benchmarks/gpu.py`: how each is measured, judged and shown."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

GIB = 1 << 30


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TF32 in products and convolutions allowed or not; as it was at the end."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    expected   in words, on an H200
    verdict    "ok"; "WRONG": a result is not what it must be; "look": slower or larger than expected;
               "": not judged
    otherwise  what to do if the figure is another one
    """

    part: str
    name: str
    value: float | str | bool
    unit: str = ""
    expected: str = ""
    verdict: str = ""
    otherwise: str = ""

    @property
    def shown(self) -> str:
        number = f"{self.value:.5g}" if isinstance(self.value, float) else str(self.value)
        return f"{number} {self.unit}".strip()


@dataclass(slots=True)
class Bench:
    """The device under test, and the figures so far.

    judges_speed   the machine is the one whose speed is expected
    """

    device: torch.device
    judges_speed: bool
    part: str = ""
    figures: list[Figure] = field(default_factory=list)

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """The type in which models are measured."""
        return torch.bfloat16 if self.gpu else torch.float32

    def check(self, name: str, value: float | str, ok: bool, expected: str, otherwise: str) -> None:
        """A result that must be right on any machine."""
        self._add(Figure(self.part, name, value, "", expected, "ok" if ok else "WRONG", otherwise))

    def speed(
        self,
        name: str,
        value: float,
        unit: str,
        least: float | None = None,
        most: float | None = None,
        otherwise: str = "",
    ) -> None:
        """A figure with the range that is expected on an H200."""
        words = [f"{sign} {limit:g}" for sign, limit in ((">=", least), ("<=", most)) if limit]
        verdict = ""
        if words and self.judges_speed:
            within = (least or 0) <= value <= (most or float("inf"))
            verdict = "ok" if within else "look"
        self._add(Figure(self.part, name, value, unit, ", ".join(words), verdict, otherwise))

    def note(self, name: str, value: float | str, unit: str = "") -> None:
        """A figure of which nothing is expected."""
        self._add(Figure(self.part, name, value, unit))

    def broke_off(self, error: Exception) -> None:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        self.check("the whole part", said, False, "no error", "read the traceback above")

    def _add(self, figure: Figure) -> None:
        self.figures.append(figure)
        expected = f"   expected {figure.expected}" if figure.expected else ""
        print(f"{figure.name:52} {figure.shown:>16}{expected}   {figure.verdict}".rstrip())
        if figure.verdict in ("look", "WRONG"):
            print(f"    -> {figure.otherwise}")
        sys.stdout.flush()

    def sync(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def ms(self, work: Callable[[], object], rounds: int = 7, calls: int = 1) -> float:
        """Median milliseconds of a call, from rounds of `calls` calls each, after a warm-up."""
        work()
        taken = []
        for _ in range(rounds if self.gpu else 1):
            self.sync()
            started = time.perf_counter()
            for _ in range(calls if self.gpu else 1):
                work()
            self.sync()
            taken.append(1000 * (time.perf_counter() - started) / (calls if self.gpu else 1))
        return statistics.median(taken)

    def gib(self) -> float:
        """Most memory that torch has held on the GPU since the last call, in GiB."""
        if not self.gpu:
            return 0.0
        most = torch.cuda.max_memory_allocated(self.device) / GIB
        torch.cuda.reset_peak_memory_stats(self.device)
        return most

    def free(self) -> None:
        if self.gpu:
            torch.cuda.empty_cache()


def table(figures: Sequence[Figure]) -> str:
    """The figures as Markdown, for benchmarks/README.md."""
    rows = ["| part | what | figure | expected on an H200 | |", "|---|---|---|---|---|"]
    for each in figures:
        cells = (each.part, each.name.strip(), each.shown, each.expected, each.verdict)
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)
