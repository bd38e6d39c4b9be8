"""Dialects of a text log: a log in any of them is the plain one, and what was guessed is said."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.logs import SPACE, by_ms, column, read_log, sampled

from wham_data.pipelines.readers.video_log.log_dialect import dialect_of
from wham_data.pipelines.readers.video_log.log_table import LogTable, WantedColumns
from wham_data.pipelines.readers.video_log.log_text import open_text_log
from wham_data.schemas.errors import Reason, RefusedInput

WANTED = WantedColumns("time_s", "time_s", ("x", "b"))
PLAIN = "time_s,x,b\n0.008,-0.25,0\n0.016,1e-3,1\n0.024,0.5,0\n"


def table_of(folder: Path, text: str | bytes, name: str = "log.csv", **declared: str) -> LogTable:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_text_log(path, **declared).read(WANTED)


def same(one: LogTable, other: LogTable) -> bool:
    return bool(
        np.array_equal(one.times_ns, other.times_ns)
        and np.array_equal(one.numbers, other.numbers, equal_nan=True)
    )


def with_decimal_commas(delimiter: str) -> str:
    return PLAIN.replace(",", delimiter).replace(".", ",")


DIALECTS: dict[str, tuple[str, str]] = {
    "semicolons": (PLAIN.replace(",", ";"), "separated by semicolons"),
    "tabs": (PLAIN.replace(",", "\t"), "separated by tabs"),
    "bars": (PLAIN.replace(",", "|"), "separated by bars"),
    "spaces": (PLAIN.replace(",", " "), "separated by spaces"),
    "decimal commas": (with_decimal_commas(";"), "decimal commas"),
    "decimal commas and tabs": (with_decimal_commas("\t"), "decimal commas"),
    "decimal commas in quotes": (
        "time_s;x;b\n" + '"0,008";"-0,25";0\n"0,016";"1e-3";1\n"0,024";"0,5";0\n',
        "decimal commas",
    ),
    "savetxt": ("# " + PLAIN, ""),
    "savetxt of tabs": ("#" + PLAIN.replace(",", "\t"), "separated by tabs"),
    "savetxt after a comment": ("# made by a tool, at home\n# " + PLAIN, "line 2"),
    "savetxt in German": ("# " + with_decimal_commas(";"), "decimal commas"),
    "sep": ("sep=;\n" + PLAIN.replace(",", ";"), "line 2"),
    "sep in quotes": ('"sep=\t"\n' + PLAIN.replace(",", "\t"), "line 2"),
    "comments above": ("# pad 1\n# 125 Hz\n" + PLAIN, "2 lines that begin with #"),
    "comments below": (PLAIN.replace("0.016", "# paused\n0.016"), "1 lines that begin with #"),
    "a comment as wide as a row": (PLAIN + "#0.03,1,1\n", "1 lines that begin with #"),
    "units": (PLAIN.replace("0.008", "s,,\n0.008"), "row of units below the header is left out: s"),
    "units in brackets": (PLAIN.replace("0.008", "[s],[-],[0/1]\n0.008"), "[s], [-], [0/1]"),
    "units and semicolons": (
        PLAIN.replace("0.008", "(s),%,-\n0.008").replace(",", ";"), "row of units",
    ),
    "units in a comment": ("# time_s,x,b\n# s,-,1\n" + PLAIN.partition("\n")[2], "row of units"),
    "blank lines above": ("\n\n" + PLAIN, "line 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS)
def test_a_log_in_any_dialect_is_the_plain_one_and_says_so(tmp_path: Path, case: str) -> None:
    text, note = DIALECTS[case]
    found = table_of(tmp_path, text)
    assert same(found, table_of(tmp_path, PLAIN))
    notes = found.format.notes()
    assert any(note in said for said in notes) if note else notes == ()


@pytest.mark.parametrize("case", DIALECTS)
def test_the_line_by_line_pass_reads_dialects_alike(tmp_path: Path, case: str) -> None:
    """A word in the last row keeps the vectorised pass from reading the file."""
    delimiter = next(
        d for d in (";", "\t", "|", ",", " ") if d in DIALECTS[case][0].splitlines()[-1]
    )
    row = delimiter.join(["1", "0", "press"]) + "\n"
    assert same(
        table_of(tmp_path, DIALECTS[case][0] + row), table_of(tmp_path, PLAIN + "1,0,press\n")
    )


@pytest.mark.parametrize(
    ("encoding", "note"),
    [("utf-16", "UTF-16"), ("utf-32", "UTF-32"), ("utf-8-sig", ""), ("utf-8", "")],
)
@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.csv.gz"])
def test_a_byte_order_mark_says_what_the_encoding_is(
    tmp_path: Path, encoding: str, note: str, name: str
) -> None:
    data = (PLAIN.replace("x", "x") + "1,0,0\r\n").encode(encoding)
    found = table_of(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name)
    assert found.times_ns.tolist() == [8_000_000, 16_000_000, 24_000_000, 1_000_000_000]
    assert any(note in said for said in found.format.notes()) == bool(note)


@pytest.mark.parametrize(
    ("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le")]
)
def test_both_orders_of_utf_16_are_read(tmp_path: Path, mark: bytes, encoding: str) -> None:
    assert same(table_of(tmp_path, mark + PLAIN.encode(encoding)), table_of(tmp_path, PLAIN))


CELLS = st.floats(-1, 1, width=32).map(lambda value: f"{value:.6f}")


@given(
    st.lists(st.tuples(st.integers(0, 10**7), CELLS, st.sampled_from("01")), min_size=1, max_size=30),
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["", "# ", "#"]),
    st.sampled_from(["", "sep", "# a comment\n"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_log_written_in_any_dialect_gives_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, str]],
    delimiter: str,
    commas: bool,
    encoding: str,
    comment: str,
    first: str,
    end: str,
    quoted: bool,
) -> None:
    folder = tmp_path_factory.mktemp("log")
    cells = [(f"{us / 1e6:.6f}", x, b) for us, x, b in rows]
    plain = "time_s,x,b\n" + "".join(",".join(row) + "\n" for row in cells)
    if commas and delimiter != ",":
        cells = [tuple(cell.replace(".", ",") for cell in row) for row in cells]
    if quoted:
        cells = [tuple(f'"{cell}"' for cell in row) for row in cells]
    lines = [comment + delimiter.join(WANTED_NAMES), *(delimiter.join(row) for row in cells)]
    above = f"sep={delimiter}\n" if first == "sep" else first
    text = (above + "\n".join(lines) + "\n").replace("\n", end)
    assert same(table_of(folder, text.encode(encoding)), table_of(folder, plain))


WANTED_NAMES = (WANTED.time, *WANTED.numbers)


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("0,1,2\n3,4,5\n", Reason.LOG_SYNTAX, ("line 1", "names of the columns")),
        ("# hello\n0;1\n3;4\n", Reason.LOG_SYNTAX, ("line 2", "names of the columns")),
        (
            "time_s;x,y;b\n0;1,2;3\n1;2,2;3\n",
            Reason.LOG_SYNTAX,
            ("commas or semicolons", "delimiter ="),
        ),
        ("time_s;x;b\n0;1;0\n1;2\n2;1;1\n", Reason.LOG_SYNTAX, ("line 3", "2 cells")),
        ("time_s;x;b\n0,5;1.5;0\n1;2;1\n", Reason.LOG_TYPE, ("line 2", "'0,5'")),
        ("time_s;x;b\n0,5;1.000,5;0\n1;2;1\n", Reason.LOG_TYPE, ("line 2", "'1.000")),
        ("time_s,x,b\n# a\n0,1,0\n1,word,0\n", Reason.LOG_TYPE, ("line 4", "column x", "'word'")),
        (
            "time_s   x b\n0 1 0\n1 1 0\n",
            Reason.LOG_SYNTAX,
            ("line 1", "no separator", "'time_s   x b'"),
        ),
        ("\n \n\n", Reason.LOG_EMPTY, ("blank",)),
        ("# time_s,x,b\n", Reason.LOG_EMPTY, ("no rows",)),
        ("time_s,x,b\ns,,\n", Reason.LOG_EMPTY, ("no rows",)),
    ],
)
def test_a_dialect_that_cannot_be_is_refused_with_the_line_and_what_was_found(
    tmp_path: Path, text: str, reason: Reason, words: tuple[str, ...]
) -> None:
    with pytest.raises(RefusedInput) as caught:
        table_of(tmp_path, text)
    assert caught.value.reason is reason
    assert [word for word in words if word not in caught.value.message] == []


def test_what_is_declared_is_not_guessed(tmp_path: Path) -> None:
    mixed = "time_s;x;b;note\n0,008;-0,25;0;1.5\n0,016;1e-3;1;1.5\n0,024;0,5;0;1.5\n"
    with pytest.raises(RefusedInput, match="line 2"):
        table_of(tmp_path, mixed)
    found = table_of(tmp_path, mixed, decimal=",")
    assert same(found, table_of(tmp_path, PLAIN))
    two = "time_s;x,y;b\n0;1,2;3\n1;2,2;3\n"
    assert dialect_of(two.splitlines(), ";").columns == ("time_s", "x,y", "b")
    assert not dialect_of(two.splitlines(), ";").guessed


@pytest.mark.parametrize(
    "toml", ['delimiter = "x"', "decimal = 3", 'decimal = "."\ndelimiter = ";;"']
)
def test_metadata_that_declares_no_possible_dialect_is_refused(tmp_path: Path, toml: str) -> None:
    with pytest.raises(RefusedInput) as caught:
        read_log(tmp_path, PLAIN, toml)
    assert caught.value.reason is Reason.METADATA


@pytest.mark.parametrize(
    ("header", "units", "scale"),
    [("time", "s", 1), ("t", "[ms]", 1000), ("Timestamp", "us", 10**6), ("time (ms)", None, 1000),
     ("Time [s]", None, 1)],
)  # fmt: skip
def test_units_below_the_header_or_in_brackets_say_what_the_time_counts(
    tmp_path: Path, header: str, units: str | None, scale: int
) -> None:
    others = ",".join(SPACE.names)
    lines = [f"{header},{others}"]
    lines += [units + "," * SPACE.size] if units else []
    lines += [
        f"{k * scale // 10},{','.join(['0'] * (SPACE.size - 1))},{k % 2}" for k in (0, 10, 30)
    ]
    log = read_log(tmp_path, "\n".join(lines))
    assert (log.track.times_ns // 10**9).tolist() == [0, 1, 3]
    assert log.format.time_column == header
    assert not [note for note in log.notes if "length of the video" in note]


def test_units_that_contradict_the_name_are_refused(tmp_path: Path) -> None:
    text = "time_ms,control,value\ns,,\n0,button_A,0\n3000,button_A,1\n"
    with pytest.raises(RefusedInput, match="row of units"):
        read_log(tmp_path, text)


@pytest.mark.parametrize("unit", ["time_s", "time_ms", "time_us", "time_ns"])
@pytest.mark.parametrize("name", ["t", "time", "Timestamp"])
def test_a_time_without_a_unit_counts_what_fits_the_video(
    tmp_path: Path, name: str, unit: str
) -> None:
    scale = {"time_s": 1e-3, "time_ms": 1, "time_us": 1e3, "time_ns": 1e6}[unit]
    lines = [f"{k * 400 * scale:.9g},button_A,{k % 2}" for k in range(10)]
    log = read_log(tmp_path, "\n".join([f"{name},control,value", *lines]))
    assert by_ms(log, "button_A") == {k * 400: k % 2 for k in range(10)}
    assert (log.unit, log.format.time_kind) == (unit, unit)
    assert [note for note in log.notes if "as the length of the video shows" in note]


@pytest.mark.parametrize("last", [9, 60, 86400, 0])
def test_a_time_that_fits_the_video_in_no_unit_is_refused(tmp_path: Path, last: int) -> None:
    with pytest.raises(RefusedInput, match="not in which unit") as caught:
        read_log(tmp_path, f"t,control,value\n0,button_A,1\n{last},button_A,0\n")
    assert caught.value.reason is Reason.LOG_COLUMN


def test_a_sampled_log_says_how_it_was_understood(tmp_path: Path) -> None:
    names = ";".join(SPACE.names)
    lines = [f"{k * 100};" + ";".join(["0,5", *["0"] * (SPACE.size - 1)]) for k in range(40)]
    log = read_log(tmp_path, f"time_ms;{names}\n" + "\n".join(lines))
    assert (column(log, SPACE.names[0]) == 0.5).all()
    shown = log.format
    assert (shown.form, shown.delimiter, shown.decimal, shown.rows) == ("CSV", ";", ",", 40)
    assert (shown.time_column, shown.time_kind) == ("time_ms", "time_ms")
    assert [note for note in log.notes if "semicolons" in note]


@pytest.mark.parametrize("space", [" ", "  "])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_spaces_may_stand_before_quotation_marks(
    tmp_path: Path, space: str, delimiter: str
) -> None:
    rows = [["time_ms", "control", "value"], ["0", "button_A", "1"], ["3000", "button_A", "0"]]
    text = "".join((delimiter + space).join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    log = read_log(tmp_path, text)
    assert by_ms(log, "button_A") == {0: 1, 3000: 0}


@pytest.mark.parametrize(
    ("half", "decimal"), [("0,5", ""), (",5", ""), ("0,500", ""), ("-0,5", ""), ("1,000", ",")]
)
def test_decimal_commas_within_quotation_marks(tmp_path: Path, half: str, decimal: str) -> None:
    toml = f'decimal = "{decimal}"\n' if decimal else ""
    text = sampled([0, 1000, 2000], left_stick_x=[0, f'"{half}"', 1])
    log = read_log(tmp_path, text, toml)
    assert column(log, "left_stick_x")[1] == pytest.approx(float(half.replace(",", ".")))


@pytest.mark.parametrize("cell", ['"1,000"', '"12,345"'])
def test_what_may_be_thousands_names_the_line_to_write(tmp_path: Path, cell: str) -> None:
    with pytest.raises(RefusedInput, match='decimal = ","'):
        read_log(tmp_path, sampled([0, 1000, 2000], left_stick_x=[0, cell, 1]))


def test_a_decimal_point_elsewhere_makes_no_decimal_commas(tmp_path: Path) -> None:
    text = sampled([0, 1000.5, 2000], left_stick_x=[0, '"0,5"', 1])
    with pytest.raises(RefusedInput, match='decimal = ","'):
        read_log(tmp_path, text)
