"""Run stages on Ray, on this machine or a cluster. Only this and `corpus/ray_data.py` import Ray.

    driver ──items──> tasks (one CPU slot each, at most `workers` at a time)
                         │ requests, at most IN_FLIGHT per item (back-pressure)
                         v
                      service actors (a share of a GPU each, else a CPU share)
                         waiting requests of different items are answered together

A stage that owns its service runs in actors instead: each has its own copy of the service and
works on one item at a time.

If a worker dies, its item is tried once more and then refused; other items are not affected. If a
node is lost, its tasks are started on another node. (Video codecs run in separate processes, see
`ingest/decoder_process.py`.)

Ray listens on all network interfaces, so a local cluster requires a token, which is new in every run.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wham_data.pipelines.run.runner import Advance, In, Out, Outcome, Service, Stage, Work
from wham_data.schemas.errors import MissingPartError, Reason, RefusedInput, UsageError

IN_FLIGHT = 3
LOST_NODE_TRIES = 4
CRASH_TRIES = 2


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of an item in its worker.

    outcome  the result, or the exception
    """

    outcome: Any


class _ServiceActor:
    """Holds a service and answers waiting requests, those of different items together."""

    def __init__(self, service: Service, device: str) -> None:
        self._most_rows = service.rows_together
        self._call = service.open(device)
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._busy = asyncio.Lock()

    async def ask(self, request: Any) -> Any:
        """Answer one request."""
        mine: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, mine))
        while not mine.done():
            async with self._busy:  # its holder answers all waiting requests
                if not mine.done():
                    await self._answer_waiting()
        return mine.result()

    async def _answer_waiting(self) -> None:
        together = self._next_requests()
        try:
            if len(together) == 1:
                answers = [await asyncio.to_thread(self._call, together[0][0])]
            else:
                joined = np.concatenate([request for request, _ in together])
                ends = np.cumsum([len(request) for request, _ in together])[:-1]
                answers = np.split(await asyncio.to_thread(self._call, joined), ends)
        except Exception as error:
            for _, future in together:
                future.set_exception(error)
            return
        for (_, future), answer in zip(together, answers, strict=True):
            future.set_result(answer)

    def _next_requests(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        """The oldest waiting request, and those after it that fit into one call with it."""
        together = [self._waiting.popleft()]
        if self._most_rows:
            count = len(together[0][0])
            while self._waiting and count + len(self._waiting[0][0]) <= self._most_rows:
                together.append(self._waiting.popleft())
                count += len(together[-1][0])
        return together


class _RemoteService:
    """Sends requests to the service actors in turn, a bounded number at a time."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors
        self._turn = os.getpid()  # so that different workers begin with different actors

    def ask(self, request: Any) -> Any:
        """See `Hosted.ask`."""
        import ray

        return ray.get(self._send(request))

    def stream(self, requests: Iterator[Any]) -> Iterator[Any]:
        """See `Hosted.stream`."""
        import ray

        sent: deque[Any] = deque()
        for request in requests:
            sent.append(self._send(request))
            if len(sent) >= IN_FLIGHT:
                yield ray.get(sent.popleft())
        while sent:
            yield ray.get(sent.popleft())

    def _send(self, request: Any) -> Any:
        self._turn += 1
        return self._actors[self._turn % len(self._actors)].ask.remote(request)


def _run_item(stage: Stage[In, Out], actors: Sequence[Any], item: In) -> Iterator[int | _Ended]:
    """Run one item in a task; yields its events, see `_events`."""
    hosted = _RemoteService(actors) if actors else None
    yield from _events(stage.name, lambda advance: stage.setup(hosted)(item, advance))


class _Owner:
    """A worker that holds the service of its stage and works on one item after another."""

    def __init__(self, stage: Stage[Any, Any], device: str) -> None:
        self._stage = stage
        self._device = device
        self._work: Work[Any, Any] | None = None

    def run_item(self, item: Any) -> Iterator[int | _Ended]:
        """Run one item; yields its events, see `_events`."""
        yield from _events(self._stage.name, lambda advance: self._ready()(item, advance))

    def _ready(self) -> Work[Any, Any]:
        # Not opened in `__init__`, because Ray would hide the error of a failed constructor.
        if self._work is None:
            assert self._stage.service is not None
            self._work = self._stage.setup(self._stage.service.open(self._device))
        return self._work


def _events(name: str, work: Callable[[Advance], Any]) -> Iterator[int | _Ended]:
    """Run the work of an item in a thread, and yield its events.

    Args:
        name: of the thread.
        work: is given a function to report progress.

    Yields:
        Counts of finished frames, as they are reported, and at last an `_Ended`.
    """
    events: queue.SimpleQueue[int | _Ended] = queue.SimpleQueue()

    def run() -> None:
        try:
            events.put(_Ended(work(events.put)))
        except BaseException as error:
            events.put(_Ended(error))

    threading.Thread(target=run, name=name, daemon=True).start()
    while True:
        event = events.get()
        yield event
        if isinstance(event, _Ended):
            return


class RayRunner:
    """Runs stages on Ray.

    Args:
        workers: count of items to work on at once; None: one for every CPU of the cluster.
        address: address of a running cluster (`host:port` or "auto"); None: start a cluster on this
            machine for this run alone.

    Raises:
        UsageError: the address is for Ray Client, which cannot stream results.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if address is not None and address.startswith("ray://"):
            raise UsageError(
                f"--ray-address {address}: Ray Client cannot stream results; run this on a node of the "
                "cluster with --ray-address auto, or with `ray job submit`"
            )
        self._workers = workers
        self._address = address

    @property
    def is_elsewhere(self) -> bool:
        """Whether it works on a cluster that was running before, so perhaps on other machines."""
        return self._address is not None

    def run(
        self, stage: Stage[In, Out], items: Sequence[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        """See `Runner.run`."""
        if not items:
            return
        with _connected(self._address, self._workers) as ray:
            cpus = int(ray.cluster_resources().get("CPU", 1))
            workers = min(self._workers or cpus, len(items))
            gpus = _gpus(ray, stage.service)
            pool: _Pool = (
                _Owners(ray, stage, min(workers, cpus), gpus)  # more would wait forever for a core
                if stage.owns
                else _Tasks(ray, stage, workers, gpus)
            )
            yield from _run_all(ray, pool, items, advance)


class _Pool(Protocol):
    """Workers on Ray.

    size  largest number of workers that are busy at once
    """

    size: int

    def submit(self, item: Any) -> Any:
        """Let a worker start on an item. Returns the stream of its events."""

    def release(self, stream: Any, *, died: bool) -> None:
        """Record that the worker of this stream has finished its item, or has died."""

    def verdict(self, error: Exception) -> tuple[int, RefusedInput]:
        """How to treat an item whose worker died.

        Args:
            error: the error of Ray.

        Returns:
            How often to try the item in all, and the refusal after the last try.
        """


class _Tasks:
    """One task for every item; separate actors hold the service.

    Tasks and actors get half of the cores each. There are at most `workers` of each kind.
    """

    def __init__(self, ray: Any, stage: Stage[Any, Any], workers: int, gpus: int) -> None:
        self.size = workers
        self._ray = ray
        self._actors = _start_service(ray, stage.service, workers, gpus) if stage.service else []
        self._stage = ray.put(stage)
        self._task = ray.remote(_run_item).options(
            num_cpus=0.5,
            max_retries=0,
            num_returns="streaming",
            scheduling_strategy="SPREAD",  # otherwise Ray fills one node before it uses the next
            name=stage.name,
        )

    def submit(self, item: Any) -> Any:
        """See `_Pool.submit`."""
        return self._task.remote(self._stage, self._actors, item)

    def release(self, stream: Any, *, died: bool) -> None:
        """Does nothing, because a task ends by itself."""

    def verdict(self, error: Exception) -> tuple[int, RefusedInput]:
        """See `_Pool.verdict`."""
        errors = self._ray.exceptions
        if isinstance(error, errors.NodeDiedError | errors.ObjectLostError | errors.ActorDiedError):
            return LOST_NODE_TRIES, RefusedInput(
                Reason.WORKER_DIED, f"the machine of its worker died {LOST_NODE_TRIES} times"
            )
        return _crash_verdict(self._ray, error)


class _Owners:
    """Actors that hold the service and do the work; an actor that died is replaced."""

    def __init__(self, ray: Any, stage: Stage[Any, Any], workers: int, gpus: int) -> None:
        assert stage.service is not None
        per_gpu = stage.service.per_gpu
        self.size = min(workers, gpus * per_gpu) if gpus else workers
        self._ray = ray
        self._stage = ray.put(stage)
        self._device = "cuda" if gpus else "cpu"
        share = {"num_gpus": 1 / per_gpu, "num_cpus": 0} if gpus else {"num_cpus": 1}
        self._actor = ray.remote(_Owner).options(scheduling_strategy="SPREAD", **share)
        self._idle = [self._new() for _ in range(self.size)]
        self._busy: dict[Any, Any] = {}

    def submit(self, item: Any) -> Any:
        """See `_Pool.submit`."""
        owner = self._idle.pop()
        stream = owner.run_item.options(num_returns="streaming").remote(item)
        self._busy[stream] = owner
        return stream

    def release(self, stream: Any, *, died: bool) -> None:
        """See `_Pool.release`."""
        owner = self._busy.pop(stream)
        self._idle.append(self._new() if died else owner)

    def verdict(self, error: Exception) -> tuple[int, RefusedInput]:
        """See `_Pool.verdict`."""
        return _crash_verdict(self._ray, error)

    def _new(self) -> Any:
        return self._actor.remote(self._stage, self._device)


@dataclass(slots=True)
class _Running:
    item: Any
    tries: int


def _run_all(
    ray: Any, pool: _Pool, items: Sequence[In], advance: Advance
) -> Iterator[Outcome[In, Any]]:
    waiting: deque[_Running] = deque(_Running(item, 1) for item in items)
    running: dict[Any, _Running] = {}
    while waiting or running:
        while waiting and len(running) < pool.size:
            started = waiting.popleft()
            running[pool.submit(started.item)] = started
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for stream in ready:
            mine = running[stream]
            try:
                event = ray.get(next(stream))
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, BaseException) else error) from None
            except ray.exceptions.RayError as error:
                del running[stream]
                pool.release(stream, died=True)
                most_tries, refusal = pool.verdict(error)
                if mine.tries < most_tries:
                    waiting.append(_Running(mine.item, mine.tries + 1))
                else:
                    yield Outcome(mine.item, refusal)
                continue
            if not isinstance(event, _Ended):
                advance(event)
                continue
            del running[stream]
            pool.release(stream, died=False)
            outcome = event.outcome
            if isinstance(outcome, BaseException) and not isinstance(outcome, RefusedInput):
                raise outcome
            yield Outcome(mine.item, outcome)


def _crash_verdict(ray: Any, error: Exception) -> tuple[int, RefusedInput]:
    """As `_Pool.verdict`, for a process that died while its machine is still running."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return CRASH_TRIES, RefusedInput(
            Reason.OUT_OF_MEMORY, f"its worker ran out of memory {CRASH_TRIES} times"
        )
    return CRASH_TRIES, RefusedInput(
        Reason.WORKER_DIED, f"its worker process died {CRASH_TRIES} times"
    )


def _gpus(ray: Any, service: Service | None) -> int:
    """Count of GPUs in the cluster that a service may use.

    Raises:
        MissingPartError: the service needs a GPU, and there is none.
    """
    if service is None or service.device == "cpu":
        return 0
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if service.device == "cuda" and not gpus:
        raise MissingPartError("--device cuda: the Ray cluster has no GPU. Use --device cpu.")
    return gpus


def _start_service(ray: Any, service: Service, workers: int, gpus: int) -> list[Any]:
    """Start the actors that hold a service: `per_gpu` for every GPU; without a GPU one per worker."""
    share = {"num_gpus": 1 / service.per_gpu, "num_cpus": 0} if gpus else {"num_cpus": 0.5}
    count = gpus * service.per_gpu if gpus else workers
    actor = ray.remote(_ServiceActor).options(
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1000,
        scheduling_strategy="SPREAD",
        **share,
    )
    device = "cuda" if gpus else "cpu"
    return [actor.remote(service, device) for _ in range(count)]


@contextlib.contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """A Ray session: a new local cluster that requires a token, or the cluster at `address`."""
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            # Not changed later in this process, because Ray keeps the first token that it reads.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints dead workers to stdout, among our own output; we report them ourselves.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    # Otherwise Ray hides the GPUs from a whole worker as soon as it runs a task without a GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # In /tmp, because the paths of Unix sockets must be short; TMPDIR may be long.
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
    """Restore the handler of SIGTERM after Ray starts; Ray's handler exits with other codes."""
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
