"""Awkward real files through the loader: each becomes pixels or is named with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import Sample, write_dataset

from curate.io.image_headers import EXTENSIONS
from train.data.loader import Loader


@pytest.mark.parametrize("image_size", [64, 224])
def test_every_odd_image_is_decoded_or_refused_by_name(
    odd_files: Path, tmp_path: Path, image_size: int
) -> None:
    files = [p for p in sorted(odd_files.rglob("*")) if p.is_file() and p.suffix[1:].lower() in EXTENSIONS]
    samples = [Sample(f"odd/{i:04d}", 0, p.read_bytes(), ext=_kind(p)) for i, p in enumerate(files)]
    assert len(samples) > 500
    data = write_dataset(tmp_path / "odd", samples, sizes=False)
    one = Loader(
        data, batch_size=50, image_size=image_size, seed=0, augment=True, workers=2, cache="none",
        order="manifest", max_broken_fraction=1.0,
    )  # fmt: skip
    peaks: dict[int, int] = {}
    seen: list[str] = []
    for batch in one.epoch(0):
        seen += batch.keys
        peaks |= {p.pid or 0: _peak_mb(p.pid) for p in one.processes}
    assert sorted([*seen, *one.unreadable.reasons]) == [s.key for s in samples]
    assert len(seen) > 300
    assert all(one.unreadable.reasons.values())
    assert peaks
    assert max(peaks.values()) < 1000 + _shared_mb()
    one.close()


def _kind(file: Path) -> str:
    """Return the kind that a manifest has for a file of this name."""
    ext = file.suffix[1:].lower()
    return {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tif": "tiff", "pgm": "ppm"}.get(ext, ext)


def _peak_mb(pid: int | None) -> int:
    return _status(f"/proc/{pid}/status", "VmHWM")


def _shared_mb() -> int:
    """Return what a worker shares with this process from the start: torch, mostly."""
    return _status("/proc/self/status", "VmRSS")


def _status(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith(name)), 0)
