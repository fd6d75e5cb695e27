"""NT-Xent: the formula, its peer in lightly, and the same for any number of processes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from several import together
from torch import Tensor, nn

from train.loop.distributed import Distributed, joined
from train.loop.optim.norms import SyncBatchNorm, shared
from train.methods.losses import nt_xent


def features(samples: int, views: int = 2, width: int = 8, seed: int = 0) -> Tensor:
    """Return BxVxD."""
    return 3 * torch.randn(samples, views, width, generator=torch.Generator().manual_seed(seed))


def by_hand(points: Tensor, temperature: float) -> float:
    """The paper's formula, pair after pair, in float64; of more than two views, the mean over all pairs."""
    found = {
        (i, v): row / np.linalg.norm(row)
        for i, sample in enumerate(points.double().numpy())
        for v, row in enumerate(sample)
    }
    losses = []
    for (i, v), point in found.items():
        alike = {at: math.exp(point @ other / temperature) for at, other in found.items() if at != (i, v)}
        losses += [-math.log(alike[i, w] / sum(alike.values())) for w in range(points.shape[1]) if w != v]
    return float(np.mean(losses))


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("samples", [2, 9])
def test_it_is_the_formula(samples: int, temperature: float, views: int) -> None:
    drawn = features(samples, views)
    assert nt_xent(drawn, temperature=temperature).item() == pytest.approx(
        by_hand(drawn, temperature), rel=2e-6
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_gradients_are_those_of_lightly(temperature: float) -> None:
    peer = pytest.importorskip("lightly.loss", reason="lightly is not installed").NTXentLoss(temperature)
    ours, theirs = (features(16).requires_grad_() for _ in range(2))
    loss = nt_xent(ours, temperature=temperature)
    expected = peer(*theirs.unbind(1))
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_views_that_are_all_alike_lose_the_logarithm_of_the_others() -> None:
    assert nt_xent(torch.ones(8, 2, 4), temperature=0.1).item() == pytest.approx(math.log(15), rel=1e-5)
    apart = torch.eye(8)[:, None].expand(8, 2, 8)
    assert nt_xent(apart, temperature=0.05).item() < 1e-6


def test_it_is_float32_and_finite_where_the_rest_is_not() -> None:
    points = 1e3 * features(8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(points.bfloat16(), temperature=0.002)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    exact = nt_xent(points.bfloat16().float(), temperature=0.002)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_each_sample_wants_its_own_views_together() -> None:
    points = features(6).requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(nt_xent(points, temperature=0.2), points)
        points.data -= 5 * gradient
    first, second = nn.functional.normalize(points.detach(), dim=2).unbind(1)
    assert torch.equal((first @ second.T).argmax(dim=1), torch.arange(6))


class Net(nn.Module):
    """A projector whose batch norm must see the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


def step(points: Tensor, ranks: Distributed) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    """Return this rank's loss, the gradients as DDP averages them, and the state."""
    net = shared(Net(), ranks)
    outputs = net(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    loss = nt_xent(outputs, temperature=0.3, distributed=ranks)
    loss.backward()
    gradients = [ranks.sum(p.grad.clone()) / ranks.world_size for p in net.parameters() if p.grad is not None]
    return loss.detach(), gradients, net.state_dict()


def one_of(rank: int, ranks: int, folder: Path) -> None:
    """What a process of several does."""
    found = []
    with joined(torch.device("cpu")) as here:
        for views in (2, 3):
            loss, gradients, state = step(features(12, views)[here.rank :: here.world_size], here)
            found.append((here.sum(loss.clone()) / here.world_size, gradients, state))
        here.barrier()
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_together_are_one_process(tmp_path: Path, ranks: int) -> None:
    together(ranks, one_of, tmp_path)
    expected = [step(features(12, views), Distributed()) for views in (2, 3)]
    for loss, gradients, _ in expected:
        assert loss > 0.1
        assert max(g.abs().max() for g in gradients) > 1e-3
    for rank in range(ranks):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_shared_norm_is_a_batch_norm() -> None:
    images = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    theirs = nn.BatchNorm2d(5)
    ours = SyncBatchNorm(5)
    ours.distributed = Distributed()
    for _ in range(2):
        torch.testing.assert_close(ours(images), theirs(images))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
