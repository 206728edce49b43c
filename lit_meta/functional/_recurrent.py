"""Recurrent layers written out step by step, since `torch.func` cannot follow the fused ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (hidden, cell); the cell of other layers than LSTM is the hidden state once more, and never read.
_State = tuple[Tensor, Tensor]


@contextmanager
def unrolled(network: nn.Module) -> Iterator[None]:
    """Has the recurrent layers of a network run as matrix products and element-wise functions meanwhile."""
    modules: list[tuple[nn.Module, Callable[..., Any]]] = []
    for module in network.modules():
        if "forward" in module.__dict__:
            continue
        if type(module) in (nn.RNN, nn.GRU, nn.LSTM):
            modules.append((module, layer_forward))
        elif type(module) in (nn.RNNCell, nn.GRUCell, nn.LSTMCell):
            modules.append((module, cell_forward))
    try:
        for module, forward in modules:
            module.__dict__["forward"] = partial(forward, module)
        yield
    finally:
        for module, _ in modules:
            module.__dict__.pop("forward", None)


def layer_forward(layer: nn.RNNBase, x: Any, state: Any = None) -> tuple[Tensor, Any]:
    """What an `nn.RNN`, `nn.GRU` or `nn.LSTM` without dropout gives.

    Args:
        layer: the layer.
        x: (time, batch, features) or, with ``batch_first``, (batch, time, features).
        state: (layers x directions, batch, hidden), for an LSTM a pair of them; None for zeros.

    Raises:
        NotImplementedError: packed or unbatched sequences, or dropout.

    Example:
        >>> layer = nn.GRU(2, 3, bidirectional=True)
        >>> x = torch.randn(5, 1, 2)
        >>> torch.allclose(layer_forward(layer, x)[0], layer(x)[0], atol=1e-6)
        True
    """
    if not isinstance(x, Tensor) or x.dim() != 3 or (layer.training and layer.dropout):
        raise NotImplementedError("packed sequences, sequences without a batch and dropout are not written out")
    steps = x.transpose(0, 1) if layer.batch_first else x
    directions = 2 if layer.bidirectional else 1
    if state is None:
        shape = (layer.num_layers * directions, steps.shape[1])
        state = (
            steps.new_zeros(*shape, layer.proj_size or layer.hidden_size),
            steps.new_zeros(*shape, layer.hidden_size),
        )
        first = state
    else:
        first = state if isinstance(layer, nn.LSTM) else (state, state)
    last: list[_State] = []
    for depth in range(layer.num_layers):
        outputs = []
        for direction in range(directions):
            suffix = f"_l{depth}" + ("_reverse" if direction else "")
            position = depth * directions + direction
            output, end = _direction(
                layer, suffix, steps.flip(0) if direction else steps, (first[0][position], first[1][position])
            )
            outputs.append(output.flip(0) if direction else output)
            last.append(end)
        steps = torch.cat(outputs, dim=-1)
    hidden, cell = (torch.stack(parts) for parts in zip(*last, strict=True))
    return steps.transpose(0, 1) if layer.batch_first else steps, (hidden, cell) if isinstance(
        layer, nn.LSTM
    ) else hidden


def _direction(layer: nn.RNNBase, suffix: str, steps: Tensor, state: _State) -> tuple[Tensor, _State]:
    weight: Tensor = getattr(layer, f"weight_hh{suffix}")
    bias: Tensor | None = getattr(layer, f"bias_hh{suffix}", None)
    projection: Tensor | None = getattr(layer, f"weight_hr{suffix}", None)
    drives = F.linear(steps, getattr(layer, f"weight_ih{suffix}"), getattr(layer, f"bias_ih{suffix}", None))
    kind = layer.mode.split("_")[0]
    relu = layer.mode == "RNN_RELU"
    outputs = []
    for drive in drives.unbind(0):
        state = _step(kind, relu, drive, F.linear(state[0], weight, bias), state)
        if projection is not None:
            state = F.linear(state[0], projection), state[1]
        outputs.append(state[0])
    return torch.stack(outputs), state


def cell_forward(cell: nn.RNNCellBase, x: Tensor, state: Any = None) -> Any:
    """What an `nn.RNNCell`, `nn.GRUCell` or `nn.LSTMCell` gives.

    Example:
        >>> cell = nn.LSTMCell(2, 3)
        >>> x = torch.randn(4, 2)
        >>> torch.allclose(cell_forward(cell, x)[1], cell(x)[1], atol=1e-6)
        True
    """
    lstm = isinstance(cell, nn.LSTMCell)
    if state is None:
        zeros = x.new_zeros(*x.shape[:-1], cell.hidden_size)
        state = (zeros, zeros)
    elif not lstm:
        state = (state, state)
    kind = "LSTM" if lstm else "GRU" if isinstance(cell, nn.GRUCell) else "RNN"
    drive = F.linear(x, cell.weight_ih, cell.bias_ih)
    relu = getattr(cell, "nonlinearity", "") == "relu"
    hidden, memory = _step(kind, relu, drive, F.linear(state[0], cell.weight_hh, cell.bias_hh), state)
    return (hidden, memory) if lstm else hidden


def _step(kind: str, relu: bool, drive: Tensor, recurrent: Tensor, state: _State) -> _State:
    if kind == "LSTM":
        i, f, g, o = (drive + recurrent).chunk(4, dim=-1)
        cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell
    if kind == "GRU":
        (xr, xz, xn), (hr, hz, hn) = drive.chunk(3, dim=-1), recurrent.chunk(3, dim=-1)
        z = (xz + hz).sigmoid()
        hidden = (1 - z) * (xn + (xr + hr).sigmoid() * hn).tanh() + z * state[0]
    else:
        hidden = (drive + recurrent).relu() if relu else (drive + recurrent).tanh()
    return hidden, hidden
