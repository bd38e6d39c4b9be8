"""The inputs of dreams: episodes of a corpus, WHAM's .npz files, Demonstrator's folders, or pictures.

Only a window of an episode is read: the context, and at most as many steps after it as the dream has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.corpus.shard_view import ShardView, matrix_of
from wham_data.corpus.shards import RowRange
from wham_data.corpus.storage.locations import is_url
from wham_data.corpus.storage.sources.at_hand import LaidOut, all_at_hand, name_of
from wham_data.corpus.storage.sources.folders import is_file
from wham_data.files.links import input_path
from wham_data.files.marks import model_of_file, refuse_synthetic
from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.dream.demonstrator import demonstrator_episodes, pictures_in
from wham_data.pipelines.dream.inputs import (
    RefusedEpisode,
    conversion_between,
    identity_of,
    relative_parts,
    safe_name,
)
from wham_data.pipelines.dream.prompt_pictures import (
    decoded,
    is_picture,
    picture_bytes,
    pictures_at,
)
from wham_data.pipelines.dream.window import Need, Window, place, read_window
from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.kit.resize import resize
from wham_data.pipelines.readers.wham_npz import open_wham_npz
from wham_data.pipelines.video import VideoLimits, decode_image
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.errors import (
    IntegrityError,
    MismatchError,
    NoInputsError,
    Reason,
    RefusedInput,
    UsageError,
)
from wham_data.schemas.manifest import SPLITS
from wham_data.schemas.paths import store_path, told
from wham_data.schemas.recording import Frames
from wham_data.schemas.steps import FLOAT, TOKEN
from wham_data.schemas.wham_tokens import ACTION_SPACE

SourceKind = Literal["corpus", "wham-npz", "demonstrator", "pictures"]


class Episode(Protocol):
    """Something to dream from.

    Attributes:
        name: of the dream's files, a relative path without an ending.
        source: the path of the input, for messages.
        title: its own name, without folders; random numbers depend on it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    def identity(self) -> str:
        """A text that changes with the content of the episode.

        Raises:
            RefusedInput: the episode cannot be read.
        """
        ...

    def read(self, need: Need, tokenizer: Tokenizer, space: ActionSpace) -> Window:
        """The window that a dream needs, in the tokens and the action space of the model.

        Raises:
            RefusedInput: there is no such window, or it cannot be read.
            IntegrityError: a shard is damaged.
        """
        ...


@dataclass(frozen=True, slots=True)
class DreamSource:
    """The inputs of a run, in a fixed order.

    kind         of the inputs
    description  the inputs as the user gave them, for messages
    root         the folder of the inputs; None: single files were given
    episodes     the episodes; their names differ
    pictures     count of pictures of the shortest episode that is not refused, if the episodes are
                 pictures
    corpus       the corpus; None: the inputs are files
    notes        what to say of the inputs, one line each
    laid_out     files of an object store, which stay on this disk for as long as this lives
    """

    kind: SourceKind
    description: str
    root: Path | None
    episodes: tuple[Episode, ...]
    pictures: int = 0
    corpus: Corpus | None = None
    notes: tuple[str, ...] = ()
    laid_out: tuple[LaidOut, ...] = ()

    @property
    def space(self) -> ActionSpace | None:
        """The action space of the recorded actions; None if there are none."""
        if self.kind == "pictures":
            return None
        return load_space(ACTION_SPACE) if self.corpus is None else self.corpus.info.action_space

    def check(self, tokenizer: Tokenizer, space: ActionSpace) -> list[str]:
        """Check that a model can read the inputs.

        Args:
            tokenizer: the model's.
            space: of the model's actions.

        Returns:
            `notes`, and one line for each conversion that is needed.

        Raises:
            MismatchError: no conversion to the model's space is declared, or the corpus has other
                tokens and no pictures.
        """
        notes = [*self.notes, *self._check_space(space)]
        if self.corpus is None:
            return notes
        needed, stored = tokenizer.info, self.corpus.info.tokenizer
        if stored is not None and stored.fingerprint == needed.fingerprint:
            return notes
        found = (
            "no tokens"
            if stored is None
            else f"tokens of {stored.name} ({stored.fingerprint[:12]})"
        )
        if self.corpus.info.frames == "none":
            raise MismatchError(
                f"{self.description}: holds {found} and no pictures, but the model needs tokens of "
                f"{needed.name} ({needed.fingerprint[:12]}). Ingest again with the model as --tokenizer, "
                "or with --frames jpeg or png; the model's own tokenizer then encodes the pictures"
            )
        own = "its pictures are encoded with the model's own tokenizer"
        return [*notes, f"{self.description}: holds {found}; {own}"]

    def _check_space(self, target: ActionSpace) -> list[str]:
        """As `check`, for the action space only."""
        if self.space is None or self.space == target:
            return []
        try:
            conversion_between(self.space, target)
        except UsageError as error:
            raise MismatchError(
                f"{self.description}: its actions are in {self.space.name}, but the model's are in "
                f"{target.name}: {error}"
            ) from None
        names = f"{self.space.name} {target.name}"
        return [
            f"{self.description}: its actions are converted from {self.space.name} "
            f"(`wham-data schema convert {names}` shows the rules)"
        ]


def open_dream_source(
    sources: Sequence[str | Path],
    *,
    split: Sequence[str] = (),
    limit: int | None = None,
    allow_synthetic: bool = False,
) -> DreamSource:
    """Find the inputs of a run.

    Args:
        sources: one corpus; or .npz files and folders of them; or folders of WHAM Demonstrator and
            folders of them; or pictures or a folder of pictures, which together are one episode.
        split: use only these splits of a corpus; empty: all.
        limit: use at most this many episodes, the first by name.
        allow_synthetic: accept pictures and .npz files that are marked as made by a world model.

    Raises:
        RefusedInput: SYNTHETIC, pictures or an .npz file are dreams.
        UsageError: a source does not exist, or the sources are of different kinds.
        NoInputsError: there is nothing to dream from.
    """
    description = ", ".join(map(str, sources))
    named = [store_path(source) or input_path(source) for source in sources]
    if any(is_file(path / "corpus.json") for path in named):
        if len(named) > 1:
            raise UsageError(f"{description}: dream from one corpus at a time")
        corpus = Corpus.open(told(named[0]))
        return _corpus_source(corpus, str(sources[0]), split, limit)
    try:
        held = [all_at_hand(path) for path in named]
    except FileNotFoundError as error:
        raise UsageError(f"{error}: no such object or folder") from None
    found = _files_source([path for path, _ in held], description, split, limit, allow_synthetic)
    return replace(found, laid_out=tuple(files for _, files in held if files is not None))


def _files_source(
    paths: list[Path],
    description: str,
    split: Sequence[str],
    limit: int | None,
    allow_synthetic: bool,
) -> DreamSource:
    """As `open_dream_source`, of files and folders on this disk that are no corpus."""
    if split:
        raise UsageError("--split: only a corpus has splits")
    given = {path for path in paths if not path.is_dir() and is_picture(path)}
    found = _npz_episodes([path for path in paths if path not in given])
    if found and given:
        raise UsageError(
            f"{description}: dream from .npz files and from pictures one after the other"
        )
    root = paths[0] if len(paths) == 1 and paths[0].is_dir() else None
    if not found and not given and (folders := demonstrator_episodes(paths)):
        if not allow_synthetic:
            _refuse_dreams([path for each in folders[:limit] for path in pictures_in(each)])
        counts = [len(pictures_in(each)) for each in folders[:limit]]
        shortest = min(filter(None, counts), default=1)
        return DreamSource("demonstrator", description, root, tuple(folders[:limit]), shortest)
    if not allow_synthetic:
        _refuse_dreams([e.path for e in found[:limit] if isinstance(e, NpzEpisode)])
    if found:
        return DreamSource("wham-npz", description, root, tuple(found[:limit]))
    found_in = [pictures_at(path) for path in paths]
    pictures = [picture for found_here, _ in found_in for picture in found_here]
    if not pictures:
        raise NoInputsError(
            f"{description}: no corpus, no .npz of images and actions, and no pictures (PNG, JPEG, WebP, "
            "BMP, TIFF)"
        )
    title = pictures[0].stem if root is None else root.name
    if not allow_synthetic:
        _refuse_dreams(pictures)
    episode = PictureEpisode(safe_name((title,)), title, tuple(pictures))
    notes = tuple(note for _, told in found_in for note in told)
    return DreamSource("pictures", description, root, (episode,), len(pictures), notes=notes)


def _refuse_dreams(paths: Sequence[Path]) -> None:
    """Raise RefusedInput SYNTHETIC for files that are marked as made by a world model."""
    for path in paths:
        refuse_synthetic(model_of_file(path), path.name)


@dataclass(frozen=True, slots=True)
class CorpusEpisode:
    """An episode of a corpus, by its row of the manifest."""

    corpus: Corpus
    row: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The episode's name."""
        return str(self.row["episode"])

    @property
    def name(self) -> str:
        """The episode's name as a safe file name."""
        return safe_name((self.title,))

    @property
    def source(self) -> str:
        """The source of its recording."""
        return str(self.row["source"])

    def identity(self) -> str:
        """The hash of the recording and that of the settings; independent of the shard."""
        return f"{self.row['recording']}-{self.row['settings']}"

    def read(self, need: Need, tokenizer: Tokenizer, space: ActionSpace) -> Window:
        """Read the tokens, or encode the pictures, only of the steps that are needed."""
        view = self.corpus.open_shard(self.row["shard"])
        n_steps, first_row = self.row["n_steps"], self.row["row_start"]
        if RowRange(self.title, first_row, n_steps) not in view.episodes:
            raise IntegrityError(
                f"{view.where}: {self.title} is not at its position in the manifest"
            )
        good = np.concatenate(
            [
                table.column("action_known").to_numpy()
                for _, table in view.read_rows(first_row, first_row + n_steps, ["action_known"])
            ]
        )
        used = np.zeros(n_steps, np.bool_)
        for kept in self.row["keep"]:
            used[kept["start"] : kept["end"]] = True
        start = place(good & used, need)
        all_rows = range(first_row, first_row + n_steps)
        action_rows, picture_rows = (
            all_rows[steps.start : steps.stop]
            for steps in (need.action_steps(start, n_steps), need.picture_steps(start, n_steps))
        )
        info = self.corpus.info
        stored_actions = _matrix(view, action_rows, "actions", FLOAT)
        actions = conversion_between(info.action_space, space).apply(stored_actions)
        if info.tokenizer is None or info.tokenizer.fingerprint != tokenizer.fingerprint:
            pictures = self._pictures(view, picture_rows)
            return read_window(start, pictures, actions, need.context, tokenizer)
        stored = None
        if info.frames != "none":
            stored = np.stack(list(self._pictures(view, picture_rows[: need.context])))
            stored = resize(stored, tokenizer.frame_size, "stretch")
        return Window(
            start, _matrix(view, picture_rows, "tokens", TOKEN), actions, stored, encoded=False
        )

    def _pictures(self, view: ShardView, rows: range) -> Iterator[Frames]:
        """The stored pictures of these rows, one by one."""
        width, height = self.corpus.info.size
        for _, table in view.read_rows(rows.start, rows.stop, ["frame"]):
            for coded in table.column("frame"):
                picture = decode_image(coded.as_py())
                if picture.shape != (height, width, 3):
                    raise IntegrityError(
                        f"{view.where}: a picture of {picture.shape[1]}x{picture.shape[0]}, "
                        f"expected {width}x{height}"
                    )
                yield picture


@dataclass(frozen=True, slots=True)
class NpzEpisode:
    """One of WHAM's own .npz files."""

    name: str
    path: Path
    limits: VideoLimits

    @property
    def title(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def source(self) -> str:
        """Path of the file."""
        return name_of(self.path)

    def identity(self) -> str:
        """The checksums of pictures and actions."""
        return open_wham_npz(self.path, self.limits).identity

    def read(self, need: Need, tokenizer: Tokenizer, space: ActionSpace) -> Window:
        """Encode the pictures that are needed."""
        recording = open_wham_npz(self.path, self.limits)
        assert recording.actions is not None
        recorded = recording.actions.values.astype(np.float32)
        actions = conversion_between(load_space(ACTION_SPACE), space).apply(recorded)
        start = place(np.array(np.isfinite(actions).all(axis=1)), need)
        picture_rows, action_rows = (
            need.picture_steps(start, len(actions)),
            need.action_steps(start, len(actions)),
        )
        pictures = (each for each in recording.pictures(np.array(picture_rows)) if each is not None)
        return read_window(start, pictures, actions[np.array(action_rows)], need.context, tokenizer)


@dataclass(frozen=True, slots=True)
class PictureEpisode:
    """Pictures in order. Their actions are not known."""

    name: str
    title: str
    files: tuple[Path, ...]

    @property
    def source(self) -> str:
        """Path of the first picture."""
        return name_of(self.files[0])

    def identity(self) -> str:
        """A hash over all pictures."""
        return identity_of(map(picture_bytes, self.files))

    def read(self, need: Need, tokenizer: Tokenizer, space: ActionSpace) -> Window:
        """Encode the first C pictures and the next K if these are needed; else the last C."""
        if need.frames:
            start = place(np.ones(len(self.files), np.bool_), need)
            files = self.files[start : start + need.context + need.steps]
        else:
            start = len(self.files) - need.context
            files = self.files[start:]
        notes: dict[str, None] = {}
        unknown = np.full((len(files), space.size), np.nan, np.float32)
        pictures = decoded(files, notes)
        window = read_window(start, pictures, unknown, need.context, tokenizer)
        return replace(window, notes=tuple(notes))


def _corpus_source(
    corpus: Corpus, description: str, split: Sequence[str], limit: int | None
) -> DreamSource:
    unknown = [name for name in split if name not in SPLITS]
    if unknown:
        raise UsageError(f"--split {unknown[0][:40]!r}: expected {', '.join(SPLITS)}")
    rows = corpus.episodes.filter(pl.col("split").is_in(split) if split else pl.lit(True))
    if not len(rows):
        where = f" in {' or '.join(split)}" if split else ""
        raise NoInputsError(f"{description}: no episodes{where} among {corpus.n_episodes}")
    chosen = rows if limit is None else rows.head(limit)
    episodes = [CorpusEpisode(corpus, row) for row in chosen.rows(named=True)]
    root = None if is_url(corpus.location) else Path(corpus.location)
    return DreamSource("corpus", description, root, tuple(episodes), corpus=corpus)


def _npz_episodes(paths: Sequence[Path]) -> list[Episode]:
    """Every .npz of images and actions in files and folders, by name; damaged ones refuse."""
    if not paths:
        return []
    discovery = discover(paths, "wham-npz")
    limits = VideoLimits()
    episodes: dict[str, Episode] = {}
    found: list[tuple[Path, RefusedInput | None]] = [(r.path, None) for r in discovery.recordings]
    absent = (Reason.NOT_DOWNLOADED, Reason.EMPTY_FILE)  # other files: no inputs of a dream
    refused = [
        each
        for each in discovery.refused
        if each[0].suffix.lower() == ".npz" or each[1].reason not in absent
    ]
    for path, refusal in sorted([*found, *refused], key=lambda each: each[0]):
        name = safe_name(relative_parts(path, paths))
        if name in episodes:
            raise UsageError(
                f"{path} and {episodes[name].source} would both be called {name}: "
                "dream them into different folders"
            )
        episodes[name] = (
            NpzEpisode(name, path, limits)
            if refusal is None
            else RefusedEpisode(name, name_of(path), path.stem, refusal)
        )
    return list(episodes.values())


def _matrix(view: ShardView, rows: range, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A fixed-length column of a shard's rows, copied out of the mapped file."""
    pieces = [table for _, table in view.read_rows(rows.start, rows.stop, [name])]
    return matrix_of(pa.concat_tables(pieces).column(name).combine_chunks(), dtype).copy()
