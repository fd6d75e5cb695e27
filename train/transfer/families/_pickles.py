"""Read pickles that hold arrays, numbers and text, and nothing that could run.

NumPy's own unpickling is left out as well: a damaged file can make it crash the process.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curate.errors import DataError, MissingError

# What damaged pickles raise, found by changing bytes of good ones.
BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)
KINDS = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"}


class _Kind:
    """Stands for a dtype; the order of its bytes comes with its state."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in KINDS:
            raise pickle.UnpicklingError(f"an array of {name!r}")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"an array in the order {state[1]!r}")
        self.order = state[1]


class _Array:
    """Stands for an array until it has its bytes."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        self.fill(data, kind, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, kind: _Kind, shape: tuple, order: Any) -> _Array:
        """Make the array of its bytes, which Python 2 gives as text."""
        content = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))
        flat = np.frombuffer(content, np.dtype(kind.order + kind.name))
        self.array = flat.reshape(shape, order=order)
        return self


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: Any, kind: _Kind, shape: tuple, order: Any) -> _Array:
    return _Array().fill(data, kind, shape, order)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes as Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle._Unpickler):
    """Makes dicts, lists, numbers, texts and what is known; no other name.

    It is the one in Python, and does not take a length from the file as memory to set aside. That in C does.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def _load_bytearray(self) -> None:
        [size] = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(size)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no such file needs")
        return KNOWN[module, name]


def read_pickle(path: Path, *, hint: str) -> dict[str, Any]:
    """Return the dict that a pickle holds; what Python 2 wrote as bytes is text.

    Args:
        hint: how to get the file.

    Raises:
        MissingError: it is not there.
        DataError: it is damaged, or holds or asks for anything else.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path}: there is no such file", hint=hint) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})", hint=hint) from None
    try:
        found = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except BROKEN as error:
        raise DataError(f"{path}: is damaged ({error or type(error).__name__})", hint=hint) from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__} where a dict is expected", hint=hint)
    return {name: value.array if isinstance(value, _Array) else value for name, value in found.items()}
