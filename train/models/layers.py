"""Features from inside a backbone: the output of one of its modules."""

# B images, D features

from __future__ import annotations

import torch
from torch import Tensor, nn

from curate.errors import RecipeError, reject_unknown


class _LayerReached(Exception):
    """Carries a layer's output out of the forward pass, which need not go on."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


class Tapped(nn.Module):
    """A backbone up to one of its layers."""

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = layer

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return features_BD: the layer's output, negative parts cut off after AlexNet's fc6 and fc7 as in the network
        itself, maps and tokens averaged over their places."""
        handle = self.backbone.get_submodule(self.layer).register_forward_hook(_carry)
        try:
            self.backbone(images_B3HW)
        except _LayerReached as reached:
            return _flat(reached.output, rectified=self.layer in ("fc6", "fc7"))
        finally:
            handle.remove()
        raise RecipeError(f"layer {self.layer!r} has no part in what the backbone does")


def tapped(backbone: nn.Module, layer: str) -> nn.Module:
    """Return what gives the features of a layer.

    Args:
        backbone: in eval mode.
        layer: the name of a module, as in `backbone.named_modules()`.

    Raises:
        RecipeError: there is no such module.
    """
    known = [name for name, _ in backbone.named_modules() if name]
    top = ", ".join(name for name, _ in backbone.named_children())
    hint = f"there are {top}, and their parts"
    reject_unknown(layer, known, f"the backbone has no layer {layer!r}", hint=hint)
    return Tapped(backbone, layer)


def _carry(module: nn.Module, inputs: tuple, output: Tensor) -> None:
    raise _LayerReached(output)


def _flat(output: Tensor, *, rectified: bool) -> Tensor:
    if not isinstance(output, Tensor):
        raise RecipeError("this layer gives no single tensor", hint="take another layer")
    output = output.relu() if rectified else output
    if output.ndim == 4:  # BDHW
        return output.mean(dim=(2, 3))
    if output.ndim == 3:  # BTD
        return output.mean(dim=1)
    return torch.flatten(output, 1)
