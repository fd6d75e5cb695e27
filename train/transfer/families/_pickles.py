"""Read pickles that hold numbers and text, and nothing that could run."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import DataError, MissingError

# What any damaged pickle raises, seen by changing bytes of good ones.
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
)


def _dtype(name: Any, *_: object) -> np.dtype:
    """Return a dtype; NumPy warns of the numbers that older pickles give for `align` and `copy`."""
    return np.dtype(name)


def _encoded(text: str, encoding: str) -> bytes:
    """Return bytes as Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


_array = np.empty(0, np.uint8)
ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array.__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array.__reduce_ex__(5)[0] for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    """Makes arrays, dicts, lists, numbers and texts; knows no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no such file needs")
        return ALLOWED[module, name]


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
    return found
