"""What is not the object: scenery behind it, clutter around it, and what hides it.

The fractions here and the pose in `images` set how hard the classes are; they were found by training small
networks. Gaudy scenery and clutter are what makes few images worth less than many: they can be learned by heart.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import NamedTuple

import numpy as np
from PIL import Image

from curate.sources.synthetic.animals import stripes
from curate.sources.synthetic.pens import CIRCLE, SMALL_CIRCLE, Colour, Luck, Pen, hsv, shade, smooth

HOME_FRACTION = 0.5  # of images stand in their family's own scenery, the others in any
PAINTED_FRACTION = 0.6  # of sceneries have colours that no landscape has
CLUTTER_MAX = 6  # things behind the object
OCCLUDED_FRACTION = 0.5  # of images have something before the object

LEAF = smooth((-1, 0), (-0.3, -0.38), (1, 0), (-0.3, 0.38), steps=3)
BLOB = smooth((-0.9, 0.1), (-0.4, -0.7), (0.5, -0.6), (0.9, 0.2), (0.2, 0.8), steps=3)


class Scenery(NamedTuple):
    """Colours from the top of the picture to its bottom: hue in turns, saturation and value in 0..1."""

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]


SCENERIES: dict[str, Scenery] = {
    "meadow": Scenery((0.55, 0.25, 0.90), (0.28, 0.55, 0.50)),
    "sea": Scenery((0.56, 0.30, 0.92), (0.57, 0.60, 0.50)),
    "reef": Scenery((0.53, 0.65, 0.70), (0.58, 0.70, 0.35)),
    "sand": Scenery((0.11, 0.28, 0.85), (0.09, 0.40, 0.62)),
    "street": Scenery((0.58, 0.18, 0.85), (0.62, 0.08, 0.42)),
    "room": Scenery((0.08, 0.22, 0.82), (0.06, 0.45, 0.48)),
    "wood": Scenery((0.30, 0.40, 0.42), (0.10, 0.45, 0.32)),
    "studio": Scenery((0.0, 0.02, 0.88), (0.0, 0.02, 0.70)),
}


def backdrop(luck: Luck, home: str, pixels: int) -> Image.Image:
    """Return a mottled gradient of some scenery."""
    light = luck.between(0.65, 1.15)
    scenery = SCENERIES[home]
    if not luck.coin(HOME_FRACTION):
        scenery = luck.pick(tuple(SCENERIES.values()))
    if luck.coin(PAINTED_FRACTION):
        scenery = Scenery(*((luck.unit(), luck.between(0.2, 0.9), luck.between(0.3, 1.0)) for _ in range(2)))
    horizon = luck.between(0.3, 0.7)
    cells, mottle = luck.whole(5, 9), luck.between(0.1, 0.6)
    shift = luck.bell(0.04)
    grain = luck.bytes(3 * cells * cells).reshape(cells, cells, 3) / 255.0 - 0.5
    down = 1 / (1 + np.exp((horizon - np.linspace(0, 1, cells)) * luck.between(4, 16)))[:, None, None]
    ends = [np.array(hsv(hue + shift, saturation, value * light)) for hue, saturation, value in scenery]
    grid = (
        ends[0] * (1 - down)
        + ends[1] * down
        + 255 * mottle * (0.4 * grain.mean(axis=2, keepdims=True) + 0.6 * grain)
    )
    small = Image.fromarray(np.clip(grid, 0, 255).astype(np.uint8))
    return small.resize((pixels, pixels), Image.Resampling.BICUBIC)


def clutter(canvas: Image.Image, luck: Luck) -> None:
    """Draw a few things that are no object of any class: leaves, stones, posts, striped and spotted scraps."""
    for _ in range(luck.whole(0, CLUTTER_MAX)):
        _scrap(canvas, luck, luck.between(0.06, 0.28), luck.unit(), luck.unit())


def occlude(canvas: Image.Image, luck: Luck) -> None:
    """Hide a part of the object behind a post, a leaf or a stone."""
    if luck.coin(OCCLUDED_FRACTION):
        angle, far = luck.between(0, 2 * pi), luck.between(0.12, 0.38)
        _scrap(canvas, luck, luck.between(0.10, 0.22), 0.5 + far * cos(angle), 0.5 + far * sin(angle))


def _scrap(canvas: Image.Image, luck: Luck, size: float, x: float, y: float) -> None:
    pixels = canvas.width
    pen = Pen(canvas, (x * pixels, y * pixels), size * pixels, degrees=luck.between(0, 360))
    colour = hsv(luck.unit(), luck.between(0.3, 1.0), luck.between(0.3, 1.0))
    kind = luck.whole(0, 6)
    if kind == 0:
        pen.fill(LEAF, colour)
        pen.line(shade(colour, 0.7), 0.08, (-1, 0), (0.9, 0))
    elif kind == 1:
        pen.fill(BLOB, colour)
        pen.fill(BLOB * 0.6 - (0.1, 0.1), shade(colour, 1.15))
    elif kind == 2:
        pen.box(-3, -0.12, 3, 0.12, colour)
    elif kind == 3:
        for blade in (-0.5, -0.2, 0.15, 0.5):
            pen.line(shade(colour, 1 + 0.3 * blade), 0.12, (blade, 1), (blade * 1.6, -1))
    else:
        _patterned_scrap(pen, luck, kind, colour)


def _patterned_scrap(pen: Pen, luck: Luck, kind: int, colour: Colour) -> None:
    outline = luck.pick(
        (CIRCLE * 0.8, BLOB, LEAF, np.array([(-0.8, -0.6), (0.8, -0.6), (0.8, 0.6), (-0.8, 0.6)]))
    )
    other = hsv(luck.unit(), luck.between(0.0, 0.7), luck.between(0.1, 1.0))
    pen.fill(outline, colour)
    if kind == 4:
        stripes(pen, outline, other, luck.whole(2, 4))
    elif kind == 5:
        for _ in range(4):
            pen.fill(SMALL_CIRCLE * 0.16 + (luck.between(-0.5, 0.5), luck.between(-0.5, 0.5)), other)
    else:
        pen.fill(outline * 0.55, other)
