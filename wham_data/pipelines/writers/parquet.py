"""`parquet`: Parquet files with ordinary columns, and a card for Hugging Face.

    README.md              the card: splits as files, columns, action space
    <split>/<part>.parquet a row for each step:
      episode, split, step, time_ns, rate, hours, game, map, match, player, subject, license
      a float column for each dimension of the action      null if the action is not known
      actions        list of A floats                      null if the action is not known
      action_known   boolean
      tokens         list of N uint16, row by row over the grid
      frame          struct of bytes (PNG or JPEG) and path, the `Image` of Hugging Face
      state, reward, text

A reader needs no code of ours: the values are numbers, lists of numbers and texts, compressed with
snappy, which every reader of Parquet knows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.parquet as pq

from wham_data.corpus.columns import ABOUT, dimension_columns, hours_per_step, steps_per_second
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written, grouped
from wham_data.pipelines.writers.samples import Sample, samples_of
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.corpus_info import canonical_json
from wham_data.schemas.manifest import SPLITS

ROWS: Final = 200
"""Most steps of a row group that holds pictures: few enough for a reader to hold in memory."""
ROWS_WITHOUT_PICTURES: Final = 10_000
ENDINGS: Final = {"png": "png", "jpeg": "jpg"}
KEY: Final = b"wham_data.export"
HUGGING_FACE: Final = b"huggingface"
"""Keys of the metadata of a file."""
PICTURE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


@dataclass(frozen=True, slots=True)
class ParquetWriter:
    """Writer of Parquet files that other programs read as numbers."""

    name: ClassVar[str] = "parquet"
    about: ClassVar[str] = "Parquet files with ordinary columns, and a card for Hugging Face"
    order: ClassVar[int] = 55
    demands: ClassVar[Demands] = Demands(pictures=False, known=False, steady=False, numbered=True)

    def space(self, native: ActionSpace) -> ActionSpace:
        """Any space."""
        return native

    def check(self, content: Content) -> Sequence[str]:
        """A note for each dimension whose column has another name."""
        pairs = zip(content.space.names, dimension_columns(content.space), strict=True)
        return [
            f"dimension {name} is column {column}: another column has its name"
            for name, column in pairs
            if name != column
        ]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A file for each part; a part has a few thousand steps."""
        return grouped(stretches)

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one file."""
        del place
        path = folder / part.split / f"{part.name}.parquet"
        path.parent.mkdir()
        schema = steps_schema(content)
        rows = _rows(part.stretches, content)
        group = ROWS if content.pictures else ROWS_WITHOUT_PICTURES
        with pq.ParquetWriter(path, schema, compression="snappy") as writer:
            while some := list(islice(rows, group)):
                columns = {name: [row[name] for row in some] for name in schema.names}
                writer.write_table(pa.table(columns, schema=schema), row_group_size=group)
        return {}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Write the card."""
        (folder / "README.md").write_text(card(written, content))


def steps_schema(content: Content) -> pa.Schema:
    """The columns of every file.

    Its metadata says which column holds pictures, for Hugging Face, and what the lists mean.
    """
    floats, empty = pa.list_(pa.float32()), content.vocabulary == 0
    fields = [
        *(pa.field(name, pa.string(), nullable=False) for name in ("episode", "split")),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("time_ns", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64()) for name in ("rate", "hours")),
        *(pa.field(name, pa.string()) for name in ABOUT),
        *(pa.field(name, pa.float32()) for name in dimension_columns(content.space)),
        pa.field("actions", floats),
        pa.field("action_known", pa.bool_(), nullable=False),
        *([] if empty else [pa.field("tokens", pa.list_(pa.uint16()))]),
        *([pa.field("frame", PICTURE)] if content.pictures else []),
        *([pa.field("state", floats)] if content.state_size else []),
        *([pa.field("reward", pa.float32())] if content.reward else []),
        *([pa.field("text", pa.string())] if content.text else []),
    ]
    rate = content.rate
    told = {
        "action_space": content.space.to_dict(),
        "columns": list(dimension_columns(content.space)),
        "rate": None if rate is None else str(rate),
        "token_grid": None if empty else list(content.grid),
    }
    metadata = {KEY: canonical_json(told)}
    if content.pictures:
        features = {"frame": {"_type": "Image"}}
        metadata[HUGGING_FACE] = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata=metadata)


def _rows(stretches: Sequence[Stretch], content: Content) -> Iterator[dict[str, Any]]:
    """The row of each step, as values by column."""
    dimensions = dimension_columns(content.space)
    for stretch in stretches:
        same = _same_in_all(stretch, content)
        for sample in samples_of(stretch, content):
            known = sample.action_known
            numbers = zip(dimensions, sample.actions.tolist(), strict=True)
            yield {
                **same,
                **{name: number if known else None for name, number in numbers},
                "step": sample.step,
                "time_ns": sample.time_ns,
                "actions": sample.actions if known else None,
                "action_known": known,
                "tokens": sample.tokens,
                "frame": _picture(sample, content),
                "state": sample.state,
                "reward": None if math.isnan(sample.reward) else sample.reward,
                "text": sample.text,
            }


def _same_in_all(stretch: Stretch, content: Content) -> dict[str, Any]:
    """The values that are the same in all steps of an episode."""
    row = stretch.row
    per_second = steps_per_second(content.rate or "native", row.source_fps)
    return {
        "episode": stretch.name,
        "split": stretch.split,
        "rate": per_second,
        "hours": hours_per_step(per_second),
        **{name: getattr(row, name) for name in ABOUT},
    }


def _picture(sample: Sample, content: Content) -> dict[str, Any] | None:
    if sample.frame is None:
        return None
    name = f"{sample.episode}/{sample.step:06d}.{ENDINGS[content.coding]}"
    return {"bytes": sample.frame, "path": name}


def card(written: Sequence[Written], content: Content) -> str:
    """The text of README.md, whose head tells Hugging Face which files belong to which split."""
    steps: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for each in written:
        steps[each.split] += sum(each.steps)
    splits = [split for split in SPLITS if steps[split]]
    files = [f"  - split: {split}\n    path: {split}/*.parquet" for split in splits]
    named = zip(dimension_columns(content.space), content.space.dimensions, strict=True)
    rows = [
        f"| `{column}` | {each.kind} | {each.low:g} to {each.high:g} | {_cell(each.unit)} | "
        f"{_cell(each.sign)} |"
        for column, each in named
    ]
    return CARD.format(
        files="\n".join(files),
        steps=", ".join(f"{steps[split]} in `{split}`" for split in splits),
        lists=" ".join(_about_lists(content)),
        space=content.space.name,
        dimensions="\n".join(rows),
    )


CARD: Final = """---
configs:
- config_name: default
  data_files:
{files}
---

# Steps of gameplay

Each row is a step: {steps}. Written by `wham-data export --to parquet`.

| column | |
|---|---|
| `episode`, `step` | name of the episode; number of the step in it, from 0 |
| `split` | that of the episode |
| `time_ns` | start of the step in nanoseconds, on the clock of the recording |
| `rate`, `hours` | steps per second; duration of the step, so sums of it are hours |
| `game`, `map`, `match`, `player`, `subject`, `license` | null: not stated |
| the dimensions below | value in the step; null: the action is not known |
| `actions`, `action_known` | the dimensions in their order as a list, or null; whether the action is known |

{lists}

`LICENCES.txt` has the licence of each source, `episodes.jsonl` the source of each episode.

## Actions: {space}

| column | kind | range of one sample | unit | direction |
|---|---|---|---|---|
{dimensions}
"""


def _about_lists(content: Content) -> Iterator[str]:
    if content.vocabulary:
        rows, columns = content.grid
        yield (
            f"`tokens` is a list of {rows * columns} numbers below {content.vocabulary}: a grid of "
            f"{rows} rows and {columns} columns, row by row."
        )
    if content.pictures:
        width, height = content.size
        yield f"`frame` is a picture of {width}x{height} pixels ({content.coding})."
    if content.state_size:
        yield f"`state` is a list of {content.state_size} numbers; null: not known."
    if content.reward:
        yield "`reward` is that of the step; null: not known."
    if content.text:
        yield "`text` is the caption of the step, or null."


def _cell(text: str) -> str:
    """A text in a table of Markdown."""
    return text.replace("|", "\\|")
