"""Write captions from class names."""

from curate.chance import chance_sql
from curate.ops import op
from curate.rows import Rows
from curate.signatures import Seed
from curate.templates import named, parse
from curate.wordnet import nouns


@op(version=1)
def caption(rows: Rows, *, templates: list[str] | str, seed: Seed) -> Rows:
    """Give every row a caption: a template, drawn by chance, around the name of its class.

    The caption follows the label as it is at this step: after `noise`, a wrong label gives a wrong caption.
    `template` keeps the number of the template, from 0.

    Args:
        templates: texts with `{}` where the class name goes, or a named set: `openai-80` (the prompts that
            CLIP used for ImageNet, as open_clip ships them).

    Example:
        caption: {templates: ["a photo of a {}.", "art of the {}."]}

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1.4.
    """
    texts = named(templates) if isinstance(templates, str) and "{" not in templates else parse(templates)
    rows.require_labels()
    names = [nouns().name(c.wnid) if c.wnid and c.wnid in nouns() else c.name for c in rows.classes]
    before, after = zip(*(t.split("{}") for t in texts), strict=True)
    prompt = rows.lookup(
        {"t": ("INTEGER", range(len(texts))), "before": ("VARCHAR", before), "after": ("VARCHAR", after)}
    )
    name = rows.lookup({"l": ("INTEGER", range(len(names))), "name": ("VARCHAR", names)})
    drawn = rows.with_columns(template=f"({chance_sql(seed, 'caption')} % {len(texts)})::INTEGER")
    joined = drawn.sql(
        f"SELECT r.*, before || name || after AS made FROM {drawn} r "
        f"JOIN {prompt} ON template = t JOIN {name} ON label = l"
    )
    made = joined.with_columns(caption="made")
    return made.sql(f"SELECT * EXCLUDE (made) FROM {made}")
