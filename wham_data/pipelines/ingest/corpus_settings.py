"""Make the description of a new corpus: its settings, action space, tokenizer and columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wham_data.corpus import Corpus
from wham_data.corpus.splits import SPLIT_BY_SETTING
from wham_data.corpus.storage.locations import open_storage
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.stages import open_input
from wham_data.pipelines.readers import chosen_readers
from wham_data.pipelines.readers.kit.options import option_settings
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.corpus_info import CorpusInfo, TokenizerInfo
from wham_data.schemas.errors import RefusedInput, UsageError
from wham_data.schemas.mask import masks_text
from wham_data.schemas.player_key import SETTING, PlayerKey, check_player_key
from wham_data.schemas.recording import OpenRecording, Recording

MOST_LOOKED_AT: Final = 64


def corpus_info(
    columns: Columns,
    settings: IngestSettings,
    reader: str = "auto",
    player_key: PlayerKey | None = None,
) -> CorpusInfo | None:
    """The description of a corpus with these columns, with its tokenizer looked up.

    Returns:
        The settings; None if nothing says which action space they have.
    """
    space = settings.space or columns.space
    if space is None:
        return None
    readers = chosen_readers(reader, dict(settings.options))
    return CorpusInfo(
        action_space=space,
        rate="native" if settings.rate is None else settings.rate,
        size=settings.size,
        fit=settings.fit,
        tokenizer=tokenizer_of(settings),
        frames=settings.frames,
        state_size=columns.state_size,
        reward=columns.reward,
        text=columns.text,
        settings={
            "axis_rule": settings.axis_rule,
            "max_gap_ns": settings.max_gap_ns,
            "min_decoded": settings.limits.min_decoded,
            "split": ",".join(f"{share:g}" for share in settings.split),
            "split_seed": settings.split_seed,
            **({} if settings.split_by == "player" else {SPLIT_BY_SETTING: settings.split_by}),
            **option_settings(readers),
            **({} if settings.mapping is None else {"mapping": settings.mapping.rules_json}),
            **({} if player_key is None else {SETTING: player_key.check}),
            **({"masks": masks_text(settings.masks)} if settings.masks else {}),
        },
    )


def columns_there(out: str | Path, player_key: PlayerKey | None) -> Columns | None:
    """The columns of the corpus at `out`, which it keeps; None: there is no corpus.

    Raises:
        MismatchError: it was begun with another key for players, or without one.
    """
    if not open_storage(out).exists("corpus.json"):
        return None
    info = Corpus.open(out).info
    check_player_key(info.settings.get(SETTING), player_key, str(out))
    return Columns(info.action_space, info.state_size, info.reward, info.text)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a corpus besides pictures and tokens.

    space       action space; None: no recording that was opened has a log
    state_size  values per state; 0: no states
    reward      whether there is a column of rewards
    text        whether there is a column of texts
    refused     recordings that could not be opened, with the reasons
    opened      count of recordings that were opened
    notes       what the reader said of the first of them
    """

    space: ActionSpace | None
    state_size: int = 0
    reward: bool = False
    text: bool = False
    refused: tuple[tuple[Recording, RefusedInput], ...] = ()
    opened: int = 0
    notes: tuple[str, ...] = ()


def columns_held(recordings: Iterable[Recording], settings: IngestSettings) -> Columns:
    """Find the columns of a new corpus by opening some of its recordings.

    Of each format among the first `MOST_LOOKED_AT` recordings by path, the first that opens is used.
    If none of them opens, or no action space is chosen and none has a log, the look goes on until one
    does, but no more than `MOST_LOOKED_AT` recordings are opened. The action space is that of the first
    of them with a log, the size of the state that of the first with states. There is a column of
    rewards or texts if any of them has some.

    Args:
        recordings: by path; no more of them are taken than are needed.
        settings: of the run.
    """
    looked_at: dict[str, OpenRecording] = {}
    refused: list[tuple[Recording, RefusedInput]] = []
    opened = 0
    for number, recording in enumerate(recordings):
        known = looked_at.get(recording.format)
        in_need = settings.space is None and opened < MOST_LOOKED_AT
        in_need &= all(source.actions is None for source in looked_at.values())
        if number >= MOST_LOOKED_AT and looked_at and not in_need:
            break
        if known is not None and not in_need:
            continue
        try:
            source = open_input(recording, settings)
        except RefusedInput as why:
            refused.append((recording, why))
            continue
        opened += 1
        if known is None or source.actions is not None:
            looked_at[recording.format] = source
    sources = list(looked_at.values())
    tracks = [source.actions for source in sources if source.actions is not None]
    states = [source.states for source in sources if source.states is not None]
    return Columns(
        space=tracks[0].space if tracks else None,
        state_size=states[0].shape[1] if states else 0,
        reward=any(source.rewards is not None for source in sources),
        text=any(source.texts is not None for source in sources),
        refused=tuple(refused),
        opened=opened,
        notes=sources[0].notes if sources else (),
    )


def tokenizer_of(settings: IngestSettings) -> TokenizerInfo | None:
    """The description of the tokenizer; None if there is none.

    Raises:
        UsageError: the tokenizer needs frames of another size.
    """
    if settings.tokenizer is None:
        return None
    from wham_data.inference.tokenizer import tokenizer_info

    info = tokenizer_info(settings.tokenizer)
    if info.frame_size != settings.size:
        width, height = info.frame_size
        raise UsageError(
            f"tokenizer {info.name} needs frames of {width}x{height}, not "
            f"{settings.size[0]}x{settings.size[1]}; use --size {width}x{height} or --tokenizer none"
        )
    return info


def tokenizer_found(settings: IngestSettings) -> str:
    """What was taken as the tokenizer, if the settings name only the folder around it; else ""."""
    if settings.tokenizer is None:
        return ""
    from wham_data.inference.tokenizer import tokenizer_note

    return tokenizer_note(settings.tokenizer)


def picture_bytes(info: CorpusInfo) -> float:
    """Bytes of a stored picture where none was coded to see.

    A JPEG is estimated at 0.47 bytes per pixel and a PNG at 1.2, as measured on 300x180 gameplay.
    """
    return {"none": 0.0, "jpeg": 0.47, "png": 1.2}[info.frames] * info.size[0] * info.size[1]
