"""How an image's pixels become 8-bit RGB: one rule for every kind of file and for everything that decodes.

Grey, palettes and CMYK become RGB, and transparency is dropped. Of 16 bits a channel the upper 8 are taken, which is
what Pillow does with colours; of the 12 bits that a TIFF may have as well. A 16-bit PPM is scaled and rounded instead,
for its largest value may be any. What has no brightest value (float, signed and 32-bit integers) is refused: any
scale would be a guess. Pixels stay as they are stored: orientation is not applied.
"""

# H height, W width

from __future__ import annotations

from typing import Any

import numpy as np

_ORIENTATION, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 256, 257, 258, 262, 339  # of a TIFF
_SIGNED, _FLOAT = 2, 3  # of its sample formats
_SIDEWAYS = frozenset({5, 6, 7, 8})  # the orientations that swap width and height


def size_of(image: Any) -> tuple[int, int]:
    """Return the width and height of an opened image as stored: of a TIFF that is to be turned Pillow swaps them."""
    if image.format == "TIFF":
        return image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
    return image.size


def refusal_of(image: Any) -> str | None:
    """Return why an opened image has no 8-bit pixels, or None if it has."""
    if image.format == "TIFF":
        return tiff_refusal(image.tag_v2.get(_SAMPLE_FORMAT, (1,)), image.tag_v2.get(_BITS, (1,)))
    return "no 8-bit pixels (float)" if image.mode == "F" else None


def tiff_refusal(formats: tuple[int, ...], bits: tuple[int, ...]) -> str | None:
    """Return why a TIFF of these sample formats and bits a sample has no 8-bit pixels, or None if it has."""
    if _FLOAT in formats:
        return "no 8-bit pixels (float)"
    if _SIGNED in formats:
        return "no 8-bit pixels (signed integers)"
    return "no 8-bit pixels (32-bit integers)" if max(bits, default=1) > 16 else None


def to_rgb(image: Any) -> Any:
    """Load an opened image and return its pixels as stored, as an RGB image."""
    from PIL import Image

    turned = 1
    if image.format == "TIFF":
        turned = image.tag_v2.get(_ORIENTATION, 1)
        image.getexif = Image.Exif  # by which Pillow would turn the pixels as it loads them
    image.load()
    if turned in _SIDEWAYS:
        image = _with_size_of_its_pixels(image)
    image.info.pop("transparency", None)  # which Pillow would convert too, or warn of
    rgb = (_grey_of(image) if image.mode.startswith("I") else _straight(image)).convert("RGB")
    if turned != 1:  # as the images of other kinds, it goes on saying so
        exif = Image.Exif()
        exif[_ORIENTATION] = turned
        rgb.info["exif"] = exif.tobytes()
    return rgb


def bits_of(image: Any) -> int:
    """Return the bits a channel of an opened image, 8 for fewer."""
    if image.format == "TIFF":
        return max(8, *image.tag_v2.get(_BITS, (8,)))
    return 16 if image.mode.startswith("I") else 8


def _with_size_of_its_pixels(image: Any) -> Any:
    copy = image.copy()
    copy.format, copy.tag_v2 = image.format, image.tag_v2
    return copy


def _straight(image: Any) -> Any:
    """Return grey whose transparency was multiplied into it, which Pillow does not make RGB, with it divided out."""
    return image.convert("LA") if image.mode == "La" else image


def _grey_of(image: Any) -> Any:
    """Return grey of 9 to 16 bits as one of 8."""
    from PIL import Image

    values_HW = np.asarray(image)  # uint16, of either byte order; int32 of a PPM, 0..65535
    if image.format == "PPM":
        grey_HW = ((values_HW + 128) // 257).astype(np.uint8)
    else:
        grey_HW = (values_HW >> bits_of(image) - 8).astype(np.uint8)
    if (
        image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC, 0) == 0
    ):  # white is zero, which Pillow leaves so
        grey_HW = 255 - grey_HW
    grey = Image.fromarray(grey_HW)
    grey.info = image.info
    return grey
