"""Weights as safetensors: bytes, digest, and a model filled with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from curate.errors import DataError


def weight_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """Return the content of a safetensors file of weights, wherever they are."""
    from safetensors.torch import save

    return save({name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()})


def bytes_digest(data: bytes) -> str:
    """Return "sha256:…" of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    """Return every tensor of a run's file of weights, on the CPU.

    Args:
        path: of the file.
        digest: that `run.json` records.

    Raises:
        DataError: the file cannot be read, has another digest, or is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint="train it again") from error
    if bytes_digest(data) != digest:
        raise DataError(
            f"{path}: not the weights that run.json names", hint="the file was changed; train it again"
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise DataError(f"{path}: no weights ({error})", hint="train it again") from error


def fill_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a model the weights of a file.

    Raises:
        DataError: they are another model's.
    """
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise DataError(
            f"{path}: weights of another model than run.json names ({str(error).splitlines()[-1].strip()})",
            hint="train it again",
        ) from error
