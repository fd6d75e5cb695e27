"""Write captions from class names."""

from curate.captions.prompts import Names, add_prompts
from curate.captions.texts import replaced
from curate.ops import op
from curate.recipes.signatures import Seed
from curate.rows.relation import Rows


@op(version=2)
def caption(
    rows: Rows,
    *,
    templates: list[str] | str,
    names: Names = "lemma",
    alternatives: bool = False,
    seed: Seed,
) -> Rows:
    """Give every row a caption: a template, drawn by chance, around the name of its class.

    The caption follows the label as it is at this step: after `noise`, a wrong label gives a wrong caption.
    `template` holds the number of the template, from 0. All earlier texts of a row are dropped, also the list
    `captions` and those before any noise.

    Args:
        templates: texts with `{}` where the class name goes, or a named set: `openai-80` (the prompts that
            CLIP used for ImageNet, as open_clip ships them).
        names: what the class is called: lemma (its first word in WordNet), curated (the names that OpenAI gave
            ImageNet's 1,000 classes), synonyms (one of its words in WordNet, by chance), hypernym ("tabby, a kind
            of domestic cat"), gloss (the first word and the definition) or class (its name in this set). A class
            that is not a synset keeps its name in this set for lemma and synonyms; the others refuse it.
        alternatives: whether to add all texts that a row may have as a list, `captions`, from which training can
            draw anew every epoch. With 80 templates the manifest of 1.28 M rows grows from 27 to 223 MB, and every
            step and the writing take a minute longer: use it in the last step.

    Example:
        caption: {templates: ["a photo of a {}.", "art of the {}."], names: synonyms}

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1.4.
    """
    made = add_prompts(rows, templates, names, seed, alternatives=alternatives)
    captioned = replaced(made, "_made", "_all" if alternatives else None)
    return captioned.sql(f"SELECT * EXCLUDE (_made{', _all' if alternatives else ''}) FROM {captioned}")
