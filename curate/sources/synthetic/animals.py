"""Painters of butterflies, snakes, fish and turtles. Patterns are drawn inside the silhouette of the family."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from curate.sources.synthetic.classes import SyntheticClass
from curate.sources.synthetic.pens import CIRCLE, Colour, Luck, Paint, Pen, Points, shade, smooth

FOREWING = smooth(
    (0.04, -0.20), (0.28, -0.60), (0.68, -0.82), (0.95, -0.74), (0.84, -0.36), (0.52, -0.04), (0.08, 0.04)
)
HINDWING = smooth((0.05, -0.04), (0.46, -0.04), (0.74, 0.20), (0.68, 0.56), (0.40, 0.80), (0.14, 0.52))
FISH = smooth(
    (0.92, 0.02), (0.62, -0.30), (0.12, -0.45), (-0.40, -0.28), (-0.64, -0.09),
    (-0.64, 0.09), (-0.40, 0.28), (0.12, 0.45), (0.62, 0.30),
)  # fmt: skip
SHELL = smooth(
    (0.66, 0.0), (0.50, -0.36), (0.08, -0.54), (-0.40, -0.42), (-0.72, 0.0), (-0.40, 0.42), (0.08, 0.54),
    (0.50, 0.36),
)  # fmt: skip
FLIPPER = smooth((0.36, -0.36), (0.56, -0.72), (0.36, -0.96), (0.22, -0.88), (0.28, -0.66), (0.10, -0.42))
FOOT = smooth((-0.62, -0.26), (-0.84, -0.50), (-0.72, -0.64), (-0.56, -0.56), (-0.36, -0.40), steps=3)


def butterfly(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint four wings from above: a slanted band, a row of eyespots, dark veins, or a few dots."""
    fore = FOREWING * (luck.between(0.84, 1.04), luck.between(0.82, 1.08))
    hind = HINDWING * (luck.between(0.80, 1.08), luck.between(0.82, 1.10))
    reach = luck.between(0.85, 1.15)  # size of the marks
    dusk = luck.between(0.4, 1.0) if luck.coin(0.7 if cls.pattern == "eyespots" else 0.3) else 1.0
    paint = paint._replace(base=shade(paint.base, dusk))
    for side in (pen, pen.mirrored()):
        for wing in (hind, fore):
            side.fill(wing, shade(paint.base, 0.85 if wing is hind else 1.0))
            with side.inside(wing):
                _wing_marks(side, cls, paint, wing, wing is fore, reach)
    pen.fill(CIRCLE * (0.07, 0.50) + (0, 0.08), paint.dark)
    pen.disc(0, -0.46, 0.09, paint.dark)
    for lean in (-1, 1):
        pen.line(paint.dark, 0.03, (0.02 * lean, -0.5), (0.26 * lean, -0.88))


def _wing_marks(pen: Pen, cls: SyntheticClass, paint: Paint, wing: Points, fore: bool, reach: float) -> None:
    middle, tip = wing.mean(axis=0), np.array([0.9, -0.75] if fore else [0.5, 0.75])
    root = np.array([0.05, -0.02])
    if cls.pattern == "band":
        pen.fill(wing, shade(paint.dark, 1.6))
        across = np.array([(0.22, -0.75), (0.46, -0.75), (0.80, -0.05), (0.50, -0.05)])
        pen.fill(across if fore else (wing - middle) * 0.5 + middle + (0.14, 0.14), paint.base)
        if fore:
            for x, y in ((0.70, -0.66), (0.84, -0.58), (0.78, -0.74)):
                pen.disc(x, y, 0.05 * reach, paint.light)
    elif cls.pattern == "eyespots":
        angles = np.linspace(-0.5, 0.5, cls.count) if fore else np.linspace(-0.6, 0.6, cls.count)
        for angle in angles:
            arm = (tip - root) * 0.74
            x, y = root + arm @ np.array([[cos(angle), sin(angle)], [-sin(angle), cos(angle)]])
            pen.disc(x, y, 0.15 * reach, paint.light)
            pen.disc(x, y, 0.105 * reach, paint.dark)
            pen.disc(x, y, 0.04 * reach, paint.light)
    elif cls.pattern == "veins":
        pen.fill(wing, paint.dark)
        pen.fill((wing - middle) * 0.78 + middle * 0.97, paint.base)
        for target in wing[2 : -4 : max(1, (len(wing) - 6) // cls.count)]:
            pen.stroke(np.stack([root, target]), 0.055, paint.dark)
    else:
        pen.fill((wing - tip) * 0.42 + tip, paint.dark if fore else shade(paint.base, 0.85))
        for number in range(cls.count if fore else 1):
            x, y = root + (tip - root) * (0.42 + 0.18 * number) + (0.08, 0.10)
            pen.disc(x, y, 0.085 * reach, paint.dark)


def snake(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint a winding body: a collar behind the head, cross bands, lengthwise stripes, or diamonds."""
    waves, start = luck.between(0.8, 1.5), luck.between(0, 2 * pi)
    height, thick = luck.between(0.26, 0.52), luck.between(0.13, 0.18)
    t = np.linspace(0, 1, 37)  # tail to head
    spine = np.stack([1.84 * t - 0.94, height * np.sin(2 * pi * waves * t + start) * (1.1 - 0.4 * t)], axis=1)
    along = np.gradient(spine, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    normal = along[:, ::-1] * (-1, 1)
    width = thick * np.minimum(1, np.minimum(0.15 + 3 * t, 0.72 + 5 * np.abs(t - 0.93)))[:, None]

    def strip(low: float, high: float, first: int = 0, last: int = 37) -> Points:
        part = slice(first, last)
        left, right = spine + low * width * normal, spine + high * width * normal
        return np.concatenate([left[part], right[part][::-1]])

    body = strip(-1, 1)
    pen.fill(body + np.array((0.03, 0.06)), (0, 0, 0, 60))
    pen.fill(body, paint.base)
    pen.fill(strip(0.55, 1), shade(paint.base, 0.78))
    if cls.pattern == "stripes":
        for middle in np.linspace(-0.62, 0.62, cls.count):
            pen.fill(strip(middle - 0.17, middle + 0.17), paint.light)
    elif cls.pattern == "bands":
        for first in np.linspace(2, 32, cls.count + luck.whole(-2, 1)).astype(int):
            pen.fill(strip(-1, 1, first, first + 3), paint.light if luck.coin(0.85) else paint.accent)
    elif cls.pattern == "diamonds":
        for first in np.linspace(3, 31, cls.count + luck.whole(-2, 1)).astype(int):
            corners = [spine[first - 2], spine[first] + normal[first] * width[first] * 0.95]
            corners += [spine[first + 2], spine[first] - normal[first] * width[first] * 0.95]
            pen.fill(np.array(corners), paint.light)
            pen.fill(np.array(corners) * 0.6 + 0.4 * spine[first], paint.dark)
    head, nose = spine[-2], along[-1]
    if cls.pattern == "collar":
        pen.fill(strip(-1, 1, 27, 33), paint.light)
    _snake_head(pen, luck, paint, head, nose, 1.25 * thick)


def _snake_head(pen: Pen, luck: Luck, paint: Paint, at: Points, nose: Points, size: float) -> None:
    side = nose[::-1] * (-1, 1)
    form = CIRCLE[:, :1] * nose * 1.5 * size + CIRCLE[:, 1:] * side * size + at
    pen.fill(form, shade(paint.base, 0.9))
    for lean in (-1, 1):
        x, y = at + nose * size * 0.5 + side * size * 0.5 * lean
        pen.disc(x, y, 0.28 * size, paint.dark)
    if luck.coin(0.5):
        pen.stroke(np.stack([at + nose * 1.4 * size, at + nose * 2.3 * size]), 0.03, (190, 40, 50))


def fish(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint a fish from its side: dark hind half, a few white bars, many thin stripes, or spots."""
    tall = luck.between(0.85, 1.2) / cls.stretch
    body = FISH * (1, tall)
    fins = shade(paint.base, luck.between(0.6, 0.95))
    spread = luck.between(0.30, 0.46)
    pen.patch(fins, (-0.50, 0), (-0.98, -spread), (-0.84, 0), (-0.98, spread))
    if luck.coin(0.75 if cls.pattern == "zebra" else 0.2):
        for step in range(7):
            x = 0.46 - 0.15 * step
            pen.line(paint.dark, 0.05, (x, -0.2), (x - 0.18, -0.66 - 0.2 * sin(step * 0.5)))
            pen.line(fins, 0.05, (x - 0.15, 0.2), (x - 0.36, 0.62 + 0.1 * cos(step)))
    else:
        peak = luck.between(0.55, 0.72)
        pen.patch(
            fins, (0.42, -0.34 * tall), (-0.10, -peak * tall), (-0.48, -0.55 * tall), (-0.44, -0.2 * tall)
        )
        pen.patch(fins, (0.05, 0.40 * tall), (-0.36, 0.62 * tall), (-0.46, 0.2 * tall))
    pen.fill(body, paint.base)
    with pen.inside(body):
        pen.fill(FISH * (1, 0.6 * tall) + (0, 0.52 * tall), shade(paint.base, 1.25))
        _fish_marks(pen, cls, luck, paint, tall)
    pen.patch(fins, (0.22, 0.06), (-0.12, -0.04), (-0.16, 0.26))
    pen.disc(0.62, -0.10 * tall, 0.11, (250, 250, 245))
    pen.disc(0.64, -0.10 * tall, 0.065, (15, 15, 20))


def _fish_marks(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint, tall: float) -> None:
    shift = luck.bell(0.04)
    if cls.pattern == "halves":
        pen.fill(FISH * (0.7, 1.2 * tall) + (-0.36 + shift, 0), paint.dark)
    elif cls.pattern == "bars":
        for x in np.linspace(0.40, -0.48, cls.count + luck.whole(-1, 1)) + shift:
            pen.patch(paint.dark, (x - 0.11, -1), (x + 0.11, -1), (x + 0.06, 1), (x - 0.16, 1))
            pen.patch(paint.light, (x - 0.07, -1), (x + 0.07, -1), (x + 0.02, 1), (x - 0.12, 1))
    elif cls.pattern == "zebra":
        for number, x in enumerate(np.linspace(0.78, -0.62, cls.count + luck.whole(-1, 1)) + shift):
            stripe = paint.light if number % 2 else paint.dark
            pen.patch(stripe, (x - 0.05, -1), (x + 0.05, -1), (x - 0.02, 1), (x - 0.12, 1))
    else:
        for number in range(cls.count):
            angle, far = number * 2.4, 0.9 * ((number + 0.5) / cls.count) ** 0.5  # a sunflower's seeds
            pen.disc(0.72 * far * cos(angle) + shift, 0.44 * far * sin(angle) * tall, 0.075, paint.dark)


def turtle(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint a turtle from above: a shell of plates, lengthwise ridges, rings, or rays."""
    shell = SHELL * (cls.stretch * luck.between(0.92, 1.05), luck.between(0.9, 1.1) / cls.stretch**0.5)
    skin = shade(paint.base, luck.between(0.6, 1.3))
    swims = cls.pattern in ("plates", "ridges")
    head = luck.between(0.74, 0.86)
    for side in (1, -1):
        front = FLIPPER * (1, side) if swims else FOOT * (-0.9, side)
        pen.fill(front, skin)
        pen.fill(FOOT * (1, side), skin)
    pen.fill(CIRCLE * (0.20, 0.14) + (head, 0), skin)
    pen.patch(skin, (-0.6, -0.08), (-0.92, 0), (-0.6, 0.08))
    for side in (1, -1):
        pen.disc(head + 0.06, 0.07 * side, 0.04, (15, 15, 15))
    pen.fill(shell, shade(paint.base, 0.62))
    pen.fill(shell * 0.88, paint.base)
    with pen.inside(shell * 0.88):
        _shell_marks(pen, cls, paint)


def _shell_marks(pen: Pen, cls: SyntheticClass, paint: Paint) -> None:
    plates = [(x, y) for x in np.linspace(-0.38, 0.34, cls.count) for y in (-0.30, 0.0, 0.30)]
    if cls.pattern == "ridges":
        for y in np.linspace(-0.40, 0.40, cls.count):
            pen.stroke(smooth((-0.8, 0), (-0.1, y), (0.7, 0.6 * y), closed=False), 0.06, paint.light)
    elif cls.pattern == "plates":
        for y in (-0.16, 0.16):
            pen.line(paint.dark, 0.05, (-0.8, y), (0.7, y))
        for x in np.linspace(-0.48, 0.44, cls.count):
            pen.line(paint.dark, 0.05, (x, -0.6), (x + 0.06, 0), (x, 0.6))
    elif cls.pattern == "rings":
        for x, y in plates:
            pen.disc(x, y, 0.16, paint.light)
            pen.disc(x, y, 0.11, paint.base)
            pen.disc(x, y, 0.06, paint.dark)
    else:
        for x in (-0.34, 0.04, 0.40):
            for angle in np.arange(cls.count) * (2 * pi / cls.count):
                pen.line(paint.light, 0.045, (x, 0), (x + 0.34 * cos(angle), 0.5 * sin(angle)))


def stripes(pen: Pen, outline: Points, colour: Colour, count: int) -> None:
    """Paint upright stripes inside an outline: the pattern without the animal, for clutter."""
    with pen.inside(outline):
        for x in np.linspace(-1, 1, 2 * count + 1)[:-1:2]:
            pen.box(x, -1, x + 1 / count, 1, colour)
