"""Cut captions short."""

from curate.errors import RecipeError
from curate.ops import op
from curate.rows import Rows
from curate.signatures import Count
from curate.wordings import kept_clean


@op(version=1)
def truncate(rows: Rows, *, words: Count | None = None, characters: Count | None = None) -> Rows:
    """Keep the first words or characters of every caption.

    A shorter caption stays as it is. The whole one stays in `clean_caption`, unless an earlier step has put one
    there.

    Args:
        words: how many, as white space divides them; what is cut has one space between words.
        characters: how many, instead; a space at the end of what is cut goes.

    Example:
        truncate: {words: 3}
    """
    if (words is None) == (characters is None):
        raise RecipeError("truncate takes either `words` or `characters`")
    if characters is not None:
        return kept_clean(
            rows, f"if(length(caption) > {characters}, rtrim(left(caption, {characters})), caption)"
        )
    split = r"string_split_regex(trim(caption), '\s+')"
    cut = f"array_to_string({split}[:{words}], ' ')"
    return kept_clean(rows, f"if(len({split}) > {words}, {cut}, caption)")
