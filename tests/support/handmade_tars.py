"""Tars made by hand, of any members in any order."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members, form: int = tarfile.USTAR_FORMAT) -> Path:
    """Write a tar of members, name and bytes each, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
