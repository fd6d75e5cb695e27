"""A batch in pieces has the gradient of the batch in one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.loop.method import Columns, Method, PreparedBatch
from train.loop.optim.gradients import backward
from train.models.registry import ModelSpec

SPEC = ModelSpec("none", "imagenet", 0, 8)


class TwoTowers(nn.Module):
    """Two towers and a temperature, as a contrast has them."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        between = nn.BatchNorm1d(16) if norm else nn.LayerNorm(16)
        self.one = nn.Sequential(nn.Linear(8, 16), between, nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 4))
        self.two = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, one_BD: Tensor, two_BD: Tensor) -> Columns:
        scale_B = self.scale.exp().expand(len(one_BD))
        return functional.normalize(self.one(one_BD)), functional.normalize(self.two(two_BD)), scale_B


def contrast(outputs: Columns, targets: Columns) -> Tensor:
    one_BD, two_BD, scale_B = outputs
    return functional.cross_entropy(scale_B.mean() * one_BD @ two_BD.T, torch.arange(len(one_BD)))


def method(module: nn.Module, *, joint: bool) -> Method:
    def apart(outputs: Columns, targets: Columns) -> Tensor:
        return functional.cross_entropy(outputs[0] if isinstance(outputs, tuple) else outputs, targets[0])

    return Method(
        "toy", SPEC, module, lambda batch: PreparedBatch(()), contrast if joint else apart, joint=joint
    )


def gradients(
    module: nn.Module, prepared: PreparedBatch, pieces: int, *, joint: bool
) -> tuple[float, dict[str, Tensor]]:
    module.zero_grad()
    torch.manual_seed(0)
    loss = backward(method(module, joint=joint), module, prepared, pieces=pieces)
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    return float(loss), found


def pairs(count: int = 22) -> PreparedBatch:
    torch.manual_seed(5)
    return PreparedBatch((torch.randn(count, 8), torch.randn(count, 8)))


@pytest.mark.parametrize("pieces", [2, 5, 22, 100])
def test_contrast_in_pieces_has_the_gradient_of_the_whole_batch(pieces: int) -> None:
    torch.manual_seed(1)
    module = TwoTowers()
    loss, whole = gradients(module, pairs(), 1, joint=True)
    in_pieces, found = gradients(module, pairs(), pieces, joint=True)
    assert in_pieces == pytest.approx(loss, rel=1e-6)
    assert found.keys() == whole.keys() == dict(module.named_parameters()).keys()
    for name, gradient in whole.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


@pytest.mark.parametrize("pieces", [2, 5, 22])
def test_mean_in_pieces_has_the_gradient_of_the_whole_batch(pieces: int) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))
    prepared = PreparedBatch((torch.randn(22, 8),), (torch.randint(3, (22,)),))
    loss, whole = gradients(module, prepared, 1, joint=False)
    in_pieces, found = gradients(module, prepared, pieces, joint=False)
    assert in_pieces == pytest.approx(loss, rel=1e-6)
    for name, gradient in whole.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


def test_dropout_falls_the_same_way_when_a_piece_is_run_again() -> None:
    """The outputs of the second run are those of the first: else the gradients belong to other outputs."""
    seen: list[Tensor] = []
    module = TwoTowers(dropout=0.5)
    module.register_forward_hook(lambda m, args, outputs: seen.append(outputs[0].detach()))
    prepared = pairs()
    for _ in range(2):
        backward(method(module, joint=True), module, prepared, pieces=2)
    assert torch.equal(torch.cat(seen[:2]), torch.cat(seen[2:4]))
    assert not torch.equal(seen[0], seen[4])  # and the next step has others


def test_batch_norm_counts_a_piece_once() -> None:
    torch.manual_seed(1)
    module, plain = TwoTowers(norm=True), TwoTowers(norm=True)
    plain.load_state_dict(module.state_dict())
    prepared = pairs()
    backward(method(module, joint=True), module, prepared, pieces=2)
    for piece in (slice(0, 11), slice(11, 22)):
        plain(*(column[piece] for column in prepared.inputs))
    norm, expected = module.one[1], plain.one[1]
    assert torch.allclose(norm.running_mean, expected.running_mean)
    assert torch.allclose(norm.running_var, expected.running_var)
    assert norm.momentum == 0.1


def test_whole_numbers_among_the_outputs_have_no_gradient() -> None:
    class Counted(TwoTowers):
        def forward(self, one_BD: Tensor, two_BD: Tensor) -> Columns:
            return (*super().forward(one_BD, two_BD), torch.arange(len(one_BD)))

    module = Counted()
    by_number = Method(
        "toy", SPEC, module, lambda batch: PreparedBatch(()), lambda o, t: contrast(o[:3], t), joint=True
    )
    loss = backward(by_number, module, pairs(), pieces=3)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("joint", [True, False])
def test_scaled_loss_scales_the_gradients_of_every_piece(joint: bool) -> None:
    torch.manual_seed(1)
    module: nn.Module = TwoTowers() if joint else nn.Linear(8, 3)
    prepared = pairs() if joint else PreparedBatch((torch.randn(22, 8),), (torch.randint(3, (22,)),))
    loss, plain = gradients(module, prepared, 4, joint=joint)
    module.zero_grad()
    scaled = backward(method(module, joint=joint), module, prepared, pieces=4, scale=lambda one: one * 8)
    assert float(scaled) == pytest.approx(loss, rel=1e-6)  # what is told is not scaled
    for name, parameter in module.named_parameters():
        assert torch.allclose(parameter.grad, 8 * plain[name], atol=1e-5), name
