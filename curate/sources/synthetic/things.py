"""Painters of cars, boats, stringed instruments, balls and bottles. Parts, counts and proportions differ."""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi, sin

import numpy as np

from curate.sources.synthetic.classes import SyntheticClass
from curate.sources.synthetic.pens import CIRCLE, Luck, Paint, Pen, shade, smooth

GLASS = (150, 190, 215)
CHROME = (215, 218, 222)
WOOD = (95, 65, 40)
TYRE = (28, 28, 32)
HULL = smooth((-0.80, 0.12), (0.0, 0.16), (0.92, 0.06), (0.66, 0.50), (0.0, 0.56), (-0.66, 0.50))
LONG_HULL = smooth(
    (-0.98, -0.42), (-0.84, 0.02), (-0.40, 0.24), (0.20, 0.26), (0.74, 0.06), (0.96, -0.52),
    (0.92, 0.02), (0.60, 0.42), (0.0, 0.54), (-0.64, 0.42),
)  # fmt: skip
RACING_HULL = smooth((-0.88, 0.14), (-0.10, 0.10), (0.98, -0.08), (0.52, 0.46), (-0.10, 0.54), (-0.84, 0.50))
GUITAR = smooth(
    (0.0, 0.02), (0.27, 0.08), (0.22, 0.36), (0.40, 0.70), (0.22, 0.95), (0.0, 0.97),
    (-0.22, 0.95), (-0.40, 0.70), (-0.22, 0.36), (-0.27, 0.08),
)  # fmt: skip
HORNED = smooth(
    (0.0, 0.24), (0.13, 0.18), (0.34, -0.02), (0.30, 0.34), (0.38, 0.72), (0.18, 0.94), (0.0, 0.90),
    (-0.24, 0.96), (-0.38, 0.66), (-0.28, 0.36), (-0.38, 0.10), (-0.14, 0.20),
)  # fmt: skip
WAISTED = smooth(
    (0.0, 0.06), (0.25, 0.10), (0.27, 0.32), (0.12, 0.50), (0.32, 0.68), (0.25, 0.94), (0.0, 0.97),
    (-0.25, 0.94), (-0.32, 0.68), (-0.12, 0.50), (-0.27, 0.32), (-0.25, 0.10),
)  # fmt: skip


def car(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint a car from its side: with a roof sign, open, upright with a spare wheel, or long."""
    long = 0.78 * cls.stretch * luck.between(0.92, 1.06)
    roof = -0.40 * luck.between(0.9, 1.1)
    wheel = luck.between(0.17, 0.20) * (1.2 if cls.pattern == "jeep" else 1.0)
    pen.fill(CIRCLE * (1.05 * long, 0.08) + (0, 0.54), (0, 0, 0, 80))
    if cls.pattern == "jeep":
        _jeep_top(pen, luck, paint, long, roof)
    elif cls.pattern == "convertible":
        pen.patch(
            shade(paint.base, 0.45),
            (-0.6 * long, 0),
            (-0.5 * long, -0.16),
            (0.2 * long, -0.1),
            (0.3 * long, 0),
        )
        pen.line(CHROME, 0.06, (0.36 * long, 0.02), (0.12 * long, 0.8 * roof))
        for seat in (-0.32, 0.02):
            pen.box((seat - 0.1) * long, -0.2, seat * long, 0.04, shade(paint.accent, 0.7))
    else:
        _cabin(pen, cls, luck, paint, long, roof)
    nose = 0.04 if cls.pattern == "jeep" else 0.12
    body = [(-1, 0.05), (-0.96, -0.02), (0.5, -0.02), (0.97, nose), (1, 0.16), (1, 0.38), (-1, 0.38)]
    pen.fill(np.array(body) * (long, 1), paint.base)
    pen.box(-long, 0.27, long, 0.38, shade(paint.base, 0.7))
    if luck.coin(0.9 if cls.pattern == "cab" else 0.25):
        _side_strip(pen, paint, long, checks=cls.pattern == "cab" and luck.coin(0.8))
    pen.disc(0.95 * long, 0.18, 0.06, (255, 245, 190))
    pen.box(-long, 0.10, -0.94 * long, 0.20, (190, 40, 40))
    for x in (-0.60, 0.62):
        pen.disc(x * long, 0.38, wheel, TYRE)
        pen.disc(x * long, 0.38, 0.5 * wheel, CHROME)


def _side_strip(pen: Pen, paint: Paint, long: float, *, checks: bool) -> None:
    pen.box(-0.96 * long, 0.06, 0.92 * long, 0.18, paint.light)
    if checks:
        for step in range(7):
            x = (-0.92 + 0.26 * step) * long
            pen.box(x, 0.06, x + 0.13 * long, 0.18, paint.dark)


def _cabin(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint, long: float, roof: float) -> None:
    back, front = (-0.80, 0.40) if cls.pattern == "limousine" else (-0.66, 0.38)
    top = 0.86 * roof if cls.pattern == "limousine" else roof
    slope = 0.22
    outline = np.array([(back, 0), (back + 0.6 * slope, top), (front - slope, top), (front, 0)]) * (long, 1)
    pen.fill(outline, shade(paint.base, 0.92))
    panes = np.linspace(back + 0.9 * slope, front - 0.5 * slope, cls.count + luck.whole(0, 1) + 1)
    for left, right in pairwise(panes):
        pen.box((left + 0.015) * long, 0.8 * top, (right - 0.025) * long, -0.04, GLASS)
    if luck.coin(0.75 if cls.pattern == "cab" else 0.1):
        middle = 0.5 * (back + front) * long
        pen.box(middle - 0.15, top - 0.14, middle + 0.15, top, (250, 215, 90))


def _jeep_top(pen: Pen, luck: Luck, paint: Paint, long: float, roof: float) -> None:
    if luck.coin(0.7):
        pen.disc(-1.06 * long, 0.08, 0.19, TYRE)
    canvas = shade(paint.accent, luck.between(0.6, 1.0))
    pen.patch(canvas, (-0.92 * long, 0), (-0.90 * long, roof), (0.22 * long, roof), (0.34 * long, 0))
    for left, right in ((-0.82, -0.42), (-0.32, 0.16)):
        pen.box(left * long, 0.78 * roof, right * long, -0.02, GLASS)


def boat(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint a boat from its side: curled ends, a closed roof with portholes, a windscreen, or sails."""
    water = shade((60, 110, 150), luck.between(0.7, 1.4))
    if cls.pattern != "yawl" and luck.coin(0.4):
        pen.line(WOOD, 0.05, (-0.2, 0.2), (-0.2, -0.7))
        pen.patch(paint.light, (-0.22, -0.7), (-0.22, -0.42), (-0.6, -0.56))
    if cls.pattern == "gondola":
        pen.fill(LONG_HULL, shade(paint.base, 0.6))
        if luck.coin(0.7):
            pen.box(-0.30, -0.02, 0.10, 0.28, paint.accent)
        if luck.coin(0.7):
            _oarsman(pen, paint)
    elif cls.pattern == "lifeboat":
        pen.fill(
            smooth((-0.74, 0.18), (-0.52, -0.34), (0.1, -0.42), (0.62, -0.26), (0.82, 0.16)), paint.accent
        )
        pen.fill(HULL, paint.base)
        for x in np.linspace(-0.46, 0.50, cls.count):
            pen.disc(x, -0.10, 0.085, paint.dark)
    elif cls.pattern == "speedboat":
        pen.patch(GLASS, (0.36, 0.06), (0.06, -0.34), (-0.06, -0.34), (0.10, 0.10))
        pen.box(-0.72, -0.04, -0.54, 0.20, paint.dark)
        pen.fill(RACING_HULL, paint.base)
        pen.patch(paint.accent, (-0.86, 0.22), (0.86, 0.06), (0.72, 0.22), (-0.86, 0.36))
    else:
        _yawl_rig(pen, luck, paint)
        pen.fill(HULL, paint.base)
        pen.line(paint.accent, 0.06, (-0.76, 0.22), (0.0, 0.26), (0.84, 0.16))
    pen.fill(
        smooth(
            (-1.1, 0.50), (-0.4, luck.between(0.38, 0.5)), (0.3, 0.50), (1.1, 0.44), (0.8, 0.7), (-0.8, 0.7)
        ),
        water,
    )
    pen.line((235, 245, 250), 0.04, (-0.9, 0.56), (-0.5, 0.50), (-0.1, 0.57), (0.3, 0.52), (0.8, 0.56))


def _oarsman(pen: Pen, paint: Paint) -> None:
    pen.disc(-0.62, -0.34, 0.09, (225, 180, 150))
    pen.box(-0.68, -0.26, -0.55, 0.20, paint.light)
    pen.line(paint.dark, 0.05, (-0.50, -0.30), (-0.86, 0.56))


def _yawl_rig(pen: Pen, luck: Luck, paint: Paint) -> None:
    top = luck.between(-1.0, -0.85)
    masts = ((0.08, top, 0.62), (-0.60, 0.5 * top, 0.28))
    for mast, height, reach in masts if luck.coin(0.8) else masts[:1]:
        pen.line(WOOD, 0.05, (mast, 0.2), (mast, height))
        pen.patch(paint.light, (mast - 0.04, height), (mast - 0.04, 0.04), (mast - reach, 0.04))
    pen.patch(shade(paint.light, 0.88), (0.13, 0.9 * top), (0.13, 0.02), (0.82, 0.04))


def strings(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint an instrument with a neck: round hole, round drum, horns with pickups, or f-holes."""
    wood = shade(paint.dark, 1.8)
    pen.box(-0.06, -0.86, 0.06, 0.2, wood)
    pen.patch(shade(wood, 0.8), (-0.07, -0.80), (-0.12, -1), (0.12, -1), (0.07, -0.80))
    for y in (-0.96, -0.89, -0.82):
        pen.line(CHROME, 0.04, (-0.17, y), (0.17, y))
    body = pen.part(0, -0.24, luck.between(1.1, 1.4), 1.24)
    if cls.pattern == "banjo":
        _banjo_head(body, cls, paint)
    elif cls.pattern == "electric":
        _electric_body(body, cls, luck, paint)
    else:
        _wooden_body(body, cls, paint)
    pen.line(CHROME, 0.03, (0, -0.9), (0, 0.68))


def _wooden_body(pen: Pen, cls: SyntheticClass, paint: Paint) -> None:
    outline = GUITAR if cls.pattern == "acoustic" else WAISTED
    pen.fill(outline, shade(paint.base, 0.55))
    pen.fill((outline - (0, 0.5)) * 0.9 + (0, 0.5), paint.base)
    if cls.pattern == "acoustic":
        pen.disc(0, 0.38, 0.18, shade(paint.base, 0.6))
        pen.disc(0, 0.38, 0.15, paint.dark)
        pen.box(-0.19, 0.70, 0.19, 0.77, paint.dark)
        return
    pen.patch(paint.dark, (-0.05, -0.3), (0.05, -0.3), (0.09, 0.42), (-0.09, 0.42))
    pen.patch(paint.dark, (-0.06, 0.66), (0.06, 0.66), (0.11, 0.96), (-0.11, 0.96))
    for side in (-1, 1):
        pen.line(paint.dark, 0.07, (0.13 * side, 0.34), (0.17 * side, 0.50), (0.20 * side, 0.70))


def _banjo_head(pen: Pen, cls: SyntheticClass, paint: Paint) -> None:
    pen.disc(0, 0.58, 0.36, shade(paint.base, 0.7))
    for angle in np.arange(cls.count) * (2 * pi / cls.count):
        pen.disc(0.36 * cos(angle), 0.58 + 0.36 * sin(angle), 0.035, CHROME)
    pen.disc(0, 0.58, 0.30, shade(paint.light, 0.95))
    pen.box(-0.05, 0.1, 0.05, 0.34, shade(paint.dark, 1.8))
    pen.box(-0.13, 0.70, 0.13, 0.76, paint.dark)


def _electric_body(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    pen.fill(HORNED, paint.base)
    guard = paint.light if luck.coin(0.6) else paint.dark
    pen.patch(guard, (-0.18, 0.22), (0.14, 0.26), (0.24, 0.60), (0.06, 0.72), (-0.16, 0.60))
    pen.box(-0.05, 0.0, 0.05, 0.26, shade(paint.dark, 1.8))
    for y in np.linspace(0.34, 0.62, cls.count):
        pen.box(-0.15, y, 0.15, y + 0.06, paint.dark if guard is paint.light else CHROME)
    pen.box(-0.12, 0.76, 0.12, 0.82, CHROME)


def ball(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint a ball: crossing ribs, pentagons, one winding seam, or panels."""
    skin = paint.light if luck.coin(0.4) else paint.base
    ink = paint.dark if luck.coin(0.7) else paint.accent
    pen.fill(CIRCLE * 0.92 + (0.05, 0.1), (0, 0, 0, 70))
    outline = CIRCLE * 0.9
    pen.fill(outline, shade(skin, 0.8))
    with pen.inside(outline):
        pen.disc(-0.08, -0.1, 0.84, skin)
        if cls.pattern == "ribs":
            pen.line(ink, 0.07, (-1, 0), (1, 0))
            pen.line(ink, 0.07, (0, -1), (0, 1))
            for side in (-1, 1):
                pen.stroke(smooth((side, -0.8), (0.42 * side, 0), (side, 0.8), closed=False), 0.07, ink)
        elif cls.pattern == "pentagons":
            angles = np.arange(cls.count) * (2 * pi / cls.count)
            corner = np.stack([np.sin(angles), -np.cos(angles)], axis=1)
            pen.fill(0.32 * corner, ink)
            for x, y in corner:
                pen.line(ink, 0.05, (0.3 * x, 0.3 * y), (0.7 * x, 0.7 * y))
                pen.fill(0.30 * corner * (1, -1) + (0.88 * x, 0.88 * y), ink)
        elif cls.pattern == "seam":
            pen.stroke(
                smooth((-1, -0.1), (-0.4, -0.5), (0.0, 0.0), (0.4, 0.5), (1, 0.1), closed=False), 0.09, ink
            )
        else:
            _panels(pen, cls, ink)
    pen.disc(-0.34, -0.4, 0.14, (255, 255, 255, 90))


def _panels(pen: Pen, cls: SyntheticClass, ink: tuple[int, ...]) -> None:
    for turn in np.arange(3) * (2 * pi / 3):
        spin = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]])
        for step in range(cls.count):
            arc = smooth((0.0, 0.3 * step), (0.5, 0.1 + 0.34 * step), (1.0, 0.1 + 0.3 * step), closed=False)
            pen.stroke(arc @ spin, 0.055, ink)


def bottle(pen: Pen, cls: SyntheticClass, luck: Luck, paint: Paint) -> None:
    """Paint an upright bottle: crown cap and two labels, a waist, a handle, or a long neck."""
    wide = luck.between(0.9, 1.12) / cls.stretch
    profiles = {  # right half, top to bottom
        "beer": [(0.09, -0.86), (0.10, -0.46), (0.27, -0.16), (0.29, 0.2), (0.29, 0.92)],
        "pop": [(0.10, -0.86), (0.13, -0.60), (0.30, -0.26), (0.22, 0.16), (0.30, 0.46), (0.26, 0.92)],
        "jug": [(0.10, -0.62), (0.12, -0.40), (0.40, -0.10), (0.46, 0.30), (0.34, 0.80)],
        "wine": [(0.08, -0.94), (0.09, -0.34), (0.28, -0.10), (0.29, 0.2), (0.29, 0.94)],
    }
    right = smooth(*profiles[cls.pattern], steps=3, closed=False) * (wide, 1)
    outline = np.concatenate([right, right[::-1] * (-1, 1)])
    top = float(right[0, 1])
    if cls.pattern == "jug":
        loop = smooth((0.1, -0.5), (0.42, -0.52), (0.44, -0.1), closed=False) * (wide, 1)
        pen.stroke(loop, 0.09, paint.base)
    pen.fill(outline, paint.base)
    with pen.inside(outline):
        pen.box(0.08, -1, 1, 1, shade(paint.base, 0.78))
        if cls.pattern == "beer":
            pen.box(-1, 0.06, 1, 0.58, paint.light)
            pen.fill(CIRCLE * (0.16, 0.16) + (0, 0.32), paint.accent)
            pen.box(-1, -0.50, 1, -0.34, paint.light)
        elif cls.pattern == "pop":
            pen.box(-1, -0.06, 1, 0.32, paint.accent)
            pen.patch(paint.light, (-0.5, 0.20), (0.5, 0.0), (0.5, 0.12), (-0.5, 0.32))
        elif cls.pattern == "jug":
            pen.box(-1, 0.10, 1, 0.50, paint.light)
        else:
            pen.box(-1, 0.26, 1, 0.74, paint.light)
            pen.box(-1, top, 1, -0.52, paint.accent)
    pen.box(-0.12, top - 0.06, 0.12, top + 0.05, paint.accent if cls.pattern == "pop" else paint.dark)
    pen.box(-0.18 * wide, -0.02, -0.12 * wide, 0.8, (255, 255, 255, 70))
