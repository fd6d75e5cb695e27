"""Give classes the sizes of a long tail."""

from typing import Annotated, Literal

from pydantic import Field

from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.ops._labels.options import reject_unknown_options
from curate.recipes.signatures import Count, Seed
from curate.rows.quotas import by_chance, draw, sizes
from curate.rows.relation import Rows

Kind = Literal["pareto", "exponential", "step"]


@op(version=1)
def longtail(
    rows: Rows,
    *,
    kind: Kind,
    largest: Count,
    imbalance: Annotated[float, Field(ge=1)],
    alpha: Annotated[float, Field(gt=0)] | None = None,
    order: Literal["chance", "label", "size"] = "chance",
    short: Literal["error", "keep"] = "error",
    seed: Seed,
) -> Rows:
    """Draw images so that class sizes fall from `largest` to `largest / imbalance`.

    Draws nest in `largest`, and the images of a class are those that `per_class` draws. With 1,000 classes,
    pareto from 1,280 down to 5 has 117,137 images; ImageNet-LT, of the same law, whose authors drew the sizes
    at random, has 115,846. Rows without a label are dropped.

    Args:
        kind: pareto (ImageNet-LT: quantiles of the law that numpy calls pareto, at i / (classes + 1), scaled to
            `largest`, none below the smallest), exponential (CIFAR-LT: equal ratios from each class to the next)
            or step (the first half of the classes has `largest`, the others have the smallest); all rounded down.
        largest: images of the largest class.
        imbalance: images of the largest class over those of the smallest, at least 1.
        alpha: power of pareto, above 0; 6 by default.
        order: which class gets which size: by chance, by label (label 0 is the largest, as CIFAR-LT does), or by
            size (the larger classes of the set stay the larger ones).
        short: what to do with a class that has fewer images than its size: refuse the build, or keep all it has.

    Example:
        longtail: {kind: exponential, largest: 3, imbalance: 3, order: size, short: keep}

    Source: Liu et al. 2019, https://arxiv.org/abs/1904.05160 (pareto); Cao et al. 2019,
    https://arxiv.org/abs/1906.07413, `imbalance_cifar.py` of LDAM-DRW (exponential, step).
    """
    reject_unknown_options(f"kind: {kind}", ("alpha",) if kind == "pareto" else (), {"alpha": alpha})
    if not rows.classes:
        raise RecipeError("the source has no classes", hint="use a source with class folders or labels")
    wanted = tail(kind, len(rows.classes), largest, imbalance, 6 if alpha is None else alpha)
    if not wanted[-1]:
        raise RecipeError(
            f"the smallest class would have {largest} / {imbalance:g} images, which is less than 1",
            hint="a larger `largest`, or a smaller `imbalance`",
        )
    have = sizes(rows)
    ranked = list(range(len(have))) if order == "label" else by_chance(rows, seed, "longtail")
    if order == "size":
        ranked.sort(key=lambda label: -have[label])  # chance decides between classes of one size
    quotas = [size for _, size in sorted(zip(ranked, wanted, strict=True))]
    few = [label for label, quota in enumerate(quotas) if have[label] < quota]
    if few and short == "error" and not rows.planning:
        examples = ", ".join(f"{rows.classes[i].id} has {have[i]:,} of {quotas[i]:,}" for i in few[:3])
        raise DataError(
            f"{len(few):,} classes have fewer images than their place in the tail asks for ({examples})",
            hint="a smaller `largest`, `order: size`, or `short: keep`, which takes all they have",
        )
    return draw(rows, quotas, seed)


def tail(kind: Kind, classes: int, largest: int, imbalance: float, alpha: float) -> list[int]:
    """Return the sizes of so many classes, the largest first."""
    smallest = largest / imbalance
    if kind == "step":
        class_sizes = [float(largest) if i < classes / 2 else smallest for i in range(classes)]
    elif kind == "exponential":
        class_sizes = [largest * imbalance ** (-i / max(classes - 1, 1)) for i in range(classes)]
    else:
        quantiles = [((classes + 1) / i) ** (1 / alpha) - 1 for i in range(1, classes + 1)]
        class_sizes = [max(largest * quantile / quantiles[0], smallest) for quantile in quantiles]
    return [int(size + 1e-9) for size in class_sizes]  # 2490 * 249 ** -1 is less than 10
