"""Reads a pickle as data. Nothing in it is imported, called or built. Uses neither torch nor `pickle`.

A pickle is a program for a small stack machine. This module is such a machine without the two
dangerous parts: importing a name gives a `Name`, which is two strings, and calling it gives an
`Inert`, which is that name with its arguments. Only the parts of a checkpoint get a meaning: dicts,
lists, numbers, strings and bytes as they are, `OrderedDict` as a dict, and tensors as
`TensorRecord`, which says where the values are.

So a pickle cannot do harm here. A pickle that tries is refused all the same, and the message gives
the name that it imports: such a file is not safe to load a model from. A pickle is refused when

- it imports a name of Python's standard library other than the data types in `_STANDARD_DATA`, or
- it calls a public function of another package (harmless objects are stored as calls of classes and
  of `_private` functions; a file of plain settings does not need `numpy.load`), or
- it calls an object that the pickle itself made.
"""

from __future__ import annotations

import math
import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import IntegrityError

MOST_OPCODES = 2_000_000
"""The published files have about ten thousand opcodes. The limit bounds time and memory."""

_SHOWN = 100
"""At most this many characters of a name from a file appear in an error message."""

_STANDARD_DATA = {
    "_codecs": {"encode"},  # how protocol 2 stores bytes
    "argparse": {"Namespace"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
        *("object", "range", "set", "slice", "str", "tuple"),
    },
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"__newobj__", "__newobj_ex__", "_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "functools": {"partial"},
    "pathlib": {
        *("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
    },
    "types": {"MappingProxyType", "SimpleNamespace"},
    "typing": {"Any", "Optional", "Union"},
    "uuid": {"SafeUUID", "UUID"},
}
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "pathlib._local": "pathlib"}
"""Other names of modules, in protocol 2 and in other releases of Python."""

_RENAMED_DATA = {
    "xrange": "range",
    "long": "int",
    "unicode": "str",
}
"""Names of data types in `__builtin__`, as protocol 2 writes them for Python 2."""

_PYTHON_2_MODULES = {"UserDict", "commands", "exceptions", "popen2"}

_BUILDERS = {"numpy": {"dtype", "ndarray", "scalar"}, "torch": {"device", "dtype"}}
"""Public functions with lower-case names that build data and are harmless."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the file names."""

    module: str
    name: str

    @property
    def last(self) -> str:
        """The last part of the name. Classes are recognised by it."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        text = f"{self.module}.{self.name}"
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


@dataclass(slots=True, eq=False)
class Inert:
    """Stands for an object that the pickle describes. The object itself is never built.

    name        its class, or the function that would make it
    arguments   the arguments of that call
    state       the argument of its `__setstate__`, or its `__dict__`
    entries     its entries, if it is a kind of dict
    items       its items, if it is a kind of list or set
    """

    name: Name
    arguments: object = ()
    state: object = None
    entries: dict[object, object] = field(default_factory=dict)
    items: list[object] = field(default_factory=list)

    def __str__(self) -> str:
        return f"an object of {self.name}"


@dataclass(frozen=True, slots=True)
class StorageRef:
    """The values in one member of the archive.

    kind    torch's name for the type, such as "FloatStorage"
    key     the member's name
    count   number of values, as the pickle gives it
    """

    kind: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A view of a storage: offset of the first value, sizes and strides, all counted in values."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """How many values the storage must have: the place of the last one, plus one."""
        if 0 in self.shape:
            return self.offset
        ends = zip(self.shape, self.strides, strict=True)
        return self.offset + 1 + sum((size - 1) * stride for size, stride in ends)

    @property
    def repeats(self) -> bool:
        """Whether a value of the storage is at several places of the tensor."""
        return math.prod(self.shape) > self.span - self.offset

    def is_within(self, count: int) -> bool:
        """Whether the tensor lies inside a storage of `count` values."""
        steps = [n for size, n in zip(self.shape, self.strides, strict=True) if size != 1]
        return min(*self.shape, *steps, self.offset, 0) >= 0 and self.span <= count

    def of(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The tensor as a view of the values of its storage, which it `is_within`."""
        if 0 in self.shape:
            return np.zeros(self.shape, stored.dtype)
        strides = [n * stored.itemsize for n in self.strides]
        return np.lib.stride_tricks.as_strided(stored[self.offset :], self.shape, strides)


def read_pickle(data: bytes | BinaryIO) -> object:
    """The object that a pickle of any protocol describes. From a stream, the next pickle is read.

    Raises:
        IntegrityError: the pickle imports a name that no checkpoint needs (see above), is damaged,
            or has more than `MOST_OPCODES` opcodes. The message does not name the file.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count == MOST_OPCODES:
                raise IntegrityError(f"refused: its pickle has more than {MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                return machine.pop()
            if opcode.name not in _STEPS:
                raise IntegrityError(
                    f"refused: its pickle uses {opcode.name}, which is not allowed"
                )
            _STEPS[opcode.name](machine, argument)
    except (ValueError, LookupError, TypeError) as damaged:
        raise IntegrityError(f"corrupt pickle ({str(damaged)[:_SHOWN]})") from damaged
    raise IntegrityError("corrupt pickle (it does not end)")


class _Machine:
    """The stack machine: a stack, the marks in it, and the memo (values kept under a number)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise ValueError("takes an item from below a mark")
        return self.stack.pop()

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        if module == "__builtin__":
            name = _RENAMED_DATA.get(name, name)
        self.push(_checked(Name(_RENAMED.get(module, module), name)))

    def call(self) -> None:
        arguments, callee = self.pop(), self.pop()
        if not isinstance(callee, Name):
            raise IntegrityError("refused: its pickle calls something that it made itself")
        if not isinstance(arguments, tuple):
            raise ValueError("arguments that are no tuple")
        self.push(_result(callee, arguments))

    def instance(self, class_: object, arguments: object) -> None:
        if not isinstance(class_, Name):
            raise ValueError("an object of no class")
        self.push({} if class_ == _ORDERED_DICT else Inert(class_, arguments))

    def build(self) -> None:
        state, owner = self.pop(), self.stack[-1]
        if isinstance(owner, Inert):
            owner.state = state
        elif not isinstance(owner, dict | TensorRecord):  # whose attributes are not read
            raise ValueError("gives a state to something that has none")

    def append(self, items: list[Any]) -> None:
        owner = self.stack[-1]
        if not isinstance(owner, list | Inert):
            raise ValueError("appends to something that is no list")
        (owner.items if isinstance(owner, Inert) else owner).extend(items)

    def set_items(self, flat: list[Any]) -> None:
        owner = self.stack[-1]
        if not isinstance(owner, dict | Inert) or len(flat) % 2:
            raise ValueError("sets an item of something that is no dict")
        (owner.entries if isinstance(owner, Inert) else owner).update(_pairs(flat))

    def persistent(self, identity: object) -> None:
        match identity:
            case ("storage", Name(module="torch") as kind, str(key), _, int(count), *_):
                self.push(StorageRef(kind.name, key, count))
            case _:
                raise ValueError("a reference to something that is no storage")


_ORDERED_DICT = Name("collections", "OrderedDict")


def _checked(name: Name) -> Name:
    """The name itself. Raises if it is a name of the standard library that is not a data type."""
    root = name.module.partition(".")[0]
    standard = root in sys.stdlib_module_names or root in _PYTHON_2_MODULES
    if standard and name.name not in _STANDARD_DATA.get(name.module, ()):
        raise IntegrityError(f"refused as unsafe: its pickle asks for {name}")
    return name


def _result(callee: Name, arguments: tuple[Any, ...]) -> object:
    """The value that a call stands for."""
    root = callee.module.partition(".")[0]
    match (callee.module, callee.name), arguments:
        case ("collections", "OrderedDict"), ():
            return {}
        case ("_codecs", "encode"), (str(text), "latin1"):
            return text.encode("latin1")
        case ("torch._utils", "_rebuild_tensor_v2"), (
            StorageRef() as storage,
            int(offset),
            tuple(shape),
            tuple(strides),
            *_,
        ):
            return _tensor(storage, offset, shape, strides)
        case ("torch._utils", "_rebuild_parameter"), (TensorRecord() as tensor, *_):
            return tensor
    is_public_function = callee.last[:1].islower() and callee.module not in _STANDARD_DATA
    if is_public_function and callee.last not in _BUILDERS.get(root, ()):
        raise IntegrityError(f"refused as unsafe: its pickle asks to call {callee}")
    return Inert(callee, arguments)


def _tensor(
    storage: StorageRef, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> TensorRecord:
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor of impossible shape")
    return TensorRecord(storage, offset, shape, strides)


def _pairs(flat: list[Any]) -> dict[object, object]:
    return {_key(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _key(key: object) -> object:
    """The key itself if its hash is cheap: hashing deeply nested tuples could take for ever."""
    parts = key if isinstance(key, tuple) and len(key) <= _LONGEST_KEY else (key,)
    if all(isinstance(part, _CHEAP) or _is_short(part) for part in parts):
        return key
    if isinstance(key, tuple | int):
        return Inert(Name("builtins", type(key).__name__), key)
    raise TypeError(f"a {type(key).__name__} as a key")


_CHEAP = (str, bytes, float, type(None), Name, Inert)
_LONGEST_KEY = 16


def _is_short(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() <= 64


_Step = Callable[[_Machine, Any], None]


def _get(machine: _Machine, index: int) -> None:
    machine.push(machine.memo[index])


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _pop(machine: _Machine, _: None) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pass(machine: _Machine, _: object) -> None:
    """An opcode that describes only the form of the pickle: it does nothing."""


def _pop_mark(machine: _Machine, _: None) -> None:
    machine.pop_to_mark()


def _set_item(machine: _Machine, _: None) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _tuple_of(size: int) -> _Step:
    def step(machine: _Machine, _: None) -> None:
        parts = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(parts)))

    return step


def _split_name(machine: _Machine, both: str) -> None:
    module, _, name = both.partition(" ")
    machine.name(module, name)


def _stack_name(machine: _Machine, _: None) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _new_object(machine: _Machine, _: None) -> None:
    arguments, class_ = machine.pop(), machine.pop()
    machine.instance(class_, arguments)


def _new_object_with_names(machine: _Machine, _: None) -> None:
    named, arguments, class_ = machine.pop(), machine.pop(), machine.pop()
    machine.instance(class_, (arguments, named))


def _old_instance(machine: _Machine, both: str) -> None:
    arguments = tuple(machine.pop_to_mark())
    _split_name(machine, both)
    machine.push(arguments)
    machine.call()


def _old_object(machine: _Machine, _: None) -> None:
    callee, *arguments = machine.pop_to_mark()
    machine.push(callee)
    machine.push(tuple(arguments))
    machine.call()


def _container(kind: Callable[[list[Any]], object]) -> _Step:
    return lambda machine, _: machine.push(kind(machine.pop_to_mark()))


def _always(make: Callable[[], object]) -> _Step:
    return lambda machine, _: machine.push(make())


def _as_set(items: list[Any]) -> Inert:
    return Inert(Name("builtins", "set"), items=items)


_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)

_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_VALUES, _Machine.push),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("PROTO", "FRAME"), _pass),
    "NONE": _always(lambda: None),
    "NEWTRUE": _always(lambda: True),
    "NEWFALSE": _always(lambda: False),
    "EMPTY_LIST": _always(list),
    "EMPTY_DICT": _always(dict),
    "EMPTY_TUPLE": _always(tuple),
    "EMPTY_SET": _always(lambda: _as_set([])),
    "LIST": _container(list),
    "TUPLE": _container(tuple),
    "DICT": _container(_pairs),
    "FROZENSET": _container(_as_set),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "MARK": lambda machine, _: machine.mark(),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": _split_name,
    "STACK_GLOBAL": _stack_name,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "INST": _old_instance,
    "OBJ": _old_object,
    "NEWOBJ": _new_object,
    "NEWOBJ_EX": _new_object_with_names,
    "PERSID": lambda machine, identity: machine.persistent(identity),
    "BINPERSID": lambda machine, _: machine.persistent(machine.pop()),
}
