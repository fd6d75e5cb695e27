"""A generated miniature of ImageNet, so that every path of the product runs without downloads."""

from curate.synthetic.classes import DOWNSTREAM, FAMILIES, POOL, SyntheticClass
from curate.synthetic.folders import write_folder
from curate.synthetic.images import draw, jpeg

__all__ = ["DOWNSTREAM", "FAMILIES", "POOL", "SyntheticClass", "draw", "jpeg", "write_folder"]
