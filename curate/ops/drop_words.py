"""Make captions incomplete."""

from curate.captions.texts import LIST, let, spoilt
from curate.ops import op
from curate.recipes.signatures import Fraction, Seed
from curate.rows.chance import chance_sql
from curate.rows.relation import Rows


@op(version=2)
def drop_words(rows: Rows, *, rate: Fraction, seed: Seed) -> Rows:
    """Drop exactly a share of the words of every text, by chance: of the caption, and of each of the list `captions`.

    The others keep their order, and at least one stays. `clean_caption` and `clean_captions` keep the whole texts,
    unless an earlier step has put texts there. Draws nest: with one seed, the words that are dropped at one rate are
    dropped at every higher one. White space separates words.

    Args:
        rate: share of each text's words, in [0, 1]; the count is rounded to the nearest word, halves up.

    Example:
        drop_words: {rate: 0.4}
    """
    chance = chance_sql(
        seed, "drop_words", "key || ':' || i::VARCHAR"
    )  # of a word's place, whatever the text
    texts = f"list_append({LIST}, caption)" if LIST in rows.columns else "[caption]"
    most = f"coalesce(list_max(list_transform({texts}, lambda one_text: len({_words('one_text')}))), 0)"
    chances = f"list_transform(range(1, {most} + 1), lambda i: {chance})"
    ranked = rows.sql(f"SELECT *, {chances} AS _chances FROM {rows}")
    spoilt_rows = spoilt(ranked, lambda text: _left(text, rate))
    return spoilt_rows.sql(f"SELECT * EXCLUDE (_chances) FROM {spoilt_rows}")


def _words(text: str) -> str:
    return rf"string_split_regex(trim({text}), '\s+')"


def _left(text: str, rate: float) -> str:
    """Return SQL for a text without the words of the least chances."""
    number = f"least(floor(len(words) * {rate!r}::DOUBLE + 0.5), len(words) - 1)::INTEGER"
    gone = f"list_grade_up(_chances[:len(words)])[:{number}]"
    kept = "array_to_string(list_filter(words, lambda _, place: NOT list_contains(gone, place)), ' ')"
    return let("words", _words(text), let("gone", gone, f"if(len(gone) > 0, {kept}, {text})"))
