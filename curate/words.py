"""Words of captions in SQL: what white space divides, exactly as Python's `str.split` sees white space."""

from __future__ import annotations

from curate.manifests import text

# RE2's \s knows six of them.
SPACES = r"\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"


def words_sql(column: str = "caption") -> str:
    """Return a DuckDB expression (VARCHAR[]) of the words of a column, in order; NULL of NULL."""
    return f"regexp_extract_all({column}, {text(f'[^{SPACES}]+')})"
