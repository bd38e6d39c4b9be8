"""`wham-data schema`: what action spaces there are, what they hold, how one becomes another."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wham_data.cli.console import emit, say
from wham_data.cli.help import Command, Group
from wham_data.cli.options import Json
from wham_data.files.whole import written_whole
from wham_data.schemas.actions import ActionSpace, clamp, load_space, space_names
from wham_data.schemas.conversion import (
    Conversion,
    Rule,
    converts_to,
    find_conversion,
    load_conversion,
)
from wham_data.schemas.declarations import NAME_RULE, bundled_names, bundled_text, nearest
from wham_data.schemas.errors import RefusedInput, UsageError, printable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Action spaces: what each number of an action means.",
)


@app.command("list", cls=Command)
def list_spaces(json: Json = False) -> None:
    """List the bundled action spaces.

    \b
    Example:
      wham-data schema list
    """
    spaces = [load_space(name) for name in space_names()]
    result = {
        "spaces": [
            {
                "name": space.name,
                "title": space.title,
                "size": space.size,
                "converts_to": converts_to(space.name),
            }
            for space in spaces
        ]
    }
    rows = [("name", "size", "what", "converts to")]
    rows += [(s.name, str(s.size), s.title, ", ".join(converts_to(s.name)) or "-") for s in spaces]
    emit(result, _aligned(rows), as_json=json)


@app.command("show", cls=Command)
def show_space(
    space: Annotated[str, typer.Argument(help="A bundled space, or the path of a .toml file.")],
    json: Json = False,
) -> None:
    """Show the dimensions of one action space.

    \b
    Examples:
      wham-data schema show wham16
      wham-data schema show my-pad.toml --json
    """
    shown = load_space(space)
    rows = [("index", "name", "kind", "range", "unit", "+ is")]
    rows += [
        (str(i), d.name, d.kind, f"{d.low:g} to {d.high:g}", d.unit or "-", d.sign or "-")
        for i, d in enumerate(shown.dimensions)
    ]
    title = printable(f"{shown.name}: {shown.title}" if shown.title else shown.name)
    source = textwrap.fill(_clean(shown.source.strip()), 100)
    text = "\n\n".join(part for part in (title, source, _aligned(rows)) if part)
    emit(shown.to_dict(), text, as_json=json)


@app.command("convert", cls=Command)
def convert(
    source: Annotated[str, typer.Argument(help="The space to convert from.")],
    target: Annotated[str, typer.Argument(help="The space to convert to.")],
    log: Annotated[
        Path | None,
        typer.Option(
            "--in",
            envvar="WHAM_DATA_SCHEMA_CONVERT_IN",
            help="A file to convert: csv, jsonl or parquet.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write: csv or parquet.")] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="TOML file that says which dimension becomes which."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Rows of the file per second. Needed by a mapping that turns motion into a stick."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show how one space becomes another and what is lost, or convert a file.

    The file that --in names has one column for each dimension of the source space. Its other columns of
    numbers, such as the time, are copied.

    \b
    Examples:
      wham-data schema convert xinput wham16
      wham-data schema convert xinput wham16 --in pad.csv --out wham.csv
      wham-data schema convert keyboard_mouse wham16 --mapping keys.toml
    """
    if rate is not None and not rate > 0:
        raise UsageError(f"--rate {rate:g}: expected rows per second, more than 0")
    if (log is None) != (out is None):
        raise UsageError("--in and --out go together: one names the file to read, one to write")
    conversion = _conversion(load_space(source), load_space(target), mapping)
    result: dict[str, Any] = {
        "source": conversion.source.name,
        "target": conversion.target.name,
        "rules": [asdict(rule) for rule in conversion.rules],
        "unfilled": conversion.unfilled,
        "lost": conversion.lost,
        "notes": conversion.notes,
    }
    text = _explained(conversion)
    if log is not None and out is not None:
        done = convert_file(conversion, log, out, rate)
        result["file"] = asdict(done)
        text += f"\n\n{done.rows} rows to {_clean(str(out))}: {done.clamped} values clamped"
        text += f", {done.missing} rows without a known action"
        if done.left_out:
            say(f"left out, as they are not numbers: {_clean(', '.join(done.left_out))}")
    emit(result, text, as_json=json)


@app.command("mapping", cls=Command)
def mapping(
    name: Annotated[
        str | None, typer.Argument(help="Such as vpt-to-wham16. Default: list the names.")
    ] = None,
) -> None:
    """Print a mapping file to start from, which turns keys and mouse into a pad.

    How keys become a pad is your decision: edit the file, and give it to `wham-data ingest --mapping`.

    \b
    Examples:
      wham-data schema mapping
      wham-data schema mapping vpt-to-wham16 > my-pad.toml
      wham-data schema convert vpt wham16 --mapping my-pad.toml
    """
    known = bundled_names("mappings")
    if name is None:
        typer.echo("\n".join(known))
    elif name in known:
        typer.echo(bundled_text("mappings", name), nl=False)
    else:
        raise UsageError(f"no mapping called {name[:80]!r}{nearest(name, known, 'mappings')}")


def _conversion(source: ActionSpace, target: ActionSpace, mapping: Path | None) -> Conversion:
    if mapping is None:
        return find_conversion(source, target)
    conversion = load_conversion(mapping)
    if (conversion.source, conversion.target) != (source, target):
        raise UsageError(
            f"{mapping} converts {conversion.source.name} to {conversion.target.name}, "
            f"not {source.name} to {target.name}"
        )
    return conversion


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    """What became of a file.

    clamped   values that overshot the source's range and were brought to its edge
    missing   rows in which a value was missing or not finite: nothing is known of that action
    left_out  columns that were not numbers and belong to no dimension
    """

    out: str
    rows: int
    clamped: int
    missing: int
    left_out: tuple[str, ...]


def convert_file(
    conversion: Conversion, log: Path, out: Path, rate: float | None = None
) -> ConvertedFile:
    """Convert a file of actions; `out` is written whole or not at all.

    Args:
        conversion: what becomes what.
        log: the file to read.
        out: the file to write.
        rate: rows per second; only a conversion with speeds needs it.

    Raises:
        UsageError: the file cannot be read or written, lacks a dimension, holds something that is
            no number there, or a value far out of its range.
    """
    import numpy as np
    import pyarrow as pa

    table = _read(log)
    lacking = [name for name in conversion.source.names if name not in table.column_names]
    if lacking:
        raise UsageError(
            f"{log}: no column {', '.join(lacking)}; {conversion.source.name} has one column for "
            f"each of {', '.join(conversion.source.names)}"
        )
    columns = [_numbers(table, name, log) for name in conversion.source.names]
    try:
        values, clamped = clamp(conversion.source, np.stack(columns, axis=1))
    except RefusedInput as error:
        raise UsageError(f"{log}: {error}") from None

    kept = [name for name in table.column_names if name not in conversion.source.names]
    left_out = tuple(name for name in kept if not _passes(table, name))
    arrays = {name: table[name] for name in kept if name not in left_out}
    twice = [name for name in conversion.target.names if name in arrays]
    if twice:
        raise UsageError(f"{log}: it already has columns {', '.join(twice)} of the target space")
    converted = conversion.apply(values, None if rate is None else 1 / rate)
    for name, column in zip(conversion.target.names, converted.T, strict=True):
        arrays[name] = pa.array(column, from_pandas=True)  # NaN is written as no value
    _write(pa.table(arrays), out)
    missing = int(np.count_nonzero(np.isnan(values).any(axis=1)))
    return ConvertedFile(str(out), len(values), clamped, missing, left_out)


def _read(log: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    readers = {
        ".csv": pa.csv.read_csv,
        ".jsonl": pa.json.read_json,
        ".parquet": pa.parquet.read_table,
    }
    read = readers.get(log.suffix.lower())
    if read is None:
        raise UsageError(f"{log}: expected a file that ends in {', '.join(readers)}")
    try:
        table = read(log)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{log}: {str(error).splitlines()[0]}") from None
    if len(set(table.column_names)) != table.num_columns:
        raise UsageError(f"{log}: two columns have the same name")
    return table


def _numbers(table: pa.Table, name: str, log: Path) -> NDArray[np.float64]:
    """A column as float64 [N]; what is missing is NaN."""
    import numpy as np
    import pyarrow as pa

    column = table[name]
    if not _is_number(column.type) and not pa.types.is_null(column.type):
        raise UsageError(f"{log}: column {name} holds {column.type}, expected numbers")
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _passes(table: pa.Table, name: str) -> bool:
    """Whether a column of no dimension goes along: numbers do; text could be read as a formula."""
    return _is_number(table[name].type) and NAME_RULE.fullmatch(name) is not None


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _write(table: pa.Table, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    writers = {".csv": pa.csv.write_csv, ".parquet": pa.parquet.write_table}
    write = writers.get(out.suffix.lower())
    if write is None:
        raise UsageError(f"{out}: expected a file that ends in {', '.join(writers)}")
    try:
        with written_whole(out) as beside:
            write(table, beside)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror or error}") from None


def _explained(conversion: Conversion) -> str:
    """The rules, then what stays at rest, what is lost and what to know."""
    source, target = conversion.source.name, conversion.target.name
    rules = [(target, f"from {source}")]
    rules += [(rule.target, _formula(rule)) for rule in conversion.rules]
    rules += [(name, "- (stays at rest)") for name in conversion.unfilled]
    lines = [_aligned(rules), ""]
    lines += [f"lost: {sentence}" for sentence in conversion.lost] or ["lost: nothing"]
    lines += [f"note: {_clean(note)}" for note in conversion.notes]
    return "\n".join(lines)


def _formula(rule: Rule) -> str:
    terms = [
        {1.0: name, -1.0: f"-{name}"}.get(scale, f"{scale:g} * {name}")
        for name, scale in zip(rule.sources, rule.scales, strict=True)
    ]
    summed = " + ".join(terms).replace("+ -", "- ")
    joined = summed if rule.combine == "sum" else f"greatest of {', '.join(terms)}"
    value = terms[0] if len(terms) == 1 else joined
    if rule.full_at is not None:
        return f"speed of {value}, {rule.full_at:g} a second is all the way"
    return value if rule.pressed_at is None else f"{value} >= {rule.pressed_at:g}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as columns of text, two blanks apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            _clean(cell).ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _clean(text: str) -> str:
    """`text` as `printable` gives it, its line ends kept."""
    return "\n".join(printable(line) for line in text.splitlines())
