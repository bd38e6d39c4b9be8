"""Readers of other libraries for `bench`, used as the documentation of each library recommends.

Each library is imported only when it is measured. Windows are stored one by one, without overlap;
`HuggingFaceSteps` stores single steps.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, Final

import numpy as np
import pyarrow as pa

from wham_data.feed.bench import Reader, Task
from wham_data.feed.windows import Numbers

WINDOWS_PER_FILE: Final = 1_000
"""Windows in a tar file, or in a record batch."""
Window = dict[str, Any]


class MosaicML(Reader):
    """MosaicML Streaming: MDS shards."""

    name = "MosaicML Streaming"
    needs = "streaming"

    def prepare(self) -> None:
        """See `Reader`."""
        from streaming import MDSWriter

        first = next(_windows(self.task))
        columns = {
            name: f"ndarray:{values.dtype}:{','.join(map(str, values.shape))}"
            for name, values in first.items()
        }
        with MDSWriter(out=str(self.folder / "mds"), columns=columns) as writer:
            for window in _windows(self.task):
                writer.write(window)

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        data = self._dataset()
        return len(data), lambda numbers: _stack([data[int(n)] for n in numbers])

    def batches(self) -> Iterator[object]:
        """See `Reader`."""
        from torch.utils.data import DataLoader

        loader = DataLoader(self._dataset(), self.task.batch_size)
        while True:
            yield from loader

    def _dataset(self) -> Any:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        return StreamingDataset(
            local=str(self.folder / "mds"), shuffle=True, batch_size=self.task.batch_size
        )


class LitData(Reader):
    """LitData: binary chunks."""

    name = "LitData"
    needs = "litdata"

    def prepare(self) -> None:
        """See `Reader`."""
        from litdata.streaming.cache import Cache

        (self.folder / "chunks").mkdir()
        cache = Cache(str(self.folder / "chunks"), chunk_bytes=64_000_000)
        for number, window in enumerate(_windows(self.task)):
            cache[number] = window
        cache.done()
        cache.merge()

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        from litdata import StreamingDataset

        data = StreamingDataset(str(self.folder / "chunks"))
        return len(data), lambda numbers: _stack([data[int(n)] for n in numbers])

    def batches(self) -> Iterator[object]:
        """See `Reader`."""
        from litdata import StreamingDataLoader, StreamingDataset

        data = StreamingDataset(str(self.folder / "chunks"), shuffle=True)
        loader = StreamingDataLoader(data, batch_size=self.task.batch_size)
        while True:
            yield from loader


class HuggingFace(Reader):
    """Hugging Face datasets: Arrow files of windows, by number and streaming."""

    name = "Hugging Face datasets, windows"
    needs = "datasets"

    def prepare(self) -> None:
        """See `Reader`."""
        self._write(self.task)

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        data = self._open().with_format("numpy")
        return len(data), lambda numbers: data[numbers]

    def batches(self) -> Iterator[object]:
        """See `Reader`."""
        from torch.utils.data import DataLoader

        data = self._open().to_iterable_dataset(num_shards=8)
        shuffled = data.shuffle(seed=self.task.seed, buffer_size=1_000).with_format("torch")
        loader = DataLoader(shuffled, batch_size=self.task.batch_size)
        while True:
            yield from loader

    def _open(self) -> Any:
        from datasets import Dataset

        return Dataset.from_file(str(self.folder / "windows.arrow"))

    def _write(self, task: Task) -> None:
        batches = _window_batches(task)
        first = next(batches)
        types = {
            name: pa.list_(pa.from_numpy_dtype(values.dtype), values[0].size)
            for name, values in first.items()
        }
        with pa.ipc.new_stream(self.folder / "windows.arrow", pa.schema(types)) as writer:
            for batch in chain([first], batches):
                columns = [
                    pa.FixedSizeListArray.from_arrays(values.reshape(-1), type=types[name])
                    for name, values in batch.items()
                ]
                writer.write_batch(pa.record_batch(columns, list(types)))


class HuggingFaceSteps(HuggingFace):
    """Hugging Face datasets with one step per row, so that overlapping windows can be read."""

    name = "Hugging Face datasets, steps"

    def prepare(self) -> None:
        """See `Reader`."""
        steps = self.task.stored * self.task.length
        self._write(replace(self.task, length=1, stored=steps))

    def by_number(self) -> tuple[int, Callable[[Numbers], object]] | None:
        """See `Reader`."""
        data, rows = self._open().with_format("numpy"), np.arange(self.task.length)
        n = len(data) - self.task.length
        return n, lambda numbers: data[(numbers[:, None] + rows).reshape(-1)]

    def batches(self) -> Iterator[object]:
        """Batches of windows; each window is read as a slice of rows."""
        from torch.utils.data import DataLoader

        data: Any = _WindowsOfRows(self._open().with_format("numpy"), self.task.length)
        loader = DataLoader(data, batch_size=self.task.batch_size, shuffle=True)
        while True:
            yield from loader


@dataclass(frozen=True, slots=True)
class _WindowsOfRows:
    data: Any
    length: int

    def __len__(self) -> int:
        return len(self.data) - self.length

    def __getitem__(self, number: int) -> Any:
        return self.data[number : number + self.length]


class WebDataset(Reader):
    """WebDataset: tar files; the library has no random access."""

    name = "WebDataset"
    needs = "webdataset"

    def prepare(self) -> None:
        """See `Reader`."""
        keys = count()
        for number, batch in enumerate(_window_batches(self.task)):
            with tarfile.open(self.folder / f"{number:04d}.tar", "w") as tar:
                for window in _single_windows(batch):
                    key = next(keys)
                    for name, values in window.items():
                        _add(tar, f"{key:06d}.{name}.npy", values)

    def batches(self) -> Iterator[object]:
        """See `Reader`."""
        import webdataset
        from torch.utils.data import DataLoader

        tars = [str(path) for path in sorted(self.folder.glob("*.tar"))]
        data = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1_000).decode()
        loader = DataLoader(data, batch_size=self.task.batch_size)
        while True:
            yield from loader


PEERS: Final[tuple[type[Reader], ...]] = (
    MosaicML,
    LitData,
    HuggingFace,
    HuggingFaceSteps,
    WebDataset,
)


def _window_batches(task: Task) -> Iterator[Window]:
    """Windows without overlap, in order, in batches of WINDOWS_PER_FILE: name -> [B, L, numbers]."""
    data = task.dataset(stride=task.length, shuffle=False, batch_size=WINDOWS_PER_FILE, epochs=1)
    left = task.stored
    for batch in data:
        yield {name: batch[name][:left] for name in ("tokens", "actions")}
        left -= WINDOWS_PER_FILE
        if left <= 0:
            return


def _windows(task: Task) -> Iterator[Window]:
    return chain.from_iterable(map(_single_windows, _window_batches(task)))


def _single_windows(batch: Window) -> Iterator[Window]:
    for values in zip(*batch.values(), strict=True):
        yield dict(zip(batch, values, strict=True))


def _stack(windows: list[Window]) -> Window:
    return {name: np.stack([np.asarray(each[name]) for each in windows]) for name in windows[0]}


def _add(tar: tarfile.TarFile, name: str, values: Any) -> None:
    body = io.BytesIO()
    np.save(body, values)
    member = tarfile.TarInfo(name)
    member.size = body.tell()
    body.seek(0)
    tar.addfile(member, body)
