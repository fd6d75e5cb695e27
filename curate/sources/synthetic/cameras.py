"""What a mediocre camera makes of a scene."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from curate.sources.synthetic.pens import Luck, hsv

BLURRED_FRACTION = 0.15  # of images
STYLED_FRACTION = 0.15  # of images are no plain photograph


def expose(canvas: Image.Image, luck: Luck) -> np.ndarray:
    """Return the scene with blur, light, colour cast and noise: uint8, 0..255, shape (H, W, 3)."""
    if luck.coin(BLURRED_FRACTION):
        canvas = canvas.filter(ImageFilter.GaussianBlur(canvas.width * luck.between(0.004, 0.016)))
    image = _style(canvas, luck)
    contrast, brightness = luck.between(0.7, 1.15), luck.between(-35, 30)
    cast = np.array([luck.between(0.75, 1.2) for _ in range(3)], dtype=np.float32)
    noise_levels = luck.between(1, 6)
    rough = luck.bytes(image.size).reshape(image.shape).astype(np.float32)
    rough += luck.bytes(image.size).reshape(image.shape)  # triangular, 0..510, deviation 104
    image = (image - 127) * (contrast * cast) + (127 + brightness) + (rough - 255) * (noise_levels / 104)
    return np.clip(image, 0, 255).astype(np.uint8)


def _style(canvas: Image.Image, luck: Luck) -> np.ndarray:
    """Return float32, 0..255, shape (H, W, 3): colours as they are, or a print, a night, a drawing, a negative."""
    image = np.asarray(canvas, dtype=np.float32)
    if not luck.coin(STYLED_FRACTION):
        return image
    kind = luck.whole(0, 5)
    if kind == 0:
        return np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    if kind == 1:
        ink, paper = (
            hsv(luck.unit(), 0.7, luck.between(0.05, 0.3)),
            hsv(luck.unit(), 0.3, luck.between(0.85, 1.0)),
        )
        tone = np.clip(image.mean(axis=2, keepdims=True) / 160 - 0.25, 0, 1)
        return (np.array(ink) * (1 - tone) + np.array(paper) * tone).astype(np.float32)
    if kind == 2:
        return image * np.array((0.4, 0.5, 0.75), dtype=np.float32)
    if kind == 3:
        return np.asarray(canvas.convert("L").filter(ImageFilter.CONTOUR).convert("RGB"), dtype=np.float32)
    if kind == 4:
        return 255 - image
    return image[:, :, luck.pick(((1, 2, 0), (2, 0, 1), (2, 1, 0)))]
