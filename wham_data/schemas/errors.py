"""The error family and the reasons for which an input is refused.

    WhamDataError                one line: what was found, where, what was expected, what to do
    +-- UsageError               exit 2   the command line or the settings make no sense
    +-- MismatchError            exit 4   two things that must agree do not (settings, fingerprint)
    +-- IntegrityError           exit 4   a shard or the manifest is damaged
    +-- MissingPartError         exit 5   an optional package, a GPU or a codec is not there
    +-- NoInputsError            exit 6   nothing matched, or nothing came of what matched
    +-- RefusedInput             exit 3   this input is bad; the rest goes on (2 if it was the only thing asked for)

Callers catch `WhamDataError`. Only two places of the package do: the runner (one bad recording must not
sink a job) and the command line (one line on stderr, then `exit_code`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class WhamDataError(Exception):
    """Anything the toolkit reports in one line instead of a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(WhamDataError):
    """The command line, a settings file or an argument makes no sense."""

    exit_code = 2


class MismatchError(WhamDataError):
    """Two things that must agree do not: settings of a corpus, a tokenizer's fingerprint."""

    exit_code = 4


class IntegrityError(WhamDataError):
    """A shard or a manifest is damaged, missing or not what its hash says."""

    exit_code = 4


class MissingPartError(WhamDataError):
    """An optional package, a GPU or a codec that this needs is not there."""

    exit_code = 5


class NoInputsError(WhamDataError):
    """No input matched, or none of them produced anything."""

    exit_code = 6


class Reason(StrEnum):
    """Why an input is in quarantine. The code is stable; the message says the particulars."""

    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    CHANGED_WHILE_READ = "changed_while_read"
    UNSAFE_PATH = "unsafe_path"
    TOO_LARGE = "too_large"

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


def printable(text: str) -> str:
    r"""`text` on one line: control characters, bidi marks and bytes that are no UTF-8 as \x1b.

    Names and messages come from strangers' files; none may move the cursor or fake a line.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


class RefusedInput(WhamDataError):
    """One input is bad: it goes to quarantine with its reason and the rest goes on.

    Args:
        reason: the stable code.
        message: one line, without the file's name (the runner knows which input it was handling).
            What it quotes from the input is made harmless.
        frames_expected, frames_decoded: counts, where a video was cut or damaged.
    """

    exit_code = 3

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        frames_expected: int | None = None,
        frames_decoded: int | None = None,
    ) -> None:
        self.reason = reason
        self.message = printable(message)
        super().__init__(self.message)
        self.frames_expected = frames_expected
        self.frames_decoded = frames_decoded

    def __reduce__(self) -> tuple[object, ...]:
        return _refused, (self.reason, self.message, self.frames_expected, self.frames_decoded)


def _refused(
    reason: Reason, message: str, frames_expected: int | None, frames_decoded: int | None
) -> RefusedInput:
    """Rebuild a refusal that crossed a process boundary."""
    return RefusedInput(
        reason, message, frames_expected=frames_expected, frames_decoded=frames_decoded
    )
