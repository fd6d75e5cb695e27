"""The generated classes: real ImageNet-1k wnids, drawn as families of look-alikes.

A family shares a silhouette, a palette and a scenery; its siblings differ in pattern, parts, counts
and proportions, as the painter of the family reads them from `pattern`, `count` and `stretch`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SyntheticClass:
    """One class that can be drawn.

    Attributes:
        id: the class's folder: an ImageNet-1k wnid.
        name: the first word of its WordNet synset.
        family: wnid of the WordNet ancestor that it shares with its siblings and with no other class.
        shape: painter of the family, a key of `PAINTERS`.
        pattern: what tells it from its siblings; the painter knows the words.
        count: how many of whatever the pattern repeats.
        stretch: length over the family's usual length.
        tint: shift of its usual hue from the family's, in turns of the colour circle.
    """

    id: str
    name: str
    family: str
    shape: str
    pattern: str
    count: int = 0
    stretch: float = 1.0
    tint: float = 0.0


FAMILIES: dict[str, str] = {
    "n02274259": "butterfly",
    "n01726692": "snake",
    "n02552171": "spiny-finned fish",
    "n02958343": "car",
    "n02858304": "boat",
    "n04338517": "stringed instrument",
    "n01662784": "turtle",
    "n02778669": "ball",
    "n02876657": "bottle",
}
"""Families of both sets, wnid to name. No one of them lies below another in WordNet."""

POOL: tuple[SyntheticClass, ...] = (
    SyntheticClass("n02276258", "admiral", "n02274259", "butterfly", "band", 1),
    SyntheticClass("n02277742", "ringlet", "n02274259", "butterfly", "eyespots", 3, tint=-0.02),
    SyntheticClass("n02279972", "monarch", "n02274259", "butterfly", "veins", 5),
    SyntheticClass("n02280649", "cabbage butterfly", "n02274259", "butterfly", "dots", 2, tint=0.03),
    SyntheticClass("n01728920", "ringneck snake", "n01726692", "snake", "collar", 1),
    SyntheticClass("n01734418", "king snake", "n01726692", "snake", "bands", 9, tint=-0.05),
    SyntheticClass("n01735189", "garter snake", "n01726692", "snake", "stripes", 3, tint=0.03),
    SyntheticClass("n01755581", "diamondback", "n01726692", "snake", "diamonds", 8, tint=-0.05),
    SyntheticClass("n02606052", "rock beauty", "n02552171", "fish", "halves", 1, tint=0.03),
    SyntheticClass("n02607072", "anemone fish", "n02552171", "fish", "bars", 3, tint=-0.02),
    SyntheticClass("n02643566", "lionfish", "n02552171", "fish", "zebra", 8, 1.05, tint=-0.04),
    SyntheticClass("n02655020", "puffer", "n02552171", "fish", "spots", 14, 0.92, tint=0.02),
    SyntheticClass("n02930766", "cab", "n02958343", "car", "cab", 2),
    SyntheticClass("n03100240", "convertible", "n02958343", "car", "convertible", 0),
    SyntheticClass("n03594945", "jeep", "n02958343", "car", "jeep", 2, 0.86),
    SyntheticClass("n03670208", "limousine", "n02958343", "car", "limousine", 3, 1.18),
    SyntheticClass("n03447447", "gondola", "n02858304", "boat", "gondola", 1),
    SyntheticClass("n03662601", "lifeboat", "n02858304", "boat", "lifeboat", 4, tint=0.02),
    SyntheticClass("n04273569", "speedboat", "n02858304", "boat", "speedboat", 1),
    SyntheticClass("n04612504", "yawl", "n02858304", "boat", "yawl", 2),
    SyntheticClass("n02676566", "acoustic guitar", "n04338517", "strings", "acoustic", 1),
    SyntheticClass("n02787622", "banjo", "n04338517", "strings", "banjo", 12),
    SyntheticClass("n03272010", "electric guitar", "n04338517", "strings", "electric", 3, tint=-0.03),
    SyntheticClass("n04536866", "violin", "n04338517", "strings", "violin", 2, tint=-0.01),
)
"""The pre-training pool: 24 classes in 6 families of 4."""

DOWNSTREAM: tuple[SyntheticClass, ...] = (
    SyntheticClass("n01664065", "loggerhead", "n01662784", "turtle", "plates", 4, tint=-0.08),
    SyntheticClass("n01665541", "leatherback turtle", "n01662784", "turtle", "ridges", 5, 1.12, tint=0.05),
    SyntheticClass("n01667778", "terrapin", "n01662784", "turtle", "rings", 3),
    SyntheticClass("n01669191", "box turtle", "n01662784", "turtle", "rays", 7, 0.9, tint=-0.05),
    SyntheticClass("n02802426", "basketball", "n02778669", "ball", "ribs", 4),
    SyntheticClass("n04254680", "soccer ball", "n02778669", "ball", "pentagons", 5),
    SyntheticClass("n04409515", "tennis ball", "n02778669", "ball", "seam", 1),
    SyntheticClass("n04540053", "volleyball", "n02778669", "ball", "panels", 3),
    SyntheticClass("n02823428", "beer bottle", "n02876657", "bottle", "beer", 2, tint=-0.1),
    SyntheticClass("n03983396", "pop bottle", "n02876657", "bottle", "pop", 1),
    SyntheticClass("n04579145", "whiskey jug", "n02876657", "bottle", "jug", 1, 0.8, tint=-0.12),
    SyntheticClass("n04591713", "wine bottle", "n02876657", "bottle", "wine", 1, 1.1),
)
"""The downstream task: 12 classes in 3 families that the pool has never seen, in the same drawing vocabulary."""
