"""A pickle is read as data: plain data comes back, classes stay names, nothing is ever called."""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import os
import pickle
import struct
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wham_data.files.inert_pickle import MOST_OPCODES, Inert, Name, read_pickle
from wham_data.schemas.errors import IntegrityError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=20,
)


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


class Colour(enum.Enum):
    RED = 1


class AttributeDict(dict[str, object]):
    """A kind of dict, as training frameworks keep settings in."""


def named(module: str, name: str, *, called: bool = False) -> bytes:
    """A pickle of a name that need not exist, or of a call of it with no arguments."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + (b")R." if called else b".")


# Data


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back_from_every_protocol(data: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(data, protocol)) == data


@pytest.mark.parametrize("protocol", range(2, 5))
def test_bytes_and_ordered_dicts_are_plain_data_too(protocol: int) -> None:
    data = OrderedDict(a=b"\x00\xff", b=OrderedDict())

    assert read_pickle(pickle.dumps(data, protocol)) == {"a": b"\x00\xff", "b": {}}


def test_what_is_in_the_file_twice_is_one_object() -> None:
    shared = [1]

    first, second = read_pickle(pickle.dumps([shared, shared]))  # type: ignore[misc]

    assert first is second


# Objects


@pytest.mark.parametrize(
    "harmless",
    [
        argparse.Namespace(width=3),
        PurePosixPath("/data/x"),
        np.int64(7),
        np.arange(3),
        Colour.RED,
        defaultdict(list),
        {1, 2},
        frozenset("a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_is_kept_as_its_name_and_what_came_with_it(harmless: object) -> None:
    for protocol in (2, 4):
        read = read_pickle(pickle.dumps({"value": harmless}, protocol))
        assert isinstance(read, dict)
        assert isinstance(read["value"], Inert)


def test_a_namespace_keeps_its_attributes() -> None:
    read = read_pickle(pickle.dumps(argparse.Namespace(width=3), 2))

    assert isinstance(read, Inert)
    assert (str(read.name), read.state) == ("argparse.Namespace", {"width": 3})


def test_a_kind_of_dict_keeps_its_entries() -> None:
    read = read_pickle(pickle.dumps(AttributeDict(width=3), 2))

    assert isinstance(read, Inert)
    assert (read.name.last, read.entries) == ("AttributeDict", {"width": 3})


def test_a_class_that_exists_nowhere_is_a_name() -> None:
    assert read_pickle(named("humanmodelling.models", "Model")) == Name(
        "humanmodelling.models", "Model"
    )


def test_a_module_that_a_pickle_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap_module.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)

    read_pickle(named("trap_module", "Settings", called=True))

    assert "trap_module" not in sys.modules
    assert not (tmp_path / "sprung").exists()


# What is refused


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "__import__"),
        ("subprocess", "Popen"),
        ("sys", "exit"),
        ("shutil", "rmtree"),
        ("socket", "socket"),
        ("importlib", "import_module"),
        ("runpy", "run_path"),
        ("pickle", "loads"),
        ("ctypes", "CDLL"),
        ("webbrowser", "open"),
        ("operator", "attrgetter"),
        ("pathlib", "os.system"),
        ("collections", "_sys.exit"),
        ("commands", "getoutput"),
    ],
)
def test_a_name_that_reaches_out_of_the_file_is_refused_called_or_not(
    module: str, name: str
) -> None:
    for called in (True, False):
        with pytest.raises(IntegrityError, match=rf"refused as unsafe.*{name}"):
            read_pickle(named(module, name, called=called))


@pytest.mark.parametrize("function", ["numpy.load", "torch.hub.load", "pandas.read_pickle"])
def test_a_call_of_another_packages_function_is_refused(function: str) -> None:
    module, _, name = function.rpartition(".")

    with pytest.raises(IntegrityError, match=rf"refused as unsafe.*to call {function}"):
        read_pickle(named(module, name, called=True))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_in_a_pickle_is_not_run(tmp_path: Path, protocol: int) -> None:
    evil = pickle.dumps({"a": [Calls(os.mkdir, str(tmp_path / "made"))]}, protocol)

    with pytest.raises(IntegrityError, match=r"asks for \w+\.mkdir"):
        read_pickle(evil)

    assert not (tmp_path / "made").exists()


def test_calling_what_was_made_in_the_file_is_refused() -> None:
    with pytest.raises(IntegrityError, match="calls something that it made"):
        read_pickle(b"\x80\x02capp.settings\nSettings\n)R)R.")


@pytest.mark.parametrize(
    "opcodes",
    [b"\x82\x01.", b"\x97."],
    ids=["a name from the registry of extensions", "a buffer from outside"],
)
def test_an_opcode_that_no_checkpoint_needs_is_refused(opcodes: bytes) -> None:
    with pytest.raises(IntegrityError, match="not allowed"):
        read_pickle(b"\x80\x02" + opcodes)


# Bombs


def nest_of_shared_lists(depth: int) -> bytes:
    nest: list[object] = []
    for _ in range(depth):
        nest = [nest, nest]
    return pickle.dumps(nest, 2)


@pytest.mark.parametrize(
    "bomb",
    [
        nest_of_shared_lists(200),
        b"\x80\x04r\xff\xff\xff\xff0.",  # puts aside under number 4 294 967 295
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # says it holds a terabyte
        b"\x80\x02" + b"]" * 100 + b"a" * 99 + b".",
    ],
    ids=["2^200 lists in 200", "memo index", "byte count", "depth"],
)
def test_a_bomb_takes_no_more_than_its_bytes(bomb: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        read_pickle(bomb)


def test_a_nest_of_shared_tuples_as_a_key_is_not_hashed() -> None:
    opcodes = io.BytesIO()
    opcodes.write(b"\x80\x02}K\x01")
    opcodes.write(b"2\x86" * 100)  # twice the same, as a pair, a hundred times over
    opcodes.write(b"K\x01s.")

    assert isinstance(read_pickle(opcodes.getvalue()), dict)


def test_too_many_opcodes_are_refused() -> None:
    with pytest.raises(IntegrityError, match="opcodes"):
        read_pickle(b"\x80\x02" + b"N0" * (MOST_OPCODES // 2 + 1) + b"N.")


# Damage


SAMPLE = pickle.dumps(
    {"a": [1, 2.5, "text", (None, True)], "n": argparse.Namespace(x=AttributeDict(y=3))}, 2
)


@given(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=0, max_size=3))
def test_a_damaged_pickle_is_refused_or_read_but_never_crashes(at: int, splice: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        read_pickle(SAMPLE[:at] + splice + SAMPLE[at + len(splice) :])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        read_pickle(b"\x80\x02" + noise)
