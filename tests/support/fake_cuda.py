"""A GPU without a driver: tensors that have a device, a type and strides, and no numbers.

Under `fake_cuda`, code runs as on a GPU and computes nothing: torch's `FakeTensorMode` follows the shapes, and a
`Watch` notes what would make the host wait for the GPU, which devices meet, and where channels_last is lost. What it
cannot show are the kernels themselves, those of the backward pass, and NCCL.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REPOSITORY = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda")
aten = torch.ops.aten

COPIES = {aten._to_copy.default, aten.copy_.default}
# What gives the host a number, or a shape that only the GPU knows.
ANSWERS = {
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.unique_dim.default, aten.bincount.default,
}  # fmt: skip
CONTIGUOUS = {aten.roll.default}  # their CUDA kernels give contiguous results, whatever they are given


class Watch(TorchDispatchMode):
    """Notes what a GPU would be asked.

    Attributes:
        waits: for each operator that makes the host wait, the line of this project that called it.
        mixed: likewise, where tensors of several devices meet.
        unlaid: likewise, where images in channels_last come out in another layout.
        convolved: for each convolution, whether all of it is in channels_last.
        operators: how often each was called on the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.mixed: list[str] = []
        self.unlaid: list[str] = []
        self.convolved: list[bool] = []
        self.operators: Counter[str] = Counter()
        self.pinned: dict[int, Tensor] = {}  # by their ids, which are theirs as long as they are here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if func in ANSWERS and given[0].is_cuda:
            return self._answered(func, given[0])
        if func in COPIES:
            self._look_at_copy(func, args, kwargs)
        elif func is aten.index.Tensor or func is aten.index_put_.default:
            self._look_at_index(func, args)
        if func not in COPIES and len({one.device for one in given if one.ndim}) > 1:
            self.mixed.append(_line(func))
        if func._schema.name.startswith("aten::_fused_"):  # optimisers, in place; there is no fake of SGD's
            self.operators[str(func)] += 1
            return None
        made = func(*args, **kwargs)
        out = [one for one in tree_leaves(made) if isinstance(one, Tensor)]
        if any(one.is_cuda for one in out):
            self.operators[str(func)] += 1
            self._look_at_layout(func, given, out)
        return made

    def clear(self) -> None:
        """Forget all that was noted."""
        for notes in (self.waits, self.mixed, self.unlaid, self.convolved, self.operators, self.pinned):
            notes.clear()

    def _answered(self, func: Any, asked: Tensor) -> Any:
        self.waits.append(_line(func))
        if func is aten._local_scalar_dense.default:
            return 1.0 if asked.dtype.is_floating_point else 1
        if func is aten.equal.default:
            return True
        raise AssertionError(f"the GPU alone knows the shape of {_line(func)}")

    def _look_at_copy(self, func: Any, args: Any, kwargs: Any) -> None:
        if func is aten.copy_.default:
            to, source = args[0].device, args[1]
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        else:
            source = args[0]
            to, waits = torch.device(kwargs.get("device") or source.device), not kwargs.get("non_blocking")
        if to.type == source.device.type or (source.ndim == 0 and func is aten.copy_.default):
            return
        if to.type == "cuda" and not source.is_cuda and id(source) not in self.pinned:
            waits = True  # pageable memory goes through a buffer of the driver's, which may have to wait
        if waits:
            self.waits.append(_line(func))

    def _look_at_index(self, func: Any, args: Any) -> None:
        if not args[0].is_cuda:
            return
        places = [one for one in args[1] if one is not None]
        one_value = func is aten.index_put_.default and args[2].numel() == 1  # is filled in, without a wait
        if any(one.dtype in (torch.bool, torch.uint8) for one in places) and not one_value:
            self.waits.append(_line(func))
            raise AssertionError(f"the GPU alone knows the shape of {_line(func)}")
        if any(not one.is_cuda for one in places):
            self.waits.append(_line(func))

    def _look_at_layout(self, func: Any, given: list[Tensor], out: list[Tensor]) -> None:
        if func is aten.convolution.default:
            self.convolved.append(all(map(_is_last, [given[0], given[1], out[0]])))
        images = [one for one in given if one.ndim == 4 and one.is_cuda]
        if images and _is_last(images[0]) and not images[0].is_contiguous():
            same = [one for one in out if one.shape == images[0].shape]
            if func in CONTIGUOUS or any(not _is_last(one) for one in same):
                self.unlaid.append(_line(func))


def _is_last(image: Tensor) -> bool:
    return image.is_contiguous(memory_format=torch.channels_last)


def _line(func: Any) -> str:
    """Return the operator and the innermost line of the project that led to it."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        ours = any(path.is_relative_to(REPOSITORY / one) for one in ("train", "tests"))
        if ours and path != Path(__file__).resolve():
            return f"{func} at {path.relative_to(REPOSITORY)}:{frame.lineno} {frame.name}"
    return str(func)


class _Half(torch.autocast):
    """bfloat16 on the GPU is taken for float16: of convolutions in bfloat16, fake tensors tell the wrong layout."""

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, **more: Any) -> None:
        super().__init__(device_type, torch.float16 if dtype == torch.bfloat16 else dtype, **more)


def on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes with real numbers also under `fake_cuda`."""

    def run(*args: Any, **more: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **more)

    return run


def _copied(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Copy a fake tensor alone: torch would copy the mode that it belongs to as well, and spoil the heap."""
    made = self.detach().clone()
    made = nn.Parameter(made, self.requires_grad) if isinstance(self, nn.Parameter) else made
    memo[id(self)] = made
    return made


def _apply(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Put new parameters into a module: a real one cannot take a fake one's place in itself."""
    for child in self.children():
        child._apply(change)
    with torch.no_grad():
        for name, one in self._parameters.items():
            if one is not None:
                self._parameters[name] = nn.Parameter(change(one), one.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = change(buffer)
    return self


def _backward(of: Tensor | Sequence[Tensor], *_: Any, **__: Any) -> None:
    """Give each leaf that the loss depends on a gradient of its shape: autograd's own thread needs a driver."""
    seen, waiting = set(), [one.grad_fn for one in ([of] if isinstance(of, Tensor) else of)]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaf = node.variable
            leaf.grad = torch.empty_like(leaf) if leaf.grad is None else leaf.grad + torch.empty_like(leaf)
        waiting += [next_ for next_, _ in node.next_functions]


@contextmanager
def fake_cuda() -> Iterator[Watch]:
    """Run what is inside as if there were a GPU, and note what it would be asked.

    What computes with real numbers (building a model, decoding, tokens) is called through `on_host`.
    """
    watch = Watch()
    generator = torch.Generator

    def pin_memory(tensor: Tensor, *_: Any) -> Tensor:
        watch.pinned[id(tensor)] = tensor
        return tensor

    patches: list[tuple[Any, str, Any]] = [
        (torch, "autocast", _Half),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "mem_get_info", lambda *_: (64 << 30, 80 << 30)),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch, "Generator", lambda *_, **__: generator()),
        (
            torch,
            "get_rng_state",
            on_host(torch.get_rng_state),
        ),  # of a fake state, the generator reads what is not there
        (torch, "set_rng_state", on_host(torch.set_rng_state)),
        (torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state()),
        (torch.cuda, "set_rng_state", lambda *_: None),
        (torch.random, "fork_rng", lambda *_, **__: nullcontext()),  # of generators there are the CPU's alone
        (Tensor, "backward", _backward),
        (torch.autograd, "backward", _backward),
        (Tensor, "pin_memory", pin_memory),
        (nn.Module, "_apply", _apply),
        (FakeTensor, "__deepcopy__", _copied),
    ]
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))  # imports what patches would confuse
        stack.enter_context(watch)
        for owner, name, replacement in patches:
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield watch
