"""Side fields in tars: untrusted `.cls`, `.txt` and `.json` members beside an image."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

SIDE_FIELDS = ("cls", "txt", "json")
MAX_FIELD_BYTES = 1 << 20
TOO_LONG = "over 1 MiB"
NOT_UTF8 = "not UTF-8"


class Nested(str):
    """A list or an object of a `.json`, as JSON."""


class FieldReader:
    """Read side fields one after the other; not safe for threads.

    Attributes:
        faults: of the field that was read last, in the words of the ledger, such as "not UTF-8".
    """

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(parse_constant=self._no_number, object_pairs_hook=self._object)
        self.faults: list[str] = []

    def read(self, extension: str, data: bytes) -> Any:
        """Return the value of a field: a text, or the columns of a `.json`; None if it cannot be read.

        Columns are in lower case, because names in SQL have no case. Values are texts, numbers, booleans and `Nested`.

        Args:
            extension: one of SIDE_FIELDS.
        """
        if self.faults:
            self.faults = []
        try:
            return data.decode().removeprefix("\ufeff") if extension != "json" else self._columns(data)
        except UnicodeDecodeError:
            self.faults = [NOT_UTF8]
        except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, a thousand brackets
            self.faults = ["that is no JSON"]
        return None

    def _columns(self, data: bytes) -> dict[str, Any] | None:
        document = self._decoder.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
        if not isinstance(document, dict):
            self._fault("that is no object")
            return None
        columns = {
            column_name(k): v
            if isinstance(v, int) or (isinstance(v, str) and v.isascii())
            else self._value(v)
            for k, v in document.items()
        }
        if len(columns) < len(document):
            self._fault("with a name twice")
        if None in columns:
            del columns[None]
            self._fault("with half a character")
        return columns  # type: ignore[return-value]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            if is_unicode(value):
                return value
        elif isinstance(value, float):
            if value - value == 0:
                return value
            self._fault("with a number that is none")  # 1e999 is infinite
            return None
        elif value is None:
            return None
        else:
            nested = json.dumps(value)
            if "\\ud" not in nested or is_unicode(json.dumps(value, ensure_ascii=False)):
                return Nested(nested)
        self._fault("with half a character")
        return None

    def _fault(self, what: str) -> None:
        if what not in self.faults:
            self.faults.append(what)

    def _no_number(self, _: str) -> None:
        self._fault("with a number that is none")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            self._fault("with a name twice")
        return values


@lru_cache(maxsize=1024)
def column_name(name: str) -> str | None:
    """Return the column of a name in a `.json`; None if it is no valid Unicode."""
    return name.lower() if is_unicode(name) else None


def is_unicode(text: str) -> bool:
    """Tell whether a text is valid Unicode: JSON may have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
