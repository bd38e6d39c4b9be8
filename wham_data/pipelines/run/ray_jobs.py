"""Stages on Ray, on this machine or a cluster. Only this module and `corpus/ray_data.py` import Ray.

    driver ──items──> recording tasks (one CPU slot each, at most `workers` at a time)
                         │ frame batches, at most IN_FLIGHT per recording (back-pressure)
                         v
                      tokenizer actors (a share of a GPU each, else a CPU share)
                         the batches that wait are encoded together, whichever recording they are of

A recording whose worker dies is tried once more, then refused; the others never notice. A task lost
with its node is started elsewhere. (Codecs run in processes of the workers' own: `ingest/decoder_process.py`.)

A local cluster demands a token, made anew for every run: Ray listens on all interfaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import secrets
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wham_data.pipelines.run.runner import Advance, In, Out, Outcome, Stage, Tokens
from wham_data.schemas.errors import MissingPartError, Reason, RefusedInput, UsageError
from wham_data.schemas.recording import Frames

IN_FLIGHT = 3
TOKENIZERS_PER_GPU = 2
FRAMES_PER_ENCODE = 64
LOST_NODE_TRIES = 4
CRASH_TRIES = 2


@dataclass(frozen=True, slots=True)
class _Ended:
    """How an item ended in its worker: a result, a refusal, or what broke."""

    how: Any


class _TokenizerActor:
    """Encodes what waits, across recordings, in batches of about FRAMES_PER_ENCODE frames."""

    def __init__(self, tokenizer: str, device: str) -> None:
        from wham_data.inference.tokenizer import load_tokenizer

        self._tokenizer = load_tokenizer(tokenizer, device)
        self._waiting: deque[tuple[Frames, asyncio.Future[Tokens]]] = deque()
        self._busy = asyncio.Lock()

    async def encode(self, frames: Frames) -> Tokens:
        """uint8 [B, H, W, 3] to uint16 [B, N]."""
        mine: asyncio.Future[Tokens] = asyncio.get_running_loop().create_future()
        self._waiting.append((frames, mine))
        while not mine.done():
            async with self._busy:  # whoever holds it encodes for everyone who waits
                if not mine.done():
                    await self._encode_waiting()
        return mine.result()

    async def _encode_waiting(self) -> None:
        together = [self._waiting.popleft()]
        count = len(together[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= FRAMES_PER_ENCODE:
            together.append(self._waiting.popleft())
            count += len(together[-1][0])
        batch = np.concatenate([frames for frames, _ in together])
        try:
            tokens = await asyncio.to_thread(self._tokenizer.encode, batch)
        except Exception as error:
            for _, future in together:
                future.set_exception(error)
            return
        start = 0
        for frames, future in together:
            future.set_result(tokens[start : start + len(frames)])
            start += len(frames)


class _RemoteEncoder:
    """Sends frame batches to the tokenizer actors in turn, a bounded number at a time."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    def stream(self, batches: Iterator[Frames]) -> Iterator[Tokens]:
        """See `Encoder.stream`."""
        import ray

        sent: deque[Any] = deque()
        turn = os.getpid()  # recordings start with different actors
        for batch in batches:
            sent.append(self._actors[turn % len(self._actors)].encode.remote(batch))
            turn += 1
            if len(sent) >= IN_FLIGHT:
                yield ray.get(sent.popleft())
        while sent:
            yield ray.get(sent.popleft())


def _run_item(stage: Stage[In, Out], actors: Sequence[Any], item: In) -> Iterator[int | _Ended]:
    """One item in a worker process: frames done, as they are done, then how it ended."""
    said: queue.SimpleQueue[int | _Ended] = queue.SimpleQueue()

    def work() -> None:
        try:
            encoder = _RemoteEncoder(actors) if actors else None
            said.put(_Ended(stage.setup(encoder)(item, said.put)))
        except BaseException as error:
            said.put(_Ended(error))

    threading.Thread(target=work, name=stage.name, daemon=True).start()
    while True:
        event = said.get()
        yield event
        if isinstance(event, _Ended):
            return


class RayRunner:
    """Runs stages on Ray.

    Args:
        workers: recordings in work at once; None: one for every CPU of the cluster.
        address: of a running cluster (`host:port` or "auto"); None: start one here, for this run
            alone.

    Raises:
        UsageError: the address is one of Ray Client, which cannot stream.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--ray-address {address}: Ray Client cannot stream results; run this on a node of the "
                "cluster with --ray-address auto, or with `ray job submit`"
            )
        self._workers = workers
        self._address = address

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`."""
        if not items:
            return
        with _connected(self._address, self._workers) as ray:
            cpus = int(ray.cluster_resources().get("CPU", 1))
            workers = min(self._workers or cpus, len(items))
            actors = _start_tokenizers(ray, stage, workers) if stage.tokenizer else []
            yield from _run_all(ray, stage, actors, items, workers, advance)


@dataclass(slots=True)
class _Running:
    item: Any
    tries: int


def _run_all(
    ray: Any,
    stage: Stage[In, Out],
    actors: Sequence[Any],
    items: Sequence[In],
    workers: int,
    advance: Advance,
) -> Iterator[Outcome[In, Out]]:
    # Recording tasks and tokenizers share the cores half and half; both are limited by `workers`.
    task = ray.remote(_run_item).options(
        num_cpus=0.5,
        max_retries=0,
        num_returns="streaming",
        scheduling_strategy="SPREAD",  # else Ray fills one node before it uses the next
        name=stage.name,
    )
    stage_ref = ray.put(stage)
    waiting: deque[tuple[In, int]] = deque((item, 1) for item in items)
    running: dict[Any, _Running] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            item, tries = waiting.popleft()
            running[task.remote(stage_ref, actors, item)] = _Running(item, tries)
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for stream in ready:
            mine = running[stream]
            try:
                event = ray.get(next(stream))
            except ray.exceptions.RayError as error:
                del running[stream]
                limit, refusal = _verdict(ray, error)
                if mine.tries < limit:
                    waiting.append((mine.item, mine.tries + 1))
                else:
                    yield Outcome(mine.item, refusal)
                continue
            if not isinstance(event, _Ended):
                advance(event)
                continue
            del running[stream]  # what becomes of its worker now is of no matter
            if isinstance(event.how, BaseException) and not isinstance(event.how, RefusedInput):
                raise event.how
            yield Outcome(mine.item, event.how)


def _verdict(ray: Any, error: Exception) -> tuple[int, RefusedInput]:
    """How often to try an item whose worker died in this way, and what to say in the end."""
    errors = ray.exceptions
    if isinstance(error, errors.RayTaskError):
        raise error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(error, errors.OutOfMemoryError):
        return CRASH_TRIES, RefusedInput(
            Reason.OUT_OF_MEMORY, f"its worker ran out of memory {CRASH_TRIES} times"
        )
    if isinstance(error, errors.NodeDiedError | errors.ObjectLostError | errors.ActorDiedError):
        return LOST_NODE_TRIES, RefusedInput(
            Reason.WORKER_DIED, f"the machine that worked on it died {LOST_NODE_TRIES} times"
        )
    return CRASH_TRIES, RefusedInput(
        Reason.WORKER_DIED, f"its worker process died {CRASH_TRIES} times"
    )


def _start_tokenizers(ray: Any, stage: Stage[In, Out], workers: int) -> list[Any]:
    """Actors that hold the tokenizer: shares of every GPU, or one for each recording in work."""
    gpus = int(ray.cluster_resources().get("GPU", 0)) if stage.device != "cpu" else 0
    if stage.device == "cuda" and not gpus:
        raise MissingPartError("--device cuda: the Ray cluster has no GPU. Use --device cpu.")
    share = {"num_gpus": 1 / TOKENIZERS_PER_GPU, "num_cpus": 0} if gpus else {"num_cpus": 0.5}
    count = gpus * TOKENIZERS_PER_GPU if gpus else workers
    actor = ray.remote(_TokenizerActor).options(
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1000,
        scheduling_strategy="SPREAD",
        **share,
    )
    device = "cuda" if gpus else "cpu"
    return [actor.remote(stage.tokenizer, device) for _ in range(count)]


@contextlib.contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """A Ray session: a cluster of our own, behind a token, or the one at `address`."""
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            # For the life of this process: Ray remembers the first token that it reads.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints the death of workers to stdout, where our result goes; we report it ourselves.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    # Ray would else set this to 0 in tasks that ask for no GPU and hide it from the whole worker.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # Unix socket paths must stay short, so not under the corpus or a long TMPDIR.
    folder = tempfile.mkdtemp(prefix="wd-ray-", dir="/tmp") if address is None else None
    try:
        with _sigterm_stays_ours():
            if address is None:
                ray.init(
                    address="local",
                    num_cpus=workers or os.cpu_count(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=folder,
                    configure_logging=True,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Undo what Ray does to SIGTERM while it starts: it exits with codes of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, ours)
