"""Read pickles that hold arrays, numbers and text, and nothing that could run.

A pickle is a program. Here it has the instructions that such files are made of, of which there is none that calls
what the file names, a bound on how many it takes, and one on the bytes that it makes of its own. NumPy's own unpickling
is left out as well: a damaged file can make it crash the process.
"""

from __future__ import annotations

import io
import pickle
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from curate.errors import DataError, MissingError

MAX_BYTES = 256_000_000  # of a file; the largest of CIFAR has 155 MB
MAX_INSTRUCTIONS = 1_000_000  # the largest takes 250,000, and other protocols up to twice as many
SHOWN = 60  # characters of what a file holds, in errors

# What damaged pickles raise, found by changing bytes of good ones.
BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
KINDS = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"}
# Left out: sets, instances, persistent and extension names, all numbers of any length, protocols 0 and 1.
INSTRUCTIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE DICT LIST TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS "
    "BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD"
)


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(what if len(what) <= SHOWN else what[:SHOWN] + "…")


def _text(value: object) -> str:
    """Return a text, and refuse anything else: to show or to hash what is nested deeply could end the process."""
    return value if isinstance(value, str) else _refuse(f"a {type(value).__name__} where a text should be")


class _Budget:
    """The bytes that a file may still make of its own."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            _refuse("it makes more of its bytes than it has")


class _Kind:
    """Stands for a dtype; the order of its bytes comes with its state."""

    def __init__(self, name: object, *_: object) -> None:
        self.name, self.order = _text(name), "="
        if self.name not in KINDS:
            _refuse(f"an array of {self.name!r}")

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])
        if self.order not in ("<", ">", "=", "|"):
            _refuse(f"an array in the order {self.order!r}")


class _Array:
    """Stands for an array until it has its bytes."""

    array: np.ndarray | None = None

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        self.fill(data, kind, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, kind: _Kind, shape: tuple, order: Any) -> _Array:
        """Make the array of its bytes, which Python 2 gives as text."""
        if not isinstance(kind, _Kind) or not isinstance(data, str | bytes | bytearray):
            _refuse("an array that is none")
        self.budget.take(len(data))
        content = data.encode("latin1") if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(content, np.dtype(kind.order + kind.name))
        self.array = flat.reshape(shape, order=order)
        return self


def _known(budget: _Budget) -> dict[tuple[str, str], Any]:
    """Return what a file may name: what stands for NumPy's types, and makes nothing else."""

    def from_buffer(data: Any, kind: _Kind, shape: tuple, order: Any) -> _Array:
        return _Array(budget).fill(data, kind, shape, order)

    def encode(text: object, encoding: object) -> bytes:
        """Return bytes as Python 3 writes them for Python 2."""
        if _text(encoding) != "latin1":
            _refuse(f"text in {encoding}")
        budget.take(len(_text(text)))
        return _text(text).encode("latin1")

    return {
        ("numpy", "ndarray"): None,  # is only ever handed to what makes an array
        ("numpy", "dtype"): _Kind,
        ("_codecs", "encode"): encode,
        **{
            (f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array(budget)
            for core in ("core", "_core")
        },
        **{(f"numpy.{core}.numeric", "_frombuffer"): from_buffer for core in ("core", "_core")},
    }


class _Instructions(dict[int, Any]):
    """What each byte stands for; counts those that were taken."""

    taken = 0

    def __getitem__(self, code: int) -> Any:
        self.taken += 1
        if self.taken > MAX_INSTRUCTIONS:
            _refuse(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
        if code not in self:
            _refuse(f"it has the instruction {bytes([code])!r}, which no such file needs")
        return super().__getitem__(code)


class _Unpickler(pickle._Unpickler):
    """Makes dicts, lists, numbers, texts and what is known; no other name.

    It is the one in Python, and does not take a length from the file as memory to set aside. That in C does.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        codes = [getattr(pickle, name)[0] for name in INSTRUCTIONS.split()]
        own: dict[int, Callable[[Any], None]] = {
            pickle.BYTEARRAY8[0]: _Unpickler._load_bytearray,
            pickle.BUILD[0]: _Unpickler._load_build,
            pickle.DICT[0]: _Unpickler._load_dict,
            pickle.SETITEM[0]: _Unpickler._load_setitem,
            pickle.SETITEMS[0]: _Unpickler._load_setitems,
        }
        usual: dict[int, Any] = pickle._Unpickler.dispatch
        self.dispatch = _Instructions({code: own.get(code, usual[code]) for code in codes})  # type: ignore[misc]
        self.known = _known(_Budget(2 * len(data)))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            _refuse(f"it asks for {module[:SHOWN]}.{name[:SHOWN]}, which no such file needs")
        return self.known[module, name]

    def _load_bytearray(self) -> None:
        [size] = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(size)))  # type: ignore[attr-defined]

    def _load_build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _Kind):  # type: ignore[attr-defined]
            _refuse(f"it changes a {type(self.stack[-2]).__name__}")  # type: ignore[attr-defined]
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]

    def _load_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.append(dict(zip(map(_text, items[::2]), items[1::2], strict=True)))  # type: ignore[attr-defined]

    def _load_setitem(self) -> None:
        _text(self.stack[-2])  # type: ignore[attr-defined]
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]

    def _load_setitems(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self.stack[-1].update(zip(map(_text, items[::2]), items[1::2], strict=True))  # type: ignore[attr-defined]


def read_pickle(path: Path, *, hint: str) -> dict[str, Any]:
    """Return the dict that a pickle holds; what Python 2 wrote as bytes is text.

    Args:
        hint: how to get the file.

    Raises:
        MissingError: it is not there.
        DataError: it is damaged, too large, or holds or asks for anything else.
    """
    data = _read(path, hint)
    try:
        found = _Unpickler(data).load()
    except BROKEN as error:
        raise DataError(f"{path}: is damaged ({error or type(error).__name__})", hint=hint) from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__} where a dict is expected", hint=hint)
    return {name: value.array if isinstance(value, _Array) else value for name, value in found.items()}


def _read(path: Path, hint: str) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for its other end
            raise DataError(f"{path}: is no file", hint=hint)
        if found.st_size > MAX_BYTES:
            raise DataError(f"{path}: {found.st_size:,} bytes, more than {MAX_BYTES:,}", hint=hint)
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path}: there is no such file", hint=hint) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})", hint=hint) from None
