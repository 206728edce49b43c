"""Spiking networks of other libraries (snnTorch, or any module that computes a time step) that learn from their last step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_meta.networks._build import positive


class Stepwise(nn.Module):
    """Runs a module that computes one time step T times; only the last step builds a graph.

    The output is the firing rate ``(Σ_t S_t) / T``, whose gradient is passed straight to the last spike, as in `LIFMLP`.
    Local rules see every layer once, and the memory of training does not grow with T.

    Args:
        step: one time step, from an input (batch, ...) to spikes (batch, classes), or to a tuple that begins with them, as
            the last layer of an snnTorch network returns (``output=True``). It stores its membranes itself
            (``init_hidden=True``).
        steps: T, at least 1.
        frames: the input is (batch, steps, ...), one frame per step; otherwise every step gets the same input.
        reset: called with ``step`` before the first step of every pass. None calls ``reset_mem()`` of each submodule that
            has it, as snnTorch's neurons do.

    Raises:
        TypeError: ``steps`` is not an integer.
        ValueError: ``steps`` below 1, no submodule to reset, an input with a different number of frames, or an output that
            is not spikes (batch, classes).

    Example:
        >>> class Accumulator(nn.Module):
        ...     def reset_mem(self): self.total = 0.0
        ...     def forward(self, x): self.total = self.total + x; return (self.total > 1).float()
        >>> Stepwise(Accumulator(), steps=4)(torch.tensor([[0.3, 0.6]]))
        tensor([[0.2500, 0.7500]])
    """

    def __init__(
        self,
        step: nn.Module,
        *,
        steps: int,
        frames: bool = False,
        reset: Callable[[nn.Module], object] | None = None,
    ) -> None:
        super().__init__()
        self.step = step
        self.steps = positive("steps", steps)
        self.frames = frames
        self._reset = reset
        if reset is None and not any(hasattr(module, "reset_mem") for module in step.modules()):
            raise ValueError(
                "no submodule has reset_mem(), so membranes would carry over from one batch to the next: pass reset, a "
                "function that takes the module"
            )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...), or (batch, steps, ...) with ``frames`` -> (batch, classes) firing rates."""
        if self.frames and (x.dim() < 3 or x.shape[1] != self.steps):
            raise ValueError(f"expected frames (batch, {self.steps}, ...), got {tuple(x.shape)}")
        if self._reset is not None:
            self._reset(self.step)
        else:
            for module in self.step.modules():
                reset = getattr(module, "reset_mem", None)
                if callable(reset):
                    reset()
        earlier: Tensor | float = 0.0
        with torch.no_grad():
            for t in range(self.steps - 1):
                earlier = earlier + self._spikes(x, t)
        last = self._spikes(x, self.steps - 1)
        rate = (earlier + last.detach()) / self.steps
        return rate + (last - last.detach())

    def _spikes(self, x: Tensor, t: int) -> Tensor:
        output = self.step(x[:, t] if self.frames else x)
        spikes = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(spikes, Tensor) or spikes.dim() != 2:
            shape = tuple(spikes.shape) if isinstance(spikes, Tensor) else type(spikes).__name__
            raise ValueError(
                f"a step must return spikes (batch, classes), or a tuple that begins with them, got {shape}"
            )
        return spikes

    def extra_repr(self) -> str:
        return f"steps={self.steps}, frames={self.frames}"
