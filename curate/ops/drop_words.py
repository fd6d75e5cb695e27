"""Make captions incomplete."""

from curate.chance import chance_sql
from curate.ops import op
from curate.rows import Rows
from curate.signatures import Fraction, Seed
from curate.wordings import kept_clean


@op(version=1)
def drop_words(rows: Rows, *, rate: Fraction, seed: Seed) -> Rows:
    """Drop exactly a share of the words of every caption, by chance.

    The others keep their order, and at least one stays. The whole caption stays in `clean_caption`, unless an
    earlier step has put one there. Draws nest: with one seed, the words that are dropped at one rate are dropped
    at every higher one. Words are what white space divides.

    Args:
        rate: share of each caption's words, in [0, 1]; the count is rounded to the nearest word, halves up.

    Example:
        drop_words: {rate: 0.4}
    """
    chance = chance_sql(seed, "drop_words", "key || ':' || i::VARCHAR")
    counted = rows.sql(rf"SELECT *, string_split_regex(trim(caption), '\s+') AS _words FROM {rows}")
    order = f"list_grade_up(list_transform(range(1, len(_words) + 1), lambda i: {chance}))"
    number = f"least(floor(len(_words) * {rate!r}::DOUBLE + 0.5), len(_words) - 1)::INTEGER"
    ranked = counted.sql(f"SELECT *, {order}[:{number}] AS _gone FROM {counted}")
    left = "array_to_string(list_filter(_words, lambda w, i: NOT list_contains(_gone, i)), ' ')"
    told = kept_clean(ranked, f"if(len(_gone) > 0, {left}, caption)")
    return told.sql(f"SELECT * EXCLUDE (_words, _gone) FROM {told}")
