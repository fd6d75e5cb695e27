"""Forms of nouns: the words, plurals among them, that WordNet's lookup takes for a synset's first sense.

The lookup, morphy(7WN), takes a word as it is, then by a list of exceptions, else by rules for endings. Here the rules
are run backwards once, so that looking up many words is a join. `noun_exceptions.csv` is the file `noun.exc` of
WordNet 3.0: a form, then its nouns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cache

from curate.wordnet.tables import data_path, table_path

# Ending of a form → ending of the noun, in the order in which they are tried.
RULES = (
    *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
    *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
)


def forms_of(wnids: Iterable[str]) -> list[str]:
    """Return every form whose first noun sense is one of the synsets: in lower case, spaces as underscores."""
    wanted = set(wnids)
    return [form for form, wnid in _first_senses().items() if wnid in wanted]


@cache
def _first_senses() -> dict[str, str]:
    """Return form → the synset that is looked up first."""
    nouns, exceptions = _nouns(), _exceptions()
    plurals = (
        noun[: len(noun) - len(end)] + ending for ending, end in RULES for noun in nouns if noun.endswith(end)
    )
    found = dict(nouns)
    for form in dict.fromkeys([*exceptions, *plurals]):
        if form not in nouns:
            bases = exceptions.get(form) or [
                form.removesuffix(ending) + end for ending, end in RULES if form.endswith(ending)
            ]
            wnid = next((nouns[base] for base in bases if base in nouns), None)
            if wnid is not None:
                found[form] = wnid
    return found


def _nouns() -> dict[str, str]:
    """Return lemma → its first synset."""
    import duckdb

    with duckdb.connect() as con:
        return dict(
            con.execute(
                "SELECT replace(lower(lemma), ' ', '_') AS noun, wnid FROM (SELECT wnid, unnest(lemmas) AS lemma, "
                "unnest(senses) AS sense FROM read_parquet(?)) WHERE sense = 1 ORDER BY noun",
                [str(table_path())],
            ).fetchall()
        )


def _exceptions() -> dict[str, list[str]]:
    with data_path("noun_exceptions.csv").open(newline="", encoding="utf-8") as stream:
        return {row["form"]: row["nouns"].split() for row in csv.DictReader(stream)}
