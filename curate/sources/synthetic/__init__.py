"""A generated mini-ImageNet: pixels from a seed, so that everything runs without downloads."""

from __future__ import annotations

from pathlib import Path

from curate.io.files import cache_folder
from curate.recipes.signatures import Count, Seed
from curate.rows.manifest import CORE
from curate.sources import Index, Progress, Source
from curate.sources._index_cache import class_list
from curate.sources.folder import FolderSource
from curate.sources.synthetic.classes import POOL
from curate.sources.synthetic.folders import write_folder
from curate.sources.synthetic.images import DRAWING_VERSION


def synthetic(
    *, images: Count = 250, val_images: Count = 50, size: Count = 48, seed: Seed = 0, path: str | None = None
) -> Source:
    """Take generated images of real ImageNet classes, several to a WordNet family.

    They are drawn once and kept as a folder of JPEGs; splits `train` and `val` share no image.

    Args:
        images: of each class, in the split `train`.
        val_images: of each class, in the split `val`.
        size: width and height in pixels.
        seed: of the drawing.
        path: the folder to keep them in; one in the cache by default.
    """
    name = f"pool-{images}-{val_images}-{size}px-seed{seed}-v{DRAWING_VERSION}"
    folder = cache_folder() / "synthetic" / name if path is None else Path(path)
    return SyntheticSource(folder.absolute(), {"train": images, "val": val_images}, size, seed)


class SyntheticSource(Source):
    """The source that `synthetic` opens; it draws when it is indexed."""

    def __init__(self, folder: Path, counts: dict[str, int], size: int, seed: int) -> None:
        self.folder, self.counts, self.size, self.seed = folder, counts, size, seed
        self.root = str(folder)
        self.columns = dict(CORE) | {"wnid": "VARCHAR"}
        self.classes = class_list(sorted(c.id for c in POOL))
        self.rows = len(POOL) * sum(counts.values())

    def fingerprint(self) -> str:
        """Draw the images, unless they are there, and say what the folder holds."""
        write_folder(self.folder, classes=POOL, images_per_class=self.counts, size=self.size, seed=self.seed)
        return FolderSource(self.root, None, "skip").fingerprint()

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Read the folder's headers."""
        return FolderSource(self.root, None, "skip").index(fingerprint=fingerprint, progress=progress)
