"""Maps from classes to coarser ones: those of a CSV file, and the published ones that have a name."""

from __future__ import annotations

import itertools

from curate.errors import RecipeError, reject_unknown
from curate.rows.readers.dialects import lines_of
from curate.rows.relation import Rows, class_ids

# The superclasses of CIFAR-100, Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, as its archive
# spells them.
CIFAR100 = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
NAMED = {"cifar100-20": {fine: coarse for coarse, those in CIFAR100.items() for fine in those.split()}}


def by_pairs(rows: Rows, pairs: dict[str, str]) -> list[str | None]:
    """Return the new class of each old label under a map whose classes the source must all have.

    Raises:
        RecipeError: the map is empty, names an unknown class, or one class twice.
    """
    if not pairs:
        raise RecipeError("the map is empty", hint="name at least one class: `map: {n02084071: dog}`")
    labels = class_ids(rows, list(pairs), where="map")
    targets: dict[int, str] = {}
    for label, new in zip(labels, pairs.values(), strict=True):
        if targets.setdefault(label, new) != new:
            raise RecipeError(
                f"{rows.classes[label].id!r} is mapped twice, to {targets[label]!r} and {new!r}",
                hint=f"it is also called {rows.classes[label].name!r}; keep one of the two",
            )
    return [targets.get(i) for i in range(len(rows.classes))]


def by_name(rows: Rows, name: str) -> list[str | None]:
    """Return the new class of each old label under a published map, by class name; the source may lack some.

    Raises:
        RecipeError: no map has this name.
    """
    hint = f"there is {', '.join(NAMED)}; `file` takes your own"
    reject_unknown(name, NAMED, f"no map {name!r}", hint=hint)
    found = NAMED[name]
    return [found.get(c.name.replace(" ", "_").lower()) for c in rows.classes]


def read(path: str) -> dict[str, str]:
    """Return the map of a CSV: old and new class in its first two columns, one header line.

    Raises:
        RecipeError: it has lines of one column, or maps a class twice.
        DataError: a line is no row.
    """
    pairs: dict[str, str] = {}
    for number, line in itertools.islice(lines_of(path), 1, None):
        if len(line) < 2:
            raise RecipeError(
                f"{path}, line {number}: two columns are needed, old and new class; got {line!r}"
            )
        if pairs.setdefault(line[0], line[1]) != line[1]:
            raise RecipeError(
                f"{path}, line {number}: {line[0]!r} is mapped twice, to {pairs[line[0]]!r} and {line[1]!r}"
            )
    return pairs
