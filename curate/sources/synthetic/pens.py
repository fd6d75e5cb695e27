"""What every painter uses: chance for one image, colours, outlines, and a pen in object coordinates.

Object coordinates: x to the right, y down, the object fits in -1..1; the pen turns them into pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from math import cos, pi, radians, sin
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, ...]  # red, green, blue and perhaps opacity, 0..255
Points = np.ndarray  # float, shape (N, 2), object coordinates
Item = TypeVar("Item")


class Luck:
    """The chances of one image, in the order in which its painter asks for them.

    An image needs a hundred numbers, so this is the one generator in `curate/`: it belongs to a single
    row, is seeded by that row's `chance` and is thrown away with it. Numbers are made from the raw bits of
    PCG64, which NumPy keeps the same over its versions, and not by its distributions, which it does not.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._units: list[float] = []  # in [0, 1)

    def unit(self) -> float:
        if not self._units:
            self._units = ((self._bits.random_raw(128) >> np.uint64(11)) * 2.0**-53).tolist()
        return self._units.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def bell(self, deviation: float) -> float:
        """Return a number near 0, never further than 3 deviations from it."""
        return (self.unit() + self.unit() + self.unit() - 1.5) * 2 * deviation

    def coin(self, fraction: float) -> bool:
        return self.unit() < fraction

    def whole(self, low: int, high: int) -> int:
        """Return one of low..high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.unit() * len(items))]

    def bytes(self, count: int) -> np.ndarray:
        """Return uint8, 0..255, shape (count,)."""
        return self._bits.random_raw((count + 7) // 8).astype("<u8").view(np.uint8)[:count]


class Paint(NamedTuple):
    """The colours of one object."""

    base: Colour
    accent: Colour
    dark: Colour
    light: Colour


def hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour darker (factor < 1) or lighter (factor > 1)."""
    return tuple(min(255, int(part * factor)) for part in colour[:3])


def circle(corners: int = 20) -> Points:
    angles = np.arange(corners) * (2 * pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def smooth(*controls: tuple[float, float], steps: int = 4, closed: bool = True) -> Points:
    """Return the Catmull-Rom curve through the controls."""
    knots = np.array(controls)
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    padded = np.concatenate([ends[0], knots, ends[1]])
    t = (np.arange(steps) / steps)[:, None, None]
    a, b, c, d = (padded[i : len(padded) - 3 + i] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    points = curve.transpose(1, 0, 2).reshape(-1, 2)
    return points if closed else np.concatenate([points, knots[-1:]])


CIRCLE = circle()
SMALL_CIRCLE = circle(10)


class Pen:
    """Draws in object coordinates on a canvas of pixels.

    Args:
        canvas: RGB image, drawn on in place.
        centre: pixels, where (0, 0) of the object lies.
        scale: pixels that one unit of the object measures.
        degrees: turn of the object.
        squeeze: height over width.
        slant: shear of x along y.
    """

    def __init__(
        self,
        canvas: Image.Image,
        centre: tuple[float, float],
        scale: float,
        *,
        degrees: float = 0.0,
        squeeze: float = 1.0,
        slant: float = 0.0,
        flip: bool = False,
    ) -> None:
        self.scale = scale
        self._offset = np.array(centre)
        turn = radians(degrees)
        rotation = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]])
        form = np.array([[-scale if flip else scale, 0.0], [slant * scale, squeeze * scale]])
        self._matrix = form @ rotation
        self._aim(canvas)

    def _aim(self, canvas: Image.Image) -> None:
        self.canvas = canvas
        self._draw = ImageDraw.Draw(canvas, "RGBA")

    def _flat(self, points: Points) -> list[float]:
        return (points @ self._matrix + self._offset).ravel().tolist()

    def part(self, x: float, y: float, wide: float, tall: float) -> Pen:
        """Return a pen whose (0, 0) lies at (x, y) and whose units are `wide` and `tall` of this one's."""
        other = copy(self)
        other._offset = np.array([x, y]) @ self._matrix + self._offset
        other._matrix = np.array([[wide], [tall]]) * self._matrix
        return other

    def mirrored(self) -> Pen:
        """Return a pen for the other half of an object that is symmetric about x = 0."""
        return self.part(0, 0, -1, 1)

    def fill(self, points: Points, colour: Colour) -> None:
        self._draw.polygon(self._flat(points), fill=colour)

    def patch(self, colour: Colour, *corners: tuple[float, float]) -> None:
        self.fill(np.array(corners), colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.patch(colour, (left, top), (right, top), (right, bottom), (left, bottom))

    def disc(self, x: float, y: float, radius: float, colour: Colour, *, tall: float = 1.0) -> None:
        form = CIRCLE if radius * self.scale > 6 else SMALL_CIRCLE
        self.fill(form * (radius, radius * tall) + (x, y), colour)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        self._draw.line(self._flat(points), fill=colour, width=max(1, round(width * self.scale)))

    def line(self, colour: Colour, width: float, *corners: tuple[float, float]) -> None:
        self.stroke(np.array(corners), width, colour)

    @contextmanager
    def inside(self, outline: Points) -> Iterator[None]:
        """Keep what is drawn meanwhile within the outline."""
        below, draw = self.canvas, self._draw
        mask = Image.new("L", below.size)
        ImageDraw.Draw(mask).polygon(self._flat(outline), fill=255)
        self._aim(below.copy())
        yield
        below.paste(self.canvas, mask=mask)
        self.canvas, self._draw = below, draw
