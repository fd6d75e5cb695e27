"""Draw the same number of images from every class."""

from typing import Literal

from curate.errors import DataError
from curate.ops import op
from curate.recipes.signatures import Count, Seed
from curate.rows.first_rows import marked_rows
from curate.rows.quotas import SALT, UNLABELLED, mark, strata
from curate.rows.relation import Rows, keep_classes


@op(version=1)
def per_class(
    rows: Rows, *, images: Count, short: Literal["error", "keep", "drop"] = "error", seed: Seed
) -> Rows:
    """Draw exactly so many images of every class, by chance.

    Draws nest: with one seed, 250 a class are inside 500 a class. Rows without a label are dropped.

    Args:
        images: images a class.
        short: what to do with a class that has fewer: refuse the build, keep all it has, or drop the class.

    Example:
        per_class: {images: 1}

    Source: Huh et al. 2016, https://arxiv.org/abs/1608.08614, section 3.
    """
    few = rows.con.execute(
        f"SELECT label, count(*) FROM {rows} WHERE label IS NOT NULL "
        f"GROUP BY label HAVING count(*) < {images} ORDER BY label"
    ).fetchall()
    if few and short == "error":
        examples = ", ".join(f"{rows.classes[label].id} has {count}" for label, count in few[:3])
        raise DataError(
            f"{len(few)} classes have fewer than {images} images ({examples})",
            hint="`short: keep` takes all they have, `short: drop` leaves these classes out",
        )
    wanted = {label: images for label in strata(rows) if label != UNLABELLED}
    drawn = marked_rows(mark(rows, "_drawn", wanted, seed, SALT), "_drawn")
    if few and short == "drop":
        dropped = {label for label, _ in few}
        return keep_classes(drawn, [i for i in range(len(rows.classes)) if i not in dropped])
    return (
        drawn.noted(f"{len(few):,} classes have fewer than {images:,} images and keep all") if few else drawn
    )
