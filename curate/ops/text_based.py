"""Keep pairs whose caption names a thing of ImageNet-21k."""

from typing import Literal

from curate.captions.texts import words_sql
from curate.ops import op
from curate.ops.filter import Reasons, first_reason, language_reasons
from curate.rows.relation import Rows
from curate.wordnet.forms import forms_of
from curate.wordnet.lists import wnids_of


@op(version=1)
def text_based(rows: Rows, *, language: str = "en", keep: Literal["drop", "flag"] = "drop") -> Rows:
    """Keep captions with a word whose first sense in WordNet is one of ImageNet-21k's 21,841 synsets.

    White space separates words; case does not matter, and a plural counts too. A comma after a word hides the word, as
    in the original. A word that is a noun and a verb counts as the noun. Only `caption` is read, not the other texts of
    a list `captions`.

    Args:
        language: ISO 639-1 code that the column `language` must also have; `any` ignores the language.
        keep: drop the other rows, or flag them: keep them all and give the reason in the column `rejected`.

    Example:
        text_based: {language: any, keep: flag}

    Source: Gadre et al. 2023 (DataComp), https://arxiv.org/abs/2304.14108, section 4.1: the baseline `text_based` of
    https://github.com/mlfoundations/datacomp.
    """
    reasons: Reasons = [("caption IS NULL", "no caption")]
    if language != "any":
        reasons = language_reasons(rows, language)
    known = rows.lookup({"form": ("VARCHAR", forms_of(wnids_of("imagenet-21k")))})
    named = (
        f"SELECT key FROM (SELECT key, unnest({words_sql('lower(caption)')}) AS word FROM {rows}) "
        f"WHERE word IN (SELECT form FROM {known})"
    )
    reasons.append((f"key NOT IN ({named})", "no word of ImageNet-21k"))
    return rows.reject(first_reason(reasons), keep=keep)
