"""Language detectors: functions from a text to the code of its language, loaded at the first text."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

from curate.errors import DataError, MissingError, RecipeError

Detect = Callable[[str], str]
_names = itertools.count()


def detector(name: str, model: str | None) -> Callable[[], Detect]:
    """Return a function that loads a detector, once.

    Args:
        name: py3langid, fasttext or gcld3.
        model: fasttext's model file; None for the others.

    Raises:
        RecipeError: fasttext has no model, or another detector has one.
        MissingError: the package is not installed.
    """
    if (name == "fasttext") != (model is not None):
        raise RecipeError(
            f"detector {name} {'needs a `model`' if model is None else 'takes no `model`'}",
            hint="fasttext's lid.176.bin is at https://fasttext.cc/docs/en/language-identification.html",
        )
    if importlib.util.find_spec(name) is None:
        extra = "curate-train[language]" if name == "py3langid" else name
        raise MissingError(f"{name} is not installed", hint=f"pip install '{extra}'")
    return cache(lambda: OPENERS[name](model))


def register(con: Any, open_detector: Callable[[], Detect]) -> str:
    """Register a detector as a function of a DuckDB connection and return its name; a blank text gives ''."""
    import pyarrow as pa

    def detect(texts: Any) -> Any:
        find = open_detector()
        lines = (" ".join(text.splitlines()).strip() for text in texts.to_pylist())  # fastText takes one line
        return pa.array([find(line) if line else "" for line in lines], pa.string())

    name = f"detect_language_{next(_names)}"
    con.create_function(name, detect, ["VARCHAR"], "VARCHAR", type="arrow")
    return name


def _py3langid(model: str | None) -> Detect:
    langid = importlib.import_module("py3langid")
    return lambda text: langid.classify(text)[0]


def _fasttext(model: str | None) -> Detect:
    fasttext = importlib.import_module("fasttext")
    try:
        loaded = fasttext.load_model(model)
    except ValueError as error:
        raise DataError(f"{model}: not a fastText model ({error})") from None
    # `predict` itself fails under NumPy 2 (fasttext 0.9.3); what it wraps does not.
    return lambda text: loaded.f.predict(text + "\n", 1, 0.0, "strict")[0][1].removeprefix("__label__")


def _gcld3(model: str | None) -> Detect:
    identifier = importlib.import_module("gcld3").NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
    return lambda text: identifier.FindLanguage(text=text).language


OPENERS: dict[str, Callable[[str | None], Detect]] = {
    "py3langid": _py3langid,
    "fasttext": _fasttext,
    "gcld3": _gcld3,
}
