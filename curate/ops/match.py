"""Label rows by what their text says."""

from typing import Literal

from curate.captions.prompts import class_names
from curate.errors import RecipeError, reject_unknown
from curate.ops import op
from curate.rows.manifest import Class
from curate.rows.relation import Rows
from curate.rows.sql import quoted
from curate.wordnet import nouns, unique_names
from curate.wordnet.lists import wnids_of

REASONS = {-1: "names no class", -2: "names several classes"}


@op(version=1)
def match(
    rows: Rows,
    *,
    classes: list[str] | str,
    columns: list[str] = ["caption"],  # noqa: B006 - a recipe's default, which nothing changes
    names: Literal["lemmas", "curated"] = "lemmas",
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Give each row the class whose name, or a synonym of it, is in its text, if there is exactly one.

    Names match whole words: case does not matter, anything but letters and digits is a space, and "dogs" does not
    name a dog. "Tiger shark" also names the tiger, and a word that two classes share names both. The classes become
    those of the set, in the order given; a label that a row had is replaced.

    Args:
        classes: wnids, senses (`dog.n.01`) or words with one meaning, or a named list: `imagenet-1k`.
        columns: where to look: texts, or lists of texts such as tags.
        names: lemmas (all words that WordNet has for the class) or curated (the one name that OpenAI gave each of
            ImageNet's 1,000 classes).
        keep: drop the rows that name no class or several, or keep them without a label and flag them in `rejected`.

    Example:
        match: {classes: [cat.n.01, mat.n.01, sports car], columns: [caption], keep: flag}

    Source: Fang et al. 2022, https://arxiv.org/abs/2205.01397: YFCC-15M-Cls.
    """
    wnids = list(wnids_of(classes)) if isinstance(classes, str) else [nouns().resolve(c) for c in classes]
    if not wnids or not columns:
        raise RecipeError(f"{'columns' if wnids else 'classes'}: the list is empty")
    for column in columns:
        message = f"the rows have no column {column!r}"
        reject_unknown(column, rows.columns, message, hint="`join` brings columns from a table")
    if "clean_label" in rows.columns:
        raise RecipeError(
            "true labels (column clean_label) would lose their classes", hint="match before `noise`"
        )
    known = [Class(name, wnid) for name, wnid in zip(unique_names(wnids), wnids, strict=True)]
    words = class_names(known, "synonyms" if names == "lemmas" else "curated")
    matches = _found(rows, columns, _phrases(rows, words))
    label = "CASE WHEN _several THEN -2 ELSE coalesce(_found, -1) END"
    chosen = ", ".join(f"{label} AS label" if c == "label" else f"r.{quoted(c)}" for c in rows.columns)
    judged = rows.sql(f"SELECT {chosen} FROM {rows} r LEFT JOIN {matches} f ON r.key = f.key", classes=known)
    cases = " ".join(f"WHEN {code} THEN '{reason}'" for code, reason in REASONS.items())
    left = judged.reject(f"CASE label {cases} END", keep=keep)
    return left.with_columns(label="if(label < 0, NULL, label)") if keep == "flag" else left


def _plain(text: str) -> str:
    """Return SQL for the words of a text with one space before, between and after; | divides texts."""
    plain = rf"regexp_replace(replace(lower({text}), '|', ' | '), '[^\p{{L}}\p{{M}}\p{{N}}|]+', ' ', 'g')"
    return f"' ' || trim({plain}) || ' '"


def _phrases(rows: Rows, words: list[list[str]]) -> str:
    """Return a table of the names, each with the word of it that the fewest names have, to join by."""
    pairs = [(label, word) for label, those in enumerate(words) for word in those]
    given = rows.lookup(
        {"label": ("INTEGER", [p[0] for p in pairs]), "name": ("VARCHAR", [p[1] for p in pairs])}
    )
    table = rows.lookup({"_label": ("INTEGER", []), "_phrase": ("VARCHAR", []), "_anchor": ("VARCHAR", [])})
    rows.con.execute(
        f"INSERT INTO {table} SELECT label, phrase, arg_min(word, (often, -length(word), word)) FROM "
        f"(SELECT *, count(*) OVER (PARTITION BY word) AS often FROM (SELECT *, unnest(string_split(trim(phrase), ' '))"
        f" AS word FROM (SELECT DISTINCT label, {_plain('name')} AS phrase FROM {given}))) GROUP BY label, phrase"
    )
    return table


def _found(rows: Rows, columns: list[str], phrases: str) -> str:
    """Return a query of the rows that name a class: key, the class, and whether there are several.

    No text is held against every name: a word of the text finds the few names that it is the anchor of.
    """
    lists = [c for c in columns if rows.columns[c].endswith("[]")]
    parts = [
        f"array_to_string({quoted(c)}::VARCHAR[], ' | ')" if c in lists else f"{quoted(c)}::VARCHAR"
        for c in columns
    ]
    text = f"concat_ws(' | ', {', '.join(parts)})"
    texts = f"SELECT key, {_plain(text)} AS _text FROM {rows}"
    words = f"SELECT key, _text, unnest(list_distinct(string_split(_text, ' '))) AS _word FROM ({texts})"
    return (
        f"(SELECT key, min(_label) AS _found, min(_label) <> max(_label) AS _several FROM ({words}) "
        f"JOIN {phrases} ON _word = _anchor WHERE contains(_text, _phrase) GROUP BY key)"
    )
