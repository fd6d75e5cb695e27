"""How each family shows itself: where it lives, how far it turns, and its colours."""

from __future__ import annotations

from typing import NamedTuple

from curate.rows.chance import chance
from curate.sources.synthetic.classes import SyntheticClass
from curate.sources.synthetic.pens import Luck, Paint, hsv

FORMS = 6  # colour forms of a class, known only from examples
FORM_FRACTION = 0.5  # of objects are one of them; the others have their family's hue


class Habit(NamedTuple):
    """One family's.

    Attributes:
        scenery: a key of `SCENERIES`.
        turn_degrees: largest turn either way.
        hue: of its paint, in turns of the colour circle.
        hue_spread: standard deviation of that.
        saturation: lowest and highest, 0..1.
        value: lowest and highest, 0..1.
    """

    scenery: str
    turn_degrees: float
    hue: float
    hue_spread: float
    saturation: tuple[float, float]
    value: tuple[float, float]


HABITS: dict[str, Habit] = {
    "butterfly": Habit("meadow", 40, 0.09, 0.08, (0.55, 0.95), (0.70, 1.0)),
    "snake": Habit("sand", 60, 0.18, 0.12, (0.30, 0.70), (0.35, 0.70)),
    "fish": Habit("reef", 25, 0.10, 0.08, (0.55, 0.95), (0.70, 1.0)),
    "car": Habit("street", 20, 0.0, 0.5, (0.50, 0.90), (0.50, 0.95)),
    "boat": Habit("sea", 20, 0.03, 0.12, (0.25, 0.85), (0.55, 0.95)),
    "strings": Habit("room", 45, 0.07, 0.05, (0.55, 0.90), (0.45, 0.85)),
    "turtle": Habit("wood", 60, 0.26, 0.06, (0.30, 0.70), (0.35, 0.70)),
    "ball": Habit("street", 60, 0.0, 0.5, (0.45, 0.90), (0.60, 1.0)),
    "bottle": Habit("room", 30, 0.30, 0.08, (0.40, 0.85), (0.30, 0.70)),
}


def paint_for(cls: SyntheticClass, luck: Luck) -> Paint:
    """Return the colours of one object: its family's, or those of one of the class's own colour forms."""
    habit = HABITS[cls.shape]
    hue = habit.hue + cls.tint + luck.bell(habit.hue_spread)
    other = hue + luck.between(0.25, 0.75)
    form = luck.whole(1, FORMS)
    if luck.coin(FORM_FRACTION):
        own = chance(f"{cls.id}/{form}", 0, "synthetic/form")  # the same in every set, whatever its seed
        hue = own % 1009 / 1009 + luck.bell(0.02)
        other = own // 1009 % 1009 / 1009 + luck.bell(0.02)
    base = hsv(hue, luck.between(*habit.saturation), luck.between(*habit.value))
    accent = hsv(other, luck.between(0.5, 0.95), luck.between(0.6, 0.95))
    dark = hsv(other, luck.between(0.4, 0.8), luck.between(0.10, 0.30))
    light = hsv(other, luck.between(0.05, 0.35), luck.between(0.88, 1.0))
    return Paint(base, accent, dark, light)
