"""The instruction that goes with each clip."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wham_data.pipelines.caption.clips import SentAs
from wham_data.schemas.errors import UsageError, printable

MOST_CHARACTERS: Final = 20_000
_TASK: Final = (
    "Describe in one to three plain sentences what happens: the place, what the player does, how the "
    "view moves, and what changes. Use the present tense. Describe only what can be seen, and guess "
    "nothing. Answer with the description alone, without an introduction, and do not mention frames, "
    "pictures or the video."
)
DEFAULT_PROMPTS: Final[dict[SentAs, str]] = {
    "sheet": "The picture is a sheet of frames from a few seconds of one video game, evenly spaced in "
    f"time. Read it row by row: from left to right, then from top to bottom. {_TASK}",
    "mp4": f"The video shows a few seconds of a video game. {_TASK}",
}
"""What is asked for, unless the user says it."""


def prompt_from(given: str | None, sent_as: SentAs) -> str:
    """The instruction: the default, a text, or the content of a file.

    Args:
        given: a text, or the path of a UTF-8 file; None: the default.
        sent_as: how clips are sent.

    Raises:
        UsageError: the file is missing or cannot be read, or the instruction is empty or too long.
    """
    if given is None:
        return DEFAULT_PROMPTS[sent_as]
    prompt = _read(given)
    if prompt is None:
        if len(given.split()) == 1 and given.endswith((".txt", ".md")):
            raise UsageError(f"--prompt {printable(given)[:200]}: there is no such file")
        prompt = given
    prompt = prompt.strip()
    if not 0 < len(prompt) <= MOST_CHARACTERS:
        raise UsageError(f"--prompt: {len(prompt):,} characters, expected 1 to {MOST_CHARACTERS:,}")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UsageError("--prompt: is not UTF-8") from None
    return prompt


def _read(given: str) -> str | None:
    """The content of a file; None: it is no path of a file."""
    try:
        path = Path(given).expanduser()
        if not path.is_file():
            return None
        content = path.read_bytes()[: 4 * MOST_CHARACTERS + 1]
    except (OSError, ValueError, RuntimeError):
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--prompt {printable(given)[:200]}: not a UTF-8 text") from None
