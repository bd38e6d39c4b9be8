"""JSON logs: lines, lists and lists in objects are one thing; all keys of all rows are columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wham_data.files.json_lines import MAX_LINE_BYTES
from wham_data.pipelines.readers.video_log.log_json import has_rows
from wham_data.pipelines.readers.video_log.log_table import LogTable, WantedColumns
from wham_data.pipelines.readers.video_log.log_text import is_json_log, open_text_log
from wham_data.schemas.errors import Reason, RefusedInput

ROWS = [{"t": k, "pad": {"x": k / 4, "who": '"[{'}, "b": k % 2} for k in range(4)]
WANTED = WantedColumns("t", "time_s", ("pad.x", "b"))


def table_of(
    folder: Path, text: str | bytes, name: str = "log.json", wanted: WantedColumns = WANTED
) -> LogTable:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_text_log(path).read(wanted)


FORMS: dict[str, str] = {
    "a list": json.dumps(ROWS),
    "a list over many lines": json.dumps(ROWS, indent=2),
    "a row in each line of a list": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "an object with a list": json.dumps({"version": 1, "events": ROWS, "end": {"a": [1]}}),
    "the same over many lines": json.dumps({"meta": {"list": [{"a": 1}]}, "e": ROWS}, indent=1),
    "lists of other things beside it": json.dumps({"size": [1, 2], "e": ROWS, "none": []}),
    "lines": "\n".join(map(json.dumps, ROWS)),
    "lines and blanks": "\n\n".join(map(json.dumps, ROWS)) + "\n",
    "UTF-8 with a mark": "\ufeff" + json.dumps(ROWS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["log.json", "log.jsonl"])
def test_rows_are_found_in_lines_in_lists_and_in_objects(
    tmp_path: Path, form: str, name: str
) -> None:
    found = table_of(tmp_path, FORMS[form], name)
    assert (found.times_ns // 10**9).tolist() == [0, 1, 2, 3]
    assert found.numbers.tolist() == [[k / 4, k % 2] for k in range(4)]
    assert found.format.list_name == {"an object with a list": "events"}.get(
        form, "e" if "object" in form or "same" in form or "beside" in form else ""
    )
    assert has_rows(FORMS[form].removeprefix("\ufeff").encode())


def test_utf_16_with_a_mark_is_read(tmp_path: Path) -> None:
    assert len(table_of(tmp_path, json.dumps(ROWS).encode("utf-16")).times_ns) == 4


VALUES = st.one_of(st.none(), st.integers(-5, 5), st.sampled_from(["a", '"', "]}", "\\"]))


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), VALUES), max_size=12), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_the_columns_are_the_keys_of_all_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], form: int
) -> None:
    rows = [{"t": k, **row} for k, row in enumerate([{}, *rows])]
    text = ("\n".join(map(json.dumps, rows)), json.dumps(rows), json.dumps({"r": rows}))[form]
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_text(text)
    log = open_text_log(path)
    assert set(log.columns) == {key for row in rows for key in row}
    for column in log.columns:
        names, codes = log.labels(column)
        assert [names[code] for code in codes] == [str(row.get(column)) for row in rows]


def test_a_key_that_is_not_there_is_an_empty_cell(tmp_path: Path) -> None:
    rows = [{"t": 0, "pad": {"x": 1}}, {"t": 1, "pad": {"x": 0}, "b": 1}, {"t": 2, "b": 0}]
    found = table_of(tmp_path, "\n".join(map(json.dumps, rows)), "log.jsonl")
    np.testing.assert_array_equal(found.numbers, [[1, np.nan], [0, 1], [np.nan, 0]])


@pytest.mark.parametrize(
    "header", [{"version": 1}, {"fps": 60, "size": [1, 2]}, {"meta": {"game": "x"}}]
)
def test_a_first_object_with_other_keys_is_a_header(
    tmp_path: Path, header: dict[str, object]
) -> None:
    found = table_of(tmp_path, "\n".join(map(json.dumps, [header, *ROWS])), "log.jsonl")
    assert len(found.times_ns) == 4
    assert [note for note in found.notes if "header" in note]


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("form", ["a list", "a list over many lines", "an object with a list"])
def test_a_list_torn_by_a_killed_recorder_loses_its_last_row(
    tmp_path: Path, form: str, cut: int
) -> None:
    whole = FORMS[form]
    start = whole.rindex('"b": 1')  # within the last row
    found = table_of(tmp_path, whole[: start - cut])
    assert len(found.times_ns) == 3
    assert [note for note in found.notes if "torn" in note]


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("[1, 2]", Reason.LOG_SYNTAX, ("line 1", "expected objects")),
        ('[{"t": 0},\n 7]', Reason.LOG_SYNTAX, ("line 2", "7")),
        ('[{"t": 0}]\n{"t": 1}', Reason.LOG_SYNTAX, ("line 2", "behind the end")),
        ('{"a": [{"t": 0}], "b": [{"t": 0}]}', Reason.LOG_SYNTAX, ("several lists", "a, b")),
        ("[]", Reason.LOG_EMPTY, ("no rows",)),
        (
            '[{"t": 0},\n{"t": ' + "[" * 99 + "]" * 99 + "}]",
            Reason.LOG_SYNTAX,
            ("line 2", "nested"),
        ),
        ('[{"t": 0},\n{"t": 9' + "9" * 90 + "}]", Reason.LOG_TYPE, ("line 2", "too many digits")),
        ('[{"a": "' + "x" * MAX_LINE_BYTES + '"}]', Reason.TOO_LARGE, ("line 1", "object of over")),
        ('[{"t": 0},\n{"t" 1},\n{"t": 2}]', Reason.LOG_SYNTAX, ("line 2", "not JSON")),
        ("{" * 100_000, Reason.LOG_SYNTAX, ("line 1",)),
        ("[" * 100_000, Reason.LOG_SYNTAX, ("line 1",)),
        ('{"a": ' * 100_000 + "[{}]", Reason.LOG_SYNTAX, ("line 1",)),
    ],
)
def test_what_is_no_list_of_rows_is_refused_with_the_line(
    tmp_path: Path, text: str, reason: Reason, words: tuple[str, ...]
) -> None:
    with pytest.raises(RefusedInput) as caught:
        table_of(tmp_path, text, wanted=WantedColumns("t", "time_s", ()))
    assert caught.value.reason is reason, caught.value.message
    assert [word for word in words if word not in caught.value.message] == []


@pytest.mark.parametrize(
    "text", ['{"game": "x"}', '{"columns": {"a": "b"}, "mask": ["0,0,1,1"]}', "[1, 2]", "", "hello",
             '{"fps": 60,\n "size": [1, 2]}']
)  # fmt: skip
def test_settings_beside_a_video_are_no_log(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert not is_json_log(tmp_path / "a.json")


@pytest.mark.parametrize(
    "text",
    [
        '{{"t": 1}}\n{{"t": 2, "a": [[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[], "{}',
        '[{{"t": 1}}, {{"t": 2, "a": "{}',
        '{{"a": [{{"t": 1}}], "b": "{}',
    ],
)
def test_a_string_without_its_end_takes_no_longer_than_any_other(tmp_path: Path, text: str) -> None:
    """Were each quote in it tried as a beginning, this would take an hour."""
    hostile = text.format('\\"' * 300_000)
    found = table_of(tmp_path, hostile, "log.jsonl", WantedColumns("t", "time_s", ()))
    assert found.times_ns.tolist() == [10**9]
