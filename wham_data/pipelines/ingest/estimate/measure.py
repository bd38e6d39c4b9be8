"""Measure what an ingest costs here: open a recording, and do the work on a stretch of it.

CPU seconds are those of this process and of its decoder process, not wall time, so other jobs on the
machine hardly change them.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from wham_data.corpus.shards import write_shard_to
from wham_data.pipelines.ingest.decoder_process import decoders_cpu_s
from wham_data.pipelines.ingest.encoder import ImageTokens, encoder_service
from wham_data.pipelines.ingest.estimate.forecast import ShardCosts, StepCosts
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.stages import BATCH_FRAMES, Placed
from wham_data.pipelines.video import encode_image
from wham_data.schemas.clock import Index
from wham_data.schemas.corpus_info import CorpusInfo
from wham_data.schemas.recording import Frames, OpenRecording
from wham_data.schemas.steps import EpisodeSteps

STRETCH: Final = 3 * BATCH_FRAMES
BATCHES_TOKENISED: Final = 4
HASHED_TO_MEASURE: Final = 1 << 24
STEPS_TO_MEASURE: Final = 1000


class CpuWatch:
    """CPU seconds of this process and its decoder processes since it was made."""

    def __init__(self) -> None:
        self._own_s, self._decoders = time.process_time(), decoders_cpu_s()

    def seconds(self) -> float:
        """So many so far. The start of a decoder process does not count."""
        decoders = decoders_cpu_s().items()
        worked = (max(now - self._decoders.get(pid, 0.0), 0.0) for pid, now in decoders)
        return time.process_time() - self._own_s + sum(worked)


class Meter:
    """Measures stretches of recordings until its time is spent.

    tokens_s  seconds for the tokens of a step, of several batches: of a GPU, or of CPUs
    on_gpu    whether the tokenizer ran on a GPU

    Args:
        settings: of the ingest.
        device: where the tokenizer would run.
        seconds: wall time for all measurements; loading the tokenizer does not count.
    """

    def __init__(self, settings: IngestSettings, device: str, seconds: float) -> None:
        self._settings = settings
        self._left_s = seconds
        self._encode: Callable[[Frames], ImageTokens] | None = None
        self.tokens_s: list[float] = []
        self.on_gpu = False
        service = encoder_service(settings.tokenizer, device)
        if service is not None:
            from wham_data.inference.device import choose_device

            self.on_gpu = choose_device(device).type == "cuda"
            self._encode = service.open(device)
            width, height = settings.size
            self._encode(np.zeros((1, height, width, 3), np.uint8))  # the first one is slow

    @property
    def is_spent(self) -> bool:
        """Whether its time is over."""
        return self._left_s <= 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What is done here is on its time."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left_s -= time.monotonic() - begun

    def measure(
        self, source: OpenRecording, placed: Placed, rng: np.random.Generator
    ) -> StepCosts | None:
        """Do the work on a stretch of an open recording.

        A short recording is decoded whole. Of a long one three batches are, and the middle one
        counts: before the first, decoding must begin at a key frame, and the decoder process works
        ahead, so at the end of the last it has done more than what came after the first. What tokens
        cost does not depend on the picture, so only the first few recordings are tokenised.

        Returns:
            The costs; None if no frame of it could be decoded.

        Raises:
            RefusedInput: it cannot be decoded there. Whether all of it is refused, a stretch does
                not tell.
        """
        picks = np.concatenate([plan.picks for plan in placed.plans])
        start = int(rng.integers(max(len(picks) - STRETCH, 0) + 1))
        counts = (1,) if len(picks) > STRETCH else range(3)
        steps, read_s, picture_bytes, frames = 0, 0.0, 0, None
        actions_s = self._actions_s(placed)
        watch = CpuWatch()
        with closing(self._batches(source, picks[start : start + STRETCH])) as batches:
            for number, frames in enumerate(batches):
                n_bytes = self._coded_bytes(frames)
                if number in counts:
                    steps, picture_bytes = steps + len(frames), picture_bytes + n_bytes
                    read_s += watch.seconds()
                watch = CpuWatch()
        if frames is not None and self._encode and len(self.tokens_s) < BATCHES_TOKENISED:
            self._tokenise(self._encode, frames)
        if not steps and not source.pictureless:
            return None
        return StepCosts(read_s / max(steps, 1) + actions_s, picture_bytes / max(steps, 1))

    def _tokenise(self, encode: Callable[[Frames], ImageTokens], frames: Frames) -> None:
        watch, begun = CpuWatch(), time.monotonic()
        encode(frames)
        took = time.monotonic() - begun if self.on_gpu else watch.seconds()
        self.tokens_s.append(took / len(frames))

    def _batches(self, source: OpenRecording, picks: Index) -> Generator[Frames]:
        if not source.pictureless:
            size, fit = self._settings.size, self._settings.fit
            yield from source.frames(picks, size, fit=fit, batch=BATCH_FRAMES, threads=1)

    def _coded_bytes(self, frames: Frames) -> int:
        form = self._settings.frames
        return 0 if form == "none" else sum(len(encode_image(frame, form)) for frame in frames)

    def _actions_s(self, placed: Placed) -> float:
        """CPU seconds per step for its action."""
        if placed.log is None:
            return 0.0
        begun = time.process_time()
        for plan in placed.plans:
            placed.log.over_steps(plan.edges_ns, self._settings.axis_rule)
        steps = sum(len(plan.picks) for plan in placed.plans)
        return (time.process_time() - begun) / steps


def hash_s_per_byte() -> float:
    """CPU seconds to hash a byte of a file."""
    content, begun = bytes(HASHED_TO_MEASURE), time.process_time()
    hashlib.sha256(content).digest()
    return (time.process_time() - begun) / HASHED_TO_MEASURE


def shard_costs(info: CorpusInfo, picture_bytes: float) -> ShardCosts:
    """What a shard of this corpus costs.

    Small shards are written to a temporary folder to see it.

    Args:
        info: the settings of the corpus.
        picture_bytes: of a picture, where none is coded to see.
    """
    seen = []
    with tempfile.TemporaryDirectory(prefix="wham-data-") as folder:
        for n in (1, 1, 1 + STEPS_TO_MEASURE):  # the first one is slow
            begun, steps = time.process_time(), _blank_steps(info, n)
            shard = write_shard_to(Path(folder) / "shard", [steps], info, "blank")
            seen.append((shard.n_bytes, time.process_time() - begun))
    _, (n_bytes, seconds), (more_bytes, more_seconds) = seen
    each_bytes = (more_bytes - n_bytes) / STEPS_TO_MEASURE
    each_s = max(more_seconds - seconds, 0.0) / STEPS_TO_MEASURE
    return ShardCosts(n_bytes - each_bytes, each_bytes, picture_bytes, seconds, each_s)


def _blank_steps(info: CorpusInfo, n: int) -> EpisodeSteps:
    return EpisodeSteps(
        episode="0" * 26,
        time_ns=np.arange(n, dtype=np.int64),
        actions=np.zeros((n, info.action_space.size), np.float32),
        action_known=np.ones(n, np.bool_),
        tokens=np.zeros((n, info.n_tokens), np.uint16) if info.tokenizer else None,
        frames=None if info.frames == "none" else [b""] * n,
        state=np.zeros((n, info.state_size), np.float32) if info.state_size else None,
        reward=np.zeros(n, np.float32) if info.reward else None,
        text=[None] * n if info.text else None,
    )
