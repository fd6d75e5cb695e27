"""Cut captions short."""

from curate.captions.texts import let, spoilt
from curate.errors import RecipeError
from curate.ops import op
from curate.recipes.signatures import Count
from curate.rows.relation import Rows


@op(version=2)
def truncate(rows: Rows, *, words: Count | None = None, characters: Count | None = None) -> Rows:
    """Keep the first words or characters of every text: of the caption, and of each of the list `captions`.

    A shorter text stays as it is. `clean_caption` and `clean_captions` keep the whole texts, unless an earlier step has
    put texts there.

    Args:
        words: how many, separated by white space; a cut text has one space between words.
        characters: how many, instead; a space at the end of a cut text is dropped.

    Example:
        truncate: {words: 3}
    """
    if (words is None) == (characters is None):
        raise RecipeError("truncate takes either `words` or `characters`")
    if characters is not None:
        return spoilt(
            rows, lambda text: f"if(length({text}) > {characters}, rtrim(left({text}, {characters})), {text})"
        )

    def cut(text: str) -> str:
        fewer = f"if(len(found) > {words}, array_to_string(found[:{words}], ' '), {text})"
        return let("found", rf"string_split_regex(trim({text}), '\s+')", fewer)

    return spoilt(rows, cut)
