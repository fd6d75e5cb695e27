"""Prompts: the names of a class, and the texts that templates make of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from typing import Literal

from curate.captions.templates import curated, texts
from curate.errors import RecipeError
from curate.rows.chance import chance_sql
from curate.rows.manifest import Class
from curate.rows.relation import Rows
from curate.wordnet import nouns

Names = Literal["lemma", "curated", "synonyms", "hypernym", "gloss", "class"]
EXAMPLES = re.compile('[;:] "')  # what a gloss's definition ends with, where examples follow


def definition(wnid: str) -> str:
    """Return the gloss of a synset without its examples."""
    return EXAMPLES.split(nouns().gloss(wnid))[0].strip("; ")


def class_names(classes: Sequence[Class], names: Names) -> list[list[str]]:
    """Return the names of each class, of a kind.

    Raises:
        RecipeError: some classes have no name of this kind; the message shows three.
        MissingError: see `curated`.
    """
    if names in ("class", "lemma", "synonyms"):
        made = {"class": _own, "lemma": lambda c: _lemmas(c)[:1], "synonyms": _lemmas}[names]
        return [made(c) for c in classes]
    chosen = curated() if names == "curated" else {}
    known: Container[object] = chosen or nouns()
    without = [c.id for c in classes if c.wnid not in known]
    if without:
        source = "ImageNet's 1,000" if names == "curated" else "the synsets of WordNet"
        raise RecipeError(
            f"{len(without):,} of {len(classes):,} classes are not among {source} "
            f"(such as {', '.join(without[:3])})",
            hint="`names: lemma` or `names: class` has a name for every class",
        )
    naming: dict[str, Callable[[str], str]] = {
        "curated": lambda wnid: chosen[wnid],
        "hypernym": _with_parent,
        "gloss": lambda wnid: f"{nouns().name(wnid)}, {definition(wnid)}",
    }
    return [[naming[names](c.wnid or "")] for c in classes]


def _own(known: Class) -> list[str]:
    return [known.name]


def _lemmas(known: Class) -> list[str]:
    return list(nouns().lemmas(known.wnid)) if known.wnid and known.wnid in nouns() else _own(known)


def _with_parent(wnid: str) -> str:
    parents = nouns().parents(wnid)
    return f"{nouns().name(wnid)}, a kind of {nouns().name(parents[0])}" if parents else nouns().name(wnid)


def add_prompts(
    rows: Rows, templates: Sequence[str] | str, names: Names, seed: int, *, alternatives: bool = False
) -> Rows:
    """Return the rows with a prompt, a template filled with a name of their class, in the column `_made`.

    Template and name are drawn by chance, independently. The column `template` has the template's number.

    Args:
        alternatives: add the column `_all`: all prompts of the class, in the order of templates and then of names.
    """
    rows.require_labels()
    prompts, names_of = texts(templates), class_names(rows.classes, names)
    before, after = zip(*(t.split("{}") for t in prompts), strict=True)
    parts = {"_before": ("VARCHAR", before), "_after": ("VARCHAR", after)}
    prompt = rows.lookup({"_template": ("INTEGER", range(len(prompts))), **parts})
    name = rows.lookup({"_label": ("INTEGER", range(len(names_of))), "_names": ("VARCHAR[]", names_of)})
    drawn = rows.with_columns(template=f"({chance_sql(seed, 'caption')} % {len(prompts)})::INTEGER")
    pick = f"({chance_sql(seed, 'caption/name')} % len(_names))::INTEGER + 1" if names == "synonyms" else "1"
    # Left joins, though every row finds its partner: for inner ones DuckDB builds its hash table from all rows.
    made = drawn.sql(
        f"SELECT * EXCLUDE (_before, _after, _template, _names, _label), "
        f"_before || _names[{pick}] || _after AS _made "
        f"FROM {drawn} LEFT JOIN {prompt} ON template = _template LEFT JOIN {name} ON label = _label"
    )
    return _with_all(made, prompt, name) if alternatives else made


def _with_all(rows: Rows, prompt: str, name: str) -> Rows:
    """Return the rows with all prompts of their class, which are made once a class and not once a row."""
    every = rows.lookup({"_label": ("INTEGER", []), "_all": ("VARCHAR[]", [])})
    rows.con.execute(
        f"INSERT INTO {every} SELECT _label, list(_before || _name || _after ORDER BY _template, _n) FROM "
        f"(SELECT _label, generate_subscripts(_names, 1) AS _n, unnest(_names) AS _name FROM {name}), {prompt} "
        f"GROUP BY _label"
    )
    return rows.sql(f"SELECT r.*, _all FROM {rows} r LEFT JOIN {every} ON label = _label")
