"""Judge a corpus: which of its steps are not play. One pass over a sample of the pictures of each game to
learn its HUD, one over all pictures. A block of pictures and the numbers of one episode are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.corpus import Corpus
from wham_data.corpus.columns import steps_per_second
from wham_data.corpus.kept.left_out import Judged, leave_out, put_back
from wham_data.corpus.shard_view import matrix_of
from wham_data.inference.tokenizer import decoding_tokenizer, load_tokenizer
from wham_data.pipelines.curate.not_play.flags import Flags, Hands, flags_of
from wham_data.pipelines.curate.not_play.hands import at_work
from wham_data.pipelines.curate.not_play.hud import Hud, NoHud, learn_hud, sampled
from wham_data.pipelines.curate.not_play.motion import motion_of
from wham_data.pipelines.curate.not_play.rules import KINDS, Rules
from wham_data.pipelines.curate.small import Pictures
from wham_data.pipelines.run.progress import Counting, ProgressListener, Silent
from wham_data.schemas.clock import runs_of
from wham_data.schemas.errors import UsageError
from wham_data.schemas.left_out import FILTER
from wham_data.schemas.steps import FLOAT

SAMPLE: Final = 2_000
"""Pictures from which the HUD of a game is learnt, at most."""
FEWEST: Final = 200
"""With fewer pictures there is no HUD, however long a step is."""
TOO_SHORT: Final = "shorter than min_play_s"

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class EpisodesProgress(Counting):
    """Episodes looked at."""

    unit: ClassVar[str] = "episodes"


@dataclass(frozen=True, slots=True)
class GameHud:
    """What was learnt of a game.

    game   its name; "" if it is not known
    hours  of it in the corpus
    cells  count of cells of the HUD; 0: there is none to go by
    why    why not: "few", "none", "scene" (see `NoHud`), or "pictures"; "" if there is one
    """

    game: str
    hours: float
    cells: int
    why: str


@dataclass(frozen=True, slots=True)
class FilterReport:
    """What `filter_corpus` found.

    location       of the corpus
    version        of the corpus afterwards
    applied        whether `keep` was changed
    changed        count of episodes that it changed
    rules          hash of the rules
    hours          of all episodes, and kind -> hours of its flags
    left_out       kinds whose steps the rules leave out
    unjudged       kind -> hours of which it is not known
    games          what was learnt of each game
    episodes       of each: `episode`, `recording`, `n_steps`, `parts` (start, end, kind), `unjudged`
    """

    location: str
    version: int
    applied: bool
    changed: int
    rules: str
    hours: float
    flagged: Mapping[str, float]
    left_out: tuple[str, ...]
    unjudged: Mapping[str, float]
    games: tuple[GameHud, ...]
    episodes: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def filter_corpus(
    corpus: Corpus,
    rules: Rules,
    *,
    apply: bool = False,
    tokenizer: str | None = None,
    device: str = "cpu",
    watch: ProgressListener | None = None,
) -> FilterReport:
    """Find what is not play, and leave it out of `keep` in one new version of the corpus.

    Args:
        corpus: the corpus; if the result is applied it is afterwards at the new version.
        rules: what is looked for.
        apply: False: only report.
        tokenizer: decodes the tokens if no pictures are stored; None: the bundled one of that name.
        device: where the tokenizer runs.
        watch: receives progress.

    Raises:
        UsageError: the corpus was opened at an older version and is to be changed.
        IntegrityError: a shard is damaged, or a picture does not decode.
    """
    watch, pictures = watch or Silent(), pictures_of(corpus, tokenizer, device)
    rows = _rows(corpus)
    huds, games = _learn(pictures, rows, rules)
    found, progress = {}, EpisodesProgress(total=len(rows))
    for row in rows:
        found[row["episode"]] = _judge(corpus, pictures, row, huds, rules)
        progress.done += 1
        watch.progressed(progress)
    changed = 0
    if apply:
        judged = {row["episode"]: to_leave_out(found[row["episode"]], row, rules) for row in rows}
        changed = leave_out(corpus, FILTER, rules.hash, judged)
    return _report(corpus, rules, rows, found, games, changed if apply else None)


def undo_filter(corpus: Corpus) -> int:
    """Put back all that `filter_corpus` left out; returns the count of changed episodes."""
    return put_back(corpus, FILTER)


def pictures_of(corpus: Corpus, tokenizer: str | None, device: str) -> Pictures | None:
    """Where the pictures of a corpus come from; None: there are none, and no tokens that can be decoded.

    Raises:
        UsageError: a tokenizer is given but not needed.
        MismatchError: it is not the one that made the tokens.
    """
    info = corpus.info
    if info.frames != "none":
        if tokenizer is not None:
            raise UsageError("--tokenizer: nothing is decoded, as the corpus stores pictures")
        return Pictures(corpus, "frame", None)
    if info.tokenizer is None:
        return None
    try:
        ref = decoding_tokenizer(info.tokenizer, tokenizer, corpus.location)
    except UsageError:
        if tokenizer is not None:
            raise
        return None
    return Pictures(corpus, "tokens", load_tokenizer(ref, device).decode)


def rate_of(corpus: Corpus, row: Row) -> float:
    """Steps per second of an episode; 10 where that is not known, as of one with a single frame."""
    return steps_per_second(corpus.info.rate, row["source_fps"]) or 10.0


def to_leave_out(flags: Flags, row: Row, rules: Rules) -> Judged:
    """The flags that the rules leave out, and the bits of play that are too short between them."""
    parts = tuple(part for part in flags.parts if rules.of[part[2]].leave_out)
    free = np.ones(row["n_steps"], np.bool_)
    for start, stop, _ in parts:
        free[start:stop] = False
    least = rules.min_play_s * row["rate"]
    short = (
        (start, stop, TOO_SHORT)
        for start, stop in runs_of(free)
        if parts and stop - start < least and (start, stop) != (0, row["n_steps"])
    )
    return Judged(tuple(sorted((*parts, *short))), flags.unjudged)


def _rows(corpus: Corpus) -> list[Row]:
    names = ("episode", "recording", "shard", "row_start", "n_steps", "game", "source_fps")
    rows = corpus.episodes.sort("shard", "row_start").select(names).rows(named=True)
    return [{**row, "game": row["game"] or "", "rate": rate_of(corpus, row)} for row in rows]


def _learn(
    pictures: Pictures | None, rows: Sequence[Row], rules: Rules
) -> tuple[dict[str, Hud | NoHud], tuple[GameHud, ...]]:
    huds: dict[str, Hud | NoHud] = {}
    games = []
    for game in sorted({row["game"] for row in rows}):
        mine = [row for row in rows if row["game"] == game]
        hours = sum(row["n_steps"] / row["rate"] for row in mine) / 3600
        hud = _hud_of(pictures, mine, enough=hours * 60 >= rules.hud_minutes)
        huds[game] = hud
        cells = int(hud.cells.sum()) if isinstance(hud, Hud) else 0
        games.append(GameHud(game, hours, cells, hud.why if isinstance(hud, NoHud) else ""))
    return huds, tuple(games)


def _hud_of(pictures: Pictures | None, rows: Sequence[Row], *, enough: bool) -> Hud | NoHud:
    if pictures is None:
        return NoHud("pictures")
    if not enough:
        return NoHud("few")
    steps = sampled(np.array([row["n_steps"] for row in rows]), SAMPLE)
    some = [pictures.some(row, at.tolist()) for row, at in zip(rows, steps, strict=True)]
    return learn_hud(np.concatenate(some), FEWEST)


def _judge(
    corpus: Corpus,
    pictures: Pictures | None,
    row: Row,
    huds: Mapping[str, Hud | NoHud],
    rules: Rules,
) -> Flags:
    motion = None if pictures is None else motion_of(pictures.of(row), huds[row["game"]])
    return flags_of(motion, _hands(corpus, row), row["rate"], rules)


def _hands(corpus: Corpus, row: Row) -> Hands:
    view, first = corpus.open_shard(row["shard"]), row["row_start"]
    columns = ["actions", "action_known"]
    tables = [t for _, t in view.read_rows(first, first + row["n_steps"], columns)]
    actions = np.concatenate(
        [matrix_of(table.column("actions").combine_chunks(), FLOAT) for table in tables]
    )
    known = np.concatenate([table.column("action_known").to_numpy() for table in tables])
    return Hands(at_work(actions, corpus.info.action_space), known)


def _report(
    corpus: Corpus,
    rules: Rules,
    rows: Sequence[Row],
    found: Mapping[str, Flags],
    games: tuple[GameHud, ...],
    changed: int | None,
) -> FilterReport:
    flagged, unjudged = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 0.0)
    for row in rows:
        for start, stop, kind in found[row["episode"]].parts:
            flagged[kind] += (stop - start) / row["rate"] / 3600
        for kind in found[row["episode"]].unjudged:
            unjudged[kind] += row["n_steps"] / row["rate"] / 3600
    return FilterReport(
        location=corpus.location,
        version=corpus.version,
        applied=changed is not None,
        changed=changed or 0,
        rules=rules.hash,
        hours=sum(row["n_steps"] / row["rate"] for row in rows) / 3600,
        flagged={kind: hours for kind, hours in flagged.items() if hours},
        left_out=tuple(kind for kind in KINDS if rules.of[kind].leave_out),
        unjudged={kind: hours for kind, hours in unjudged.items() if hours},
        games=games,
        episodes=tuple(_account(rows, found)),
    )


def _account(rows: Sequence[Row], found: Mapping[str, Flags]) -> Iterator[Row]:
    for row in sorted(rows, key=lambda row: str(row["episode"])):
        told = {name: row[name] for name in ("episode", "recording", "n_steps")}
        yield {**told, **asdict(found[row["episode"]])}
