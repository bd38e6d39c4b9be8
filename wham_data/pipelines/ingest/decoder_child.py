"""The program of a decoder process. It opens and decodes recordings for `decoder_process.py`.

    python -m wham_data.pipelines.ingest.decoder_child FD FD

The FDs are its ends of two socket pairs: for requests and their answers, and for the bytes of files that
are on an object store. It exits when the other end is closed, or sends nothing for
IDLE_SECONDS.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wham_data.faults import fault_point
from wham_data.schemas.errors import Reason, RefusedInput, WhamDataError

if TYPE_CHECKING:
    from wham_data.pipelines.ingest.decoder_process import FramesRequest, OpenRequest
    from wham_data.schemas.recording import OpenRecording

NEW_USER: Final = 0x10000000
NEW_NETWORK: Final = 0x40000000
MB: Final = 1_000_000
ORPHANED_AFTER: Final = 20
GPU_DRIVER_MB: Final = 1000
"""What NVIDIA's driver may allocate for itself. An estimate: it was not measured yet."""


class WithoutPandas:
    """Hides pandas from PyArrow, which imports it if it is there; the import takes very long."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """See `importlib.abc.MetaPathFinder`."""
        del path, target
        if name == "pandas":
            raise ModuleNotFoundError(name)


def main() -> None:
    """Answer requests until the other end is closed."""
    leave_the_network()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    requests, stored = (Connection(int(each)) for each in sys.argv[1:3])
    with suppress(EOFError, OSError), requests, stored:
        serve(requests, stored)


def leave_the_network() -> None:
    """Move this process to a namespace without a network, if the kernel allows it.

    Must be called before any thread is started. A process that is not root needs a new user
    namespace too. Root must not make one: in it, root could no longer read the files of other users.
    """
    ctypes.CDLL(None).unshare(NEW_NETWORK if os.geteuid() == 0 else NEW_USER | NEW_NETWORK)


def serve(connection: Connection, stored: Connection) -> None:
    """Answer requests one after the other.

    Args:
        connection: for them.
        stored: to ask for the bytes of files that are on an object store.

    Raises:
        EOFError, OSError: the other end is closed.
    """
    sys.meta_path.insert(0, WithoutPandas)
    # Imported only now, because these modules start threads.
    from wham_data.files import elsewhere
    from wham_data.pipelines.ingest.decoder_bytes import FromTheParent
    from wham_data.pipelines.ingest.decoder_process import IDLE_SECONDS, OpenRequest
    from wham_data.pipelines.readers import open_recording
    from wham_data.pipelines.video import why_no_gpu

    turn = threading.Lock()
    connection.send("ready")
    source: OpenRecording | None = None
    request: OpenRequest | None = None
    while connection.poll(IDLE_SECONDS):
        message = connection.recv()
        answer: Any
        try:
            if isinstance(message, OpenRequest):
                request, source = message, None
                elsewhere.only(
                    {
                        path: FromTheParent(stored, turn, path, n_bytes)
                        for path, n_bytes in request.placeholders
                    }
                )
                gpu = request.limits.decoder != "cpu" and why_no_gpu() is None
                limit_memory(memory_mb(request, gpu=gpu) * MB)
                with ends_after(request.seconds):
                    fault_point("recording.open", request.recording.source)
                    check_unchanged(request)
                    source = open_recording(
                        request.recording,
                        request.limits,
                        request.max_gap_ns,
                        dict(request.options),
                        request.masks,
                        request.target,
                    )
                answer = facts_of(source)
            else:
                assert request is not None
                assert source is not None
                send_frames(connection, message, request, source)
                answer = source.lost_frames()
        except BrokenPipeError:
            return
        except Exception as error:
            limit_memory(resource.RLIM_INFINITY)
            answer = refusal_of(error, request)
        connection.send(answer)


def check_unchanged(request: OpenRequest) -> None:
    """Refuse a recording whose files have changed since the request was made.

    Raises:
        RefusedInput: CHANGED_WHILE_READ.
    """
    from wham_data.pipelines.ingest.decoder_process import FileState

    if FileState.of(request.recording) != request.files:
        raise RefusedInput(
            Reason.CHANGED_WHILE_READ, "its files changed meanwhile: is it still being recorded?"
        )


def send_frames(
    connection: Connection, wish: FramesRequest, request: OpenRequest, source: OpenRecording
) -> None:
    """Decode frames and send each batch, after the other end has received the one before.

    Args:
        connection: to the other end.
        wish: which frames to send.
        request: the request with which the recording was opened.
        source: the open recording.
    """
    import numpy as np

    from wham_data.pipelines.ingest.decoder_process import Pictures

    batches = source.frames(
        wish.picks, wish.size, fit=wish.fit, batch=wish.batch, threads=wish.threads
    )
    while True:
        with ends_after(request.decoding.silence_s):
            fault_point("recording.decode", request.recording.source)
            pictures = next(batches, None)
        if pictures is None:
            return
        connection.send(Pictures(len(pictures)))
        connection.send_bytes(np.ascontiguousarray(pictures).reshape(-1).data)


def facts_of(source: OpenRecording) -> dict[str, Any]:
    """The attributes of an open recording, without its pictures, by name."""
    from wham_data.pipelines.ingest.decoder_process import FACTS

    return {name: getattr(source, name) for name in FACTS}


def memory_mb(request: OpenRequest, *, gpu: bool) -> int:
    """Memory that this process may allocate, in MB: for decoding, and for the driver if a GPU decodes."""
    return request.decoding.memory_mb + (GPU_DRIVER_MB if gpu else 0)


def limit_memory(n_bytes: int) -> None:
    """Limit the memory that this process may allocate; memory-mapped files do not count."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    known = [each for each in (n_bytes, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known, default=resource.RLIM_INFINITY), hard))


@contextmanager
def ends_after(seconds: float) -> Iterator[None]:
    """End this process if the block takes more than ORPHANED_AFTER times as long.

    By then the other end no longer waits for it. The timer is a C thread that does not need the
    interpreter, because a codec may hold the interpreter forever.
    """
    faulthandler.dump_traceback_later(ORPHANED_AFTER * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def refusal_of(error: Exception, request: OpenRequest | None) -> WhamDataError:
    """Turn an error into a refusal, so that a bad recording costs that recording alone."""
    match error:
        case WhamDataError():
            return error
        case MemoryError():
            memory = f"{request.decoding.memory_mb} MB" if request else "there is"
            return RefusedInput(
                Reason.OUT_OF_MEMORY,
                f"needs more memory than the {memory} allowed for decoding; "
                "raise --decode-memory if the recording really needs it",
            )
        case OSError():
            return RefusedInput(Reason.UNREADABLE, f"cannot be read: {error.strerror or error}")
    where = traceback.extract_tb(error.__traceback__)[-1]
    return RefusedInput(
        Reason.READER_FAILED,
        f"its reader failed: {type(error).__name__}: {str(error)[:200]} "
        f"({Path(where.filename).name}:{where.lineno}); a bug, please report it with the file",
    )


if __name__ == "__main__":
    main()
