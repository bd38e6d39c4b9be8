"""The errors of the package, and the reasons for which an input is refused.

    WhamDataError                one line: what was found, where, what was expected, what to do
    +-- UsageError               exit 2   the command line or the settings make no sense
    +-- MismatchError            exit 4   two things that must be equal are not (settings, fingerprint)
    +-- IntegrityError           exit 4   a shard or the manifest is damaged
    +-- MissingPartError         exit 5   an optional package, a GPU or a codec is missing
    +-- NoInputsError            exit 6   no input matched, or no input gave a result
    +-- DeviceError              exit 1   the memory of a GPU or of the machine is full, or a GPU failed
    +-- StalledError             exit 1   nothing moves any more; the same command goes on later
    +-- RefusedInput             exit 3   this input is bad; the job continues (2 if it was the only input)

Callers catch `WhamDataError`. In this package only two places do: the runner (one bad recording must
not stop a job) and the command line (it prints one line on stderr and exits with `exit_code`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar


class WhamDataError(Exception):
    """Anything the toolkit reports in one line instead of a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(WhamDataError):
    """The command line, a settings file or an argument makes no sense."""

    exit_code = 2


class MismatchError(WhamDataError):
    """Two things that must be equal are not: settings of a corpus, fingerprints of a tokenizer."""

    exit_code = 4


class IntegrityError(WhamDataError):
    """A shard or a manifest is damaged or missing, or its hash is wrong."""

    exit_code = 4


class MissingPartError(WhamDataError):
    """A required optional package, GPU or codec is missing."""

    exit_code = 5


class NoInputsError(WhamDataError):
    """No input matched, or none of them produced anything."""

    exit_code = 6


class DeviceError(WhamDataError):
    """The memory of a device is full, or the device has failed. No input and no file is to blame."""


class StalledError(WhamDataError):
    """Nothing moves any more, for a reason outside of the job. The same command goes on later."""


class Reason(StrEnum):
    """Why an input is in quarantine. The codes never change; the message gives the details."""

    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    CHANGED_WHILE_READ = "changed_while_read"
    UNSAFE_PATH = "unsafe_path"
    TOO_LARGE = "too_large"
    NOT_DOWNLOADED = "not_downloaded"
    MISSING_PART = "missing_part"

    NOT_A_VIDEO = "not_a_video"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    SYNTHETIC = "synthetic"
    NO_VIDEO_STREAM = "no_video_stream"
    UNSUPPORTED_CODEC = "unsupported_codec"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    NO_FRAMES = "no_frames"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_MANY_PIXELS = "too_many_pixels"
    RESOLUTION_CHANGE = "resolution_change"
    TIMESTAMPS_MISSING = "timestamps_missing"
    TIMESTAMPS_BACKWARD = "timestamps_backward"
    TIMESTAMPS_DUPLICATE = "timestamps_duplicate"
    GAP_TOO_LONG = "gap_too_long"

    DECODER_CRASHED = "decoder_crashed"
    DECODER_HUNG = "decoder_hung"
    OUT_OF_MEMORY = "out_of_memory"
    READER_FAILED = "reader_failed"
    WORKER_DIED = "worker_died"

    LOG_MISSING = "log_missing"
    LOG_EMPTY = "log_empty"
    LOG_ENCODING = "log_encoding"
    LOG_SYNTAX = "log_syntax"
    LOG_COLUMN = "log_column"
    LOG_TYPE = "log_type"
    LOG_CLOCK = "log_clock"
    LOG_NOT_FINITE = "log_not_finite"
    LOG_RANGE = "log_range"
    LOG_COVERAGE = "log_coverage"
    METADATA = "metadata"
    MASK_OUTSIDE = "mask_outside"

    ARCHIVE_UNSAFE = "archive_unsafe"
    ARCHIVE_CORRUPT = "archive_corrupt"
    ARCHIVE_ENCRYPTED = "archive_encrypted"
    PICKLED_OBJECTS = "pickled_objects"

    RATE_TOO_LOW = "rate_too_low"
    SPACE_MISMATCH = "space_mismatch"
    SPLIT_CONFLICT = "split_conflict"


def plain_number(value: float, digits: int = 3) -> str:
    """A number for a message, to so many significant digits and never with an exponent: 5380, 0.0123."""
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def printable(text: str) -> str:
    r"""`text` on one line, safe for a terminal: unprintable characters become escapes such as \x1b.

    These are control characters, marks of text direction and bytes that are not UTF-8. Names and
    messages come from untrusted files; none of them may move the cursor or imitate another line.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def counted(count: int, noun: str) -> str:
    """A number of things: "1 file", "3 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def short_message(error: BaseException) -> str:
    """The message of an error on one line, cut after 200 characters."""
    return " ".join(str(error).split())[:200]


class RefusedInput(WhamDataError):
    """One input is bad: it goes to quarantine with its reason, and the job continues.

    Args:
        reason: the stable code.
        message: one line, without the name of the file (the runner adds it). It may quote the
            input: `printable` is applied to it.
        frames_expected, frames_decoded: frame counts, if a video is cut off or damaged.
        notes: what was noted of the input before it was refused.
    """

    exit_code = 3

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        frames_expected: int | None = None,
        frames_decoded: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.reason = reason
        self.message = printable(message)
        super().__init__(self.message)
        self.frames_expected = frames_expected
        self.frames_decoded = frames_decoded
        self.notes = notes

    def __reduce__(self) -> tuple[object, ...]:
        counts = self.frames_expected, self.frames_decoded
        return _refused, (self.reason, self.message, *counts, self.notes)


@contextmanager
def noted(notes: Sequence[str]) -> Iterator[None]:
    """Let a refusal inside this block carry what was noted of the input so far."""
    try:
        yield
    except RefusedInput as why:
        why.notes = (*notes, *(note for note in why.notes if note not in notes))
        raise


def _refused(
    reason: Reason,
    message: str,
    frames_expected: int | None,
    frames_decoded: int | None,
    notes: tuple[str, ...],
) -> RefusedInput:
    """Unpickle a refusal from another process."""
    return RefusedInput(
        reason,
        message,
        frames_expected=frames_expected,
        frames_decoded=frames_decoded,
        notes=notes,
    )
