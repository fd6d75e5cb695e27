"""Drop pairs whose text or image looks poor."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from curate.captions.texts import words_sql
from curate.errors import RecipeError
from curate.ops import op
from curate.recipes.signatures import Count
from curate.rows.relation import Rows
from curate.rows.sql import quoted, text

PRESETS: dict[str, dict[str, Any]] = {
    "basic": {"language": "en", "min_words": 3, "min_characters": 6, "min_side": 200, "max_aspect": 3.0},
    "laion2b": {"language": "en", "min_similarity": 0.28},
}


@op(version=1, streams=True)
def filter(
    rows: Rows,
    *,
    preset: Literal["basic", "laion2b"] | None = None,
    language: str | None = None,
    min_words: Count | None = None,
    max_words: Count | None = None,
    min_characters: Count | None = None,
    min_side: Count | None = None,
    max_aspect: Annotated[float, Field(ge=1)] | None = None,
    min_similarity: float | None = None,
    similarity: str = "similarity",
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Drop image-text pairs by simple rules, each with its first reason, in the order of the options.

    A missing value (no caption, no size, no score) is a reason of its own, if a rule needs it. White space separates
    words. The ledger counts the rows by reason. Rules read only `caption`, not the other texts of a list `captions`.

    Args:
        preset: basic (English, at least 3 words and 6 characters, shorter side at least 200, aspect at most 3) or
            laion2b (English, similarity at least 0.28, to be that of CLIP ViT-B/32). Other options that are
            given replace the preset's.
        language: ISO 639-1 code that the column `language` must have; the step `language` makes that column.
        min_words: fewest words of a caption.
        max_words: most words of a caption.
        min_characters: fewest characters of a caption.
        min_side: least length of the image's shorter side, in pixels.
        max_aspect: greatest ratio of the longer to the shorter side.
        min_similarity: least similarity of image and caption.
        similarity: the column with the similarity.
        keep: drop the rows, or flag them: keep them all and give the reason in the column `rejected`.

    Example:
        filter: {preset: basic, keep: flag}

    Source: Gadre et al. 2023 (DataComp), https://arxiv.org/abs/2304.14108, section 4.1: `basic_filter` and
    `laion2b` of https://github.com/mlfoundations/datacomp, which detect English by fastText and by gcld3.
    """
    given = {
        **{"language": language, "min_words": min_words, "max_words": max_words},
        **{"min_characters": min_characters, "min_side": min_side, "max_aspect": max_aspect},
        "min_similarity": min_similarity,
    }
    rules = PRESETS.get(preset or "", {}) | {k: v for k, v in given.items() if v is not None}
    if not rules:
        raise RecipeError("filter has no rule", hint="`preset: basic`, or rules such as `min_words: 3`")
    if rules.get("min_words", 0) > rules.get("max_words", float("inf")):
        raise RecipeError(f"min_words {rules['min_words']} is above max_words {rules['max_words']}")
    reasons = [
        *(language_reasons(rows, rules["language"]) if "language" in rules else []),
        *_caption_reasons(rules),
        *_image_reasons(rules),
        *(similarity_reasons(rows, similarity, rules["min_similarity"]) if "min_similarity" in rules else []),
    ]
    return rows.reject(first_reason(reasons), keep=keep)


Reasons = list[tuple[str, str]]  # SQL condition → the reason where it is true; an earlier one goes first


def first_reason(reasons: Reasons) -> str:
    """Return a SQL expression: the reason of the first condition that is true, or NULL."""
    return f"CASE {' '.join(f'WHEN {condition} THEN {text(reason)}' for condition, reason in reasons)} END"


def language_reasons(rows: Rows, language: str) -> Reasons:
    """Refuse captions in other languages.

    Raises:
        RecipeError: the rows have no column `language`.
    """
    rows.require("language", hint="run the step `language` first: it detects the language of each caption")
    return [
        ("caption IS NULL", "no caption"),
        ("language IS NULL", "language unknown"),
        (f"language <> {text(language)}", f"language is not {language}"),
    ]


def similarity_reasons(rows: Rows, column: str, least: float) -> Reasons:
    """Refuse similarities below a threshold, compared at the precision that the column has.

    Raises:
        RecipeError: the rows have no such column.
    """
    unknown = unknown_score(rows, column)
    kind = rows.columns[column] if rows.columns[column] in ("FLOAT", "DOUBLE") else "DOUBLE"
    return [
        (unknown, f"no {column}"),
        (f"{quoted(column)}::{kind} < {least!r}::{kind}", f"{column} below {least:g}"),
    ]


def unknown_score(rows: Rows, column: str) -> str:
    """Return a SQL condition: the score is NULL or not a number.

    Raises:
        RecipeError: the rows have no such column.
    """
    rows.require(column, hint="`join` brings scores from a table, by key")
    return f"({quoted(column)} IS NULL OR isnan({quoted(column)}::DOUBLE))"


def _caption_reasons(rules: dict[str, Any]) -> Reasons:
    checks = {
        "min_words": ("len({words}) < {n}", "fewer than {n} words"),
        "max_words": ("len({words}) > {n}", "more than {n} words"),
        "min_characters": ("length(caption) < {n}", "fewer than {n} characters"),
    }
    asked = [name for name in checks if name in rules]
    reasons: Reasons = [("caption IS NULL", "no caption")] if asked else []
    for name in asked:
        condition, reason = checks[name]
        n = rules[name]
        reasons.append((condition.replace("{words}", words_sql()).replace("{n}", str(n)), reason.format(n=n)))
    return reasons


def _image_reasons(rules: dict[str, Any]) -> Reasons:
    reasons: Reasons = []
    if "min_side" in rules or "max_aspect" in rules:
        reasons.append(("(width > 0 AND height > 0) IS NOT TRUE", "size unknown"))
    if side := rules.get("min_side"):
        reasons.append((f"least(width, height) < {side}", f"side below {side} px"))
    if aspect := rules.get("max_aspect"):
        longer = "greatest(width, height)::DOUBLE / least(width, height)"
        reasons.append((f"{longer} > {aspect!r}::DOUBLE", f"aspect above {aspect:g}"))
    return reasons
