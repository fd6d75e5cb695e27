"""From a class and an index to an image and to its JPEG bytes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from curate.rows.chance import chance
from curate.sources.synthetic import animals, cameras, habits, scenes, things
from curate.sources.synthetic.classes import SyntheticClass
from curate.sources.synthetic.pens import Luck, Paint, Pen

DRAWING_VERSION = 1  # raise it whenever the same arguments would draw another picture
SUPERSAMPLING = 2  # drawn this many times larger, then averaged, so that edges are soft

PAINTERS: dict[str, Callable[[Pen, SyntheticClass, Luck, Paint], None]] = {
    "butterfly": animals.butterfly,
    "snake": animals.snake,
    "fish": animals.fish,
    "turtle": animals.turtle,
    "car": things.car,
    "boat": things.boat,
    "strings": things.strings,
    "ball": things.ball,
    "bottle": things.bottle,
}
"""The painter of each shape."""


def draw(cls: SyntheticClass, index: int, *, seed: int, size: int) -> np.ndarray:
    """Draw image number `index` of a class.

    The picture depends on the class, the index and the seed and on nothing else; another size shows the
    same scene with other noise. Pixels are equal for equal versions of NumPy and Pillow.

    Args:
        size: width and height in pixels.

    Returns:
        uint8, 0..255, shape (size, size, 3).
    """
    luck = Luck(chance(f"{cls.id}/{index}", seed, "synthetic"))
    habit = habits.HABITS[cls.shape]
    pixels = size * SUPERSAMPLING
    canvas = scenes.backdrop(luck, habit.scenery, pixels)
    scenes.clutter(canvas, luck)
    pen = _pose(canvas, luck, habit.turn_degrees)
    PAINTERS[cls.shape](pen, cls, luck, habits.paint_for(cls, luck))
    scenes.occlude(canvas, luck)
    return cameras.expose(canvas.reduce(SUPERSAMPLING), luck)


def _pose(canvas: Image.Image, luck: Luck, turn_degrees: float) -> Pen:
    pixels = canvas.width
    scale = luck.between(0.30, 0.46)  # half of the object's extent, over the picture's width
    centre = (pixels * (0.5 + luck.bell(0.09)), pixels * (0.5 + luck.bell(0.09)))
    return Pen(
        canvas,
        centre,
        scale * pixels,
        degrees=luck.between(-turn_degrees, turn_degrees),
        squeeze=luck.between(0.8, 1.15),
        slant=luck.bell(0.1),
        flip=luck.coin(0.5),
    )


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """Return the image as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
