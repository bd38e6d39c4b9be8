"""Write what an audit measured into the metadata beside a recording, and take it back.

The file as it was is kept beside it as NAME.toml.before-audit; where there was none, an empty
NAME.toml.before-audit-none says so. A second correction keeps the first file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from wham_data.files.found import read_whole
from wham_data.files.whole import written_whole
from wham_data.pipelines.curate.report import Audited, AuditReport
from wham_data.pipelines.readers.video_log.log_metadata import (
    MAX_METADATA_BYTES,
    LogMetadata,
    read_metadata,
)
from wham_data.schemas.errors import RefusedInput

KEPT: Final = ".before-audit"
NONE_KEPT: Final = ".before-audit-none"
CORRECTED: Final = ("late", "early", "drifting", "inverted")
OURS: Final = re.compile(r"^\s*(offset_ms|drift_ppm)\s*=|^# wham-data audit: ")
BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Clock:
    """t_log = t_true * (1 + drift) + offset_ms."""

    offset_ms: float
    drift: float

    def after(self, earlier: Clock) -> Clock:
        """Both errors in one, where this one is what is left when `earlier` is corrected."""
        return Clock(
            self.offset_ms * (1 + earlier.drift) + earlier.offset_ms,
            (1 + self.drift) * (1 + earlier.drift) - 1,
        )


def apply_corrections(report: AuditReport) -> AuditReport:
    """Write a correction for each recording that needs one and has a file for it.

    Returns:
        The report with what was written, or why not.
    """
    written = [_applied(each) for each in report.recordings if each.verdict in CORRECTED]
    return replace(report, written=tuple(written))


def _applied(audited: Audited) -> str:
    """Correct one recording; what was done, or why nothing was."""
    video = Path(audited.recording)
    path = video.with_suffix(".toml")
    if not video.is_file() or video.with_suffix(".json").is_file():
        return f"nothing for {audited.recording}: its format has no NAME.toml of its own"
    try:
        there = path.is_file()
        before = read_whole(path, MAX_METADATA_BYTES).decode("utf-8") if there else ""
        said = read_metadata(path) if there else LogMetadata()
    except (RefusedInput, UnicodeDecodeError) as error:
        return f"nothing to {path}: {error}"
    if said.start_zone is not None:
        return f"nothing to {path}: it has `start`, which says the offset; correct that by hand"
    if any(said.declares(name) or name in said.scales for name in audited.measured.turned):
        return f"nothing to {path}: [columns] has a rule for {audited.measured.turned[0]} already"
    kept = path.with_name(path.name + (KEPT if there else NONE_KEPT))
    if not any(path.with_name(path.name + ending).exists() for ending in (KEPT, NONE_KEPT)):
        with written_whole(kept) as part:
            part.write_bytes(path.read_bytes() if there else b"")
    with written_whole(path) as part:
        part.write_text(corrected(before, said, audited), encoding="utf-8")
    return str(path)


def corrected(before: str, said: LogMetadata, audited: Audited) -> str:
    """The text of a NAME.toml with the correction.

    Args:
        before: the text as it is.
        said: what that says.
        audited: what was measured on top of it.
    """
    found = audited.measured
    residual = Clock(found.offset_ms or 0.0, (found.drift_ppm or 0.0) * 1e-6 * found.drifts)
    clock = residual.after(Clock(said.offset_ns / 1e6, said.drift_ppm * 1e-6))
    lines = before.splitlines()
    table = next((n for n, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    head = [line for line in lines[:table] if not OURS.match(line)]
    note = (
        f"# wham-data audit: {audited.verdict}, lag {found.lag_low_ms:.0f} to {found.lag_high_ms:.0f} ms, "
        f"method {found.method}, {found.seconds:.0f} s seen"
    )
    clock_lines = [f"offset_ms = {clock.offset_ms:.1f}", f"drift_ppm = {clock.drift * 1e6:.1f}"]
    rest = _with_inverted(lines[table:], found.turned)
    return "\n".join([note, *clock_lines, *head, *rest]) + "\n"


def _with_inverted(tables: list[str], names: Sequence[str]) -> list[str]:
    """The tables of a file, with a rule for each control that is to be turned round."""
    if not names:
        return tables
    rules = [
        f"{name if BARE.fullmatch(name) else repr(name)} = {{ invert = true }}" for name in names
    ]
    for number, line in enumerate(tables):
        if line.split("#")[0].strip() == "[columns]":
            return [*tables[: number + 1], *rules, *tables[number + 1 :]]
    return ["", "[columns]", *rules, *([""] if tables else []), *tables]


def undo_corrections(sources: Sequence[str | Path]) -> list[str]:
    """Put back every NAME.toml that an audit changed, byte for byte; the paths.

    Args:
        sources: folders, or recordings.
    """
    done = []
    for source in map(Path, sources):
        folder, names = (
            (source, "*") if source.is_dir() else (source.parent, f"{source.stem}.toml*")
        )
        for kept in sorted(folder.rglob(names) if source.is_dir() else folder.glob(names)):
            if kept.name.endswith(".toml" + KEPT):
                kept.replace(target := kept.with_name(kept.name.removesuffix(KEPT)))
            elif kept.name.endswith(".toml" + NONE_KEPT):
                target = kept.with_name(kept.name.removesuffix(NONE_KEPT))
                target.unlink(missing_ok=True)
                kept.unlink()
            else:
                continue
            done.append(str(target))
    return done
