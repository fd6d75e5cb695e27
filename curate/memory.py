"""How much memory this process has held."""

from __future__ import annotations

import resource
import sys


def peak_bytes() -> int:
    """Return the most memory that this process held at once; macOS tells bytes where others tell KiB."""
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return told if sys.platform == "darwin" else told * 1024
