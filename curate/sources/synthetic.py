"""A generated mini-ImageNet: pixels from a seed, so that everything runs without downloads."""

from __future__ import annotations

from curate.files import cache_folder
from curate.signatures import Count, Seed
from curate.sources.folder import Folder
from curate.synthetic import POOL, write_folder


def synthetic(
    *, images: Count = 250, val_images: Count = 50, size: Count = 48, seed: Seed = 0, path: str | None = None
) -> Folder:
    """Take generated images of real ImageNet classes, several to a WordNet family.

    They are drawn once and kept as a folder of JPEGs; splits `train` and `val` share no image.

    Args:
        images: of each class, in the split `train`.
        val_images: of each class, in the split `val`.
        size: width and height in pixels.
        seed: of the drawing.
        path: the folder to keep them in; one in the cache by default.
    """
    name = f"pool-{images}-{val_images}-{size}px-seed{seed}"
    folder = cache_folder() / "synthetic" / name if path is None else path
    counts = {"train": images, "val": val_images}
    write_folder(folder, classes=POOL, images_per_class=counts, size=size, seed=seed)
    return Folder(str(folder), None, "skip")
