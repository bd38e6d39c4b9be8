"""How a log was understood: its form, encoding, separators, header and clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from wham_data.schemas.errors import printable

LogForm = Literal["CSV", "JSON lines", "JSON list", "Parquet"]
TimeKind = Literal[
    "time_s", "time_ms", "time_us", "time_ns", "dates", "dates without a zone", "ticks", "frames"
]

UNIT_NAMES: Final = {
    "time_s": "seconds", "time_ms": "milliseconds", "time_us": "microseconds",
    "time_ns": "nanoseconds",
}  # fmt: skip
_NAMES: Final = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces", ",": "commas"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFormat:
    """What a log looks like, as far as it was found out or declared.

    form         of the file
    encoding     of its text; "" for Parquet
    delimiter    between the cells of a CSV; "" for other forms
    decimal      mark between whole and fraction in a CSV, "." or ","
    header_line  line of a CSV that names the columns, from 1; 0 for other forms
    units        (column, unit) for each column that a row of units below the header gives one for
    comments     number of lines left out because they begin with #
    list_name    name of the list in a JSON object that holds the rows; "": none is named
    time_column  column that tells the time; "" until it is known. Of a Parquet file that is not
                 read yet: its only column of time stamps
    time_kind    what it counts in, or that it holds dates, ticks or numbers of frames; "" until it
                 is known
    rows         number of rows read; 0 until they are
    guessed      names of the fields above that were worked out from the content, not declared
    """

    form: LogForm = "CSV"
    encoding: str = "UTF-8"
    delimiter: str = ","
    decimal: str = "."
    header_line: int = 1
    units: tuple[tuple[str, str], ...] = ()
    comments: int = 0
    list_name: str = ""
    time_column: str = ""
    time_kind: TimeKind | Literal[""] = ""
    rows: int = 0
    guessed: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How the text was understood, on one line."""
        said = [f"{self.form} in {self.encoding}" if self.encoding else self.form]
        if self.form == "CSV":
            delimiter = _NAMES.get(self.delimiter, repr(self.delimiter))
            said.append(f"cells separated by {delimiter}{self._guess('delimiter')}")
            said.append(f'decimal mark "{self.decimal}"{self._guess("decimal")}')
            said.append(f"columns named in line {self.header_line}")
        if self.units:
            said.append(f"units {', '.join(f'{name} {unit}' for name, unit in self.units)}")
        if self.comments:
            said.append(f"{self.comments} lines of comments")
        if self.list_name:
            said.append(f"rows in the list {self.list_name}")
        return printable("; ".join(said))

    def _guess(self, name: str) -> str:
        return " (guessed)" if name in self.guessed else ""

    def notes(self) -> tuple[str, ...]:
        """A sentence for each thing that is not as in a plain comma-separated UTF-8 file."""
        said: list[str] = []
        if self.encoding not in ("", "UTF-8"):
            said.append(f"the log is encoded in {self.encoding}, as its byte order mark says")
        if "delimiter" in self.guessed:
            name = _NAMES.get(self.delimiter, repr(self.delimiter))
            said.append(f"cells are separated by {name}")
        if "decimal" in self.guessed:
            said.append('numbers have decimal commas (decimal = "." says otherwise)')
        if self.form == "CSV" and self.header_line > 1:
            said.append(f"the names of the columns are in line {self.header_line}")
        if self.units:
            shown = ", ".join(unit for _, unit in self.units)[:60]
            said.append(f"a row of units below the header is left out: {shown}")
        if self.time_kind == "dates without a zone":
            said.append(f"column {self.time_column[:60]} holds dates without a time zone")
        elif self.time_kind == "dates":
            said.append(f"column {self.time_column[:60]} holds dates (ISO 8601)")
        elif "time_kind" in self.guessed:
            said.append(
                f"column {self.time_column[:60]} counts {UNIT_NAMES[self.time_kind]}, as the length of "
                "the video shows"
            )
        if self.comments:
            said.append(f"{self.comments} lines that begin with # left out")
        if self.list_name:
            said.append(f"rows are those of the list {self.list_name[:60]}")
        return tuple(map(printable, said))
