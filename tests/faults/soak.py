"""Make ingest fail in hundreds of ways, and look at the corpus after each.

    python tests/faults/soak.py [--faults 500] [--ray 6] [--seed N [--only NUMBER]]

After every fault the corpus must be whole: the manifest can be read, every shard that it names has
its hash, no recording is in twice, none that was in is gone, and what is in is what an undisturbed
run puts there (but for the splits of runs that know of some recordings only). In the end a run that
nobody disturbs must complete the corpus to that very content.

    killed     SIGKILL at a named point: before a name is written, before and after its link, after
               it, for shards, manifest data, log entries, run records; or at a random moment
    writers    eight at once, half of them killed
    full       a disk of a random size that is too small
    read_only  a disk that has become read-only
    decoder    the decoder process crashes, is killed, or runs out of memory
    ray        SIGKILL of the command on Ray, of a worker or of the raylet

Everything follows from the seed, which is printed, but for the moments of `writers` and `ray`.
Runs are forked from this process, which has everything imported and no threads.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from makers.processes import below, title, wait_for_worker, workers_of  # noqa: E402
from makers.recordings import digest, strangers, without_splits  # noqa: E402
from makers.video_clips import write_clip  # noqa: E402

from wham_data import faults  # noqa: E402
from wham_data.corpus import Corpus  # noqa: E402
from wham_data.pipelines.ingest import job as ingest_module  # noqa: E402
from wham_data.pipelines.ingest import results, stages  # noqa: E402
from wham_data.pipelines.ingest.decoder_process import DecodeLimits  # noqa: E402
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings  # noqa: E402
from wham_data.pipelines.readers import open_recording  # noqa: E402
from wham_data.pipelines.run.runner import LocalRunner  # noqa: E402
from wham_data.pipelines.video import VideoLimits  # noqa: E402
from wham_data.schemas.actions import ActionSpace, load_space  # noqa: E402
from wham_data.schemas.errors import Reason, WhamDataError  # noqa: E402
from wham_data.schemas.mask import Mask  # noqa: E402
from wham_data.schemas.recording import OpenRecording, Recording  # noqa: E402

# Here, so that no fork has to. (PyArrow loads pandas where it is installed.)
for name in ("deltalake", "polars", "wham_data.corpus.verify", "pandas"):
    with contextlib.suppress(ImportError):
        import_module(name)

RECORDINGS = 5
SETTINGS = IngestSettings(
    tokenizer=None, frames="png", size=(16, 12), decoding=DecodeLimits(memory_mb=400)
)
PLACES = {
    "corpus.json": 1,
    "shards/": 4,
    "episodes/part": 2,
    "episodes/_delta_log": 3,
    "quarantine/part": 1,
    "quarantine/_delta_log": 2,
    "runs/": 1,
    "hints/": 1,
}
"""What a run writes, and about how often."""
MOST_KILLS = 8
WRITERS = 8
RAY_VICTIMS = ("driver", "worker", "raylet")
FULL_KB = 160
"""About what the corpus takes on a tmpfs, which counts pages."""
NEED_A_DISK = ("full", "read_only")
SOME_RECORDINGS = ("writers", "decoder")
"""Runs that know of some recordings only. Which one fills an empty split depends on who is there."""
TURNS = ("killed", "writers", "killed", "full", "killed", "read_only", "killed", "decoder")


class Violation(Exception):
    """A promise that was not kept."""


def make_recordings(folder: Path) -> None:
    """Short clips with logs, and one that is refused."""
    folder.mkdir()
    for number in range(RECORDINGS):
        video = write_clip(
            folder / f"play{number}.mp4", range(0, 1200 + 100 * number, 100), size=(32, 24)
        )
        names = load_space("wham16").names
        rows = [f"{t}" + f",{(t // 60 + number) % 2}" * len(names) for t in range(0, 1700, 20)]
        video.with_suffix(".csv").write_text("\n".join([",".join(["time_ms", *names]), *rows]))
        video.with_suffix(".toml").write_text(f'actions = "wham16"\nplayer = "player {number}"\n')
    (folder / "refused.mp4").touch()


@dataclass(frozen=True, slots=True)
class Forked:
    """A forked process, and the pipe on which it says what came of its work."""

    pid: int
    said: int

    def wait(self) -> tuple[int, Any]:
        """Exit code, or minus the signal that ended it; and its result if the code is 0."""
        with os.fdopen(self.said) as pipe:
            text = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, json.loads(text) if code == 0 else text


def fork(work: Callable[[], Any]) -> Forked:
    """Start `work` in a forked process."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return Forked(pid, ours)
    code = 70
    with os.fdopen(theirs, "w") as pipe:
        try:
            pipe.write(json.dumps(work(), default=str))
            code = 0
        except WhamDataError as error:
            pipe.write(str(error))
            code = error.exit_code
        except BaseException:
            traceback.print_exc(file=pipe)
    os._exit(code)


def ingest(
    sources: Sequence[Path], out: Path, fault: str | None = None, *, retry: bool = False
) -> Any:
    """One run, in this process, which commits often."""
    results.COMMIT_EVERY_RECORDINGS = 2
    if fault is None or not fault.startswith("recording."):
        # To start a decoder process costs more than all the rest.
        stages.open_isolated = open_here
    if fault is not None:
        faults.arm(fault)
    choices = IngestChoices(retry_quarantined=retry)
    report = ingest_module.run_ingest(sources, out, SETTINGS, LocalRunner(), choices)
    return {"ingested": report.ingested, "reasons": report.reasons}


def open_here(
    recording: Recording,
    limits: VideoLimits,
    max_gap_ns: int,
    options: Sequence[tuple[str, str]],
    masks: Sequence[Mask],
    decoding: DecodeLimits,
    target: ActionSpace | None,
    *,
    whole: bool,
) -> OpenRecording:
    """What `open_isolated` does, without a process of its own."""
    del decoding, whole
    return open_recording(recording, limits, max_gap_ns, dict(options), tuple(masks), target)


def inspected(out: Path) -> dict[str, Any]:
    """What a corpus holds, after everything about it was checked; {} if it has not begun."""
    if not (out / "corpus.json").exists():
        return {}
    report = Corpus.open(out).verify()
    if not report.ok:
        raise Violation(f"verify: {report.problems}")
    found = digest(out)
    episodes = [row["episode"] for row in found["episodes"]]
    if len(set(episodes)) != len(episodes):
        raise Violation(f"in twice: {episodes}")
    return {**found, "strangers": strangers(out)}


class Bench:
    """Where faults are injected, and what must come of them."""

    def __init__(self, folder: Path, ray_victims: Sequence[str]) -> None:
        self.folder, self.chance = folder, random.Random()
        self.ray_victims = ray_victims
        self.recordings = folder / "recordings"
        self.faults: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.kind = "undisturbed"
        self._number = 0
        make_recordings(self.recordings)
        self.finish(undisturbed := folder / "undisturbed")
        self.want = self.look(undisturbed)

    def inject(self, kind: str, chance: random.Random) -> None:
        """One scenario of a kind."""
        self.kind, self.chance = kind, chance
        getattr(self, kind)()

    def fresh(self) -> Path:
        """A place for a corpus."""
        self._number += 1
        return self.folder / f"corpus{self._number}"

    def run(self, out: Path, fault: str | None = None, **options: Any) -> tuple[int, Any]:
        """One run to its end, whatever that is."""
        self.runs[self.kind] += 1
        return fork(lambda: ingest([self.recordings], out, fault, **options)).wait()

    def finish(self, out: Path, **options: Any) -> None:
        """A run that nobody disturbs, which must succeed."""
        code, result = self.run(out, **options)
        if code != 0:
            raise Violation(f"undisturbed, the run ends with {code}: {result}")

    def look(self, out: Path) -> dict[str, Any]:
        """What a corpus holds; in a process of its own, for what reads it starts threads."""
        code, found = fork(lambda: inspected(out)).wait()
        if code != 0:
            raise Violation(found)
        return found

    def check(self, out: Path, before: dict[str, Any]) -> dict[str, Any]:
        """Whatever has happened: all is whole, nothing was lost, nothing is there that is wrong."""
        found = self.look(out)
        for kind in ("episodes", "quarantine"):
            rows, had = found.get(kind, []), before.get(kind, [])
            want = self.compared(self.want)[kind]
            if wrong := [row for row in self.compared({kind: rows})[kind] if row not in want]:
                raise Violation(f"{kind} has what no undisturbed run makes: {wrong}")
            if lost := [row for row in had if row not in rows]:
                raise Violation(f"{kind} lost {lost}")
        known = {f"shards/{name}" for name in self.want["shards"]}
        if odd := set(found.get("strangers", ())) - known:
            raise Violation(f"files nobody names: {odd}")
        return found

    def complete(self, out: Path, **options: Any) -> None:
        """In the end a run completes it, and it is what it would have been."""
        self.finish(out, **options)
        found = self.look(out)
        if self.compared(found) != self.compared(self.want):
            raise Violation(f"the result differs: {found}")
        shutil.rmtree(out)

    def compared(self, found: dict[str, Any]) -> dict[str, Any]:
        """What must be equal to an undisturbed run: in some kinds of runs all but the splits."""
        return without_splits(found) if self.kind in SOME_RECORDINGS else found

    def killed(self) -> None:
        """One corpus, killed on the way again and again until a run comes to its end."""
        out, before, code = self.fresh(), {}, -signal.SIGKILL
        for _ in range(MOST_KILLS):
            if code == 0:
                break
            if self.chance.random() < 0.15:
                code, text = self._killed_some_time(out)
            else:
                code, text = self.run(out, self.a_kill())
            self.expect(code, text, -signal.SIGKILL)
            before = self.check(out, before)
        self.complete(out)

    def a_kill(self) -> str:
        """A fault at some point of giving some name."""
        point = self.chance.choice(faults.NAME_POINTS)
        place, most = self.chance.choice(list(PLACES.items()))
        return f"{point}~{place}@{self.chance.randint(1, most)}:kill"

    def _killed_some_time(self, out: Path) -> tuple[int, Any]:
        self.runs[self.kind] += 1
        run = fork(lambda: ingest([self.recordings], out))
        time.sleep(self.chance.uniform(0, 1.5))
        os.kill(run.pid, signal.SIGKILL)
        return run.wait()

    def writers(self) -> None:
        """Eight at once, each with some of the recordings, half of them killed on the way."""
        out = self.fresh()
        videos = sorted(self.recordings.glob("*.mp4"))
        running = []
        for _ in range(WRITERS):
            some = self.chance.sample(videos, self.chance.randint(2, len(videos)))
            fault = self.a_kill() if self.chance.random() < 0.5 else None
            running.append(fork(lambda some=some, fault=fault: ingest(some, out, fault)))
        self.runs[self.kind] += WRITERS
        for run in running:
            self.expect(*run.wait(), -signal.SIGKILL)
        self.check(out, {})
        self.complete(out)

    def full(self) -> None:
        """A disk that is too small; then room is made."""
        with self.disk(f"{self.chance.randrange(8, FULL_KB, 4)}k") as disk:
            out = disk / "corpus"
            self.refused_in_one_line(out, "No space left on device")
            self.check(out, {})
            if left := [*disk.rglob(".tmp-*")]:
                raise Violation(f"temporary files are left: {left}")
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            self.complete(out)

    def read_only(self) -> None:
        """A corpus begun, and then nothing more can be written where it lies."""
        with self.disk("64m") as disk:
            out = disk / "corpus"
            self.run(out, f"name.published~shards/@{self.chance.randint(1, 4)}:kill")
            before = self.look(out)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            self.refused_in_one_line(out, "Read-only file system")
            self.check(out, before)
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            self.complete(out)

    def refused_in_one_line(self, out: Path, cause: str) -> None:
        """A run either has what it needs, or says in one line what it has not."""
        code, told = self.run(out)
        self.expect(code, told, 1)
        if code == 1 and (cause not in told or "\n" in told or str(out) not in told):
            raise Violation(f"expected one line with {cause!r} and the path, got {told!r}")

    @contextlib.contextmanager
    def disk(self, size: str) -> Iterator[Path]:
        """A file system of its own."""
        place = self.fresh()
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
            place.rmdir()

    def decoder(self) -> None:
        """A recording takes its decoder along: once, and it is tried again; always, and it is out."""
        out, victim = self.fresh(), self.chance.randrange(RECORDINGS)
        point = self.chance.choice(faults.RECORDING_POINTS)
        action, reason = self.chance.choice(
            [
                ("segfault", Reason.DECODER_CRASHED),
                ("kill", Reason.DECODER_CRASHED),
                ("bomb", Reason.OUT_OF_MEMORY),
            ]
        )
        fault = f"{point}~play{victim}.mp4:{action}"
        code, report = self.run(out, fault)
        self.faults[self.kind] += 1
        expected = {"empty_file": 1, str(reason): 1}
        if code != 0 or (report["ingested"], report["reasons"]) != (RECORDINGS - 1, expected):
            raise Violation(f"{fault}: exit {code}, {report}")
        self.complete(out, retry=True)

    def ray(self) -> None:
        """The command on Ray, and somebody kills it, a worker, or the raylet."""
        out, victim = self.fresh(), self.chance.choice(self.ray_victims)
        command = [sys.executable, "-c", "from wham_data.cli.main import main; main()", "ingest"]
        command += [self.recordings, "--out", out, "--workers", "2", "--tokenizer", "none"]
        command += ["--frames", "png", "--size", "16x12", "--quiet"]
        run = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.runs[self.kind] += 1
        wait_for_worker(run)
        time.sleep(self.chance.uniform(0, 0.5))
        pids = {"driver": [run.pid], "worker": workers_of(run.pid), "raylet": raylets_of(run.pid)}
        family = below(run.pid)
        for pid in pids[victim][:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.faults[self.kind] += 1
        _, told = run.communicate(timeout=120)
        if victim == "worker" and run.returncode != 3:
            raise Violation(
                f"without one of its workers the run ends with {run.returncode}: {told}"
            )
        for pid in family:  # what a killed driver leaves goes by itself, but not at once
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.check(out, {})
        self.complete(out)

    def expect(self, code: int, text: Any, failure: int) -> None:
        """A run ended well, or as it was made to fail, which counts."""
        if code == failure:
            self.faults[self.kind] += 1
        elif code != 0:
            raise Violation(f"the run ends with {code}: {text}")


def raylets_of(pid: int) -> list[int]:
    return [each for each in below(pid) if title(each).split(b"\0")[0].endswith(b"/raylet")]


def can_mount(folder: Path) -> bool:
    """Whether a disk can be made."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return mounted.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=500, help="at least so many, without Ray")
    parser.add_argument("--ray", type=int, default=6, help="so many more on Ray")
    parser.add_argument("--victim", choices=RAY_VICTIMS, help="of the runs on Ray; default: any")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--only", type=int, help="replay one scenario of that seed")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wham-data-soak-") as name:
        bench = Bench(Path(name), (arguments.victim,) if arguments.victim else RAY_VICTIMS)
        mounts = can_mount(Path(name))
        kinds = [kind for kind in TURNS if mounts or kind not in NEED_A_DISK]
        violations = 0
        for number in itertools.count() if arguments.only is None else [arguments.only]:
            enough = bench.faults.total() - bench.faults["ray"] >= arguments.faults
            kind = kinds[number % len(kinds)] if number >= arguments.ray else "ray"
            if enough and number >= arguments.ray:
                break
            try:
                bench.inject(kind, random.Random(f"{arguments.seed}/{number}"))
            except Violation as violation:
                violations += 1
                again = f"--seed {arguments.seed} --ray {arguments.ray} --only {number}"
                print(f"VIOLATION by {kind} (replay: {again}): {violation}", flush=True)
            if number % 25 == 24:
                print(f"scenario {number + 1}: {bench.faults.total()} faults", flush=True)
    print("\n| kind | faults injected | runs |\n|---|---|---|")
    for kind in sorted(bench.runs):
        print(f"| {kind} | {bench.faults[kind]} | {bench.runs[kind]} |")
    print(
        f"\n{bench.faults.total()} faults, {violations} violations "
        f"in {time.monotonic() - started:.0f} s"
    )
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
