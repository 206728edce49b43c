"""The state that spiking neurons of other packages keep from one call to the next.

snnTorch's and SpikingJelly's neurons hold their membrane potential as an attribute, so a network's output depends on its
previous inputs. Networks of this package keep no state between calls.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

# For each package: the class of its neurons (module and name) and the method that resets one.
_PACKAGES = (
    ("snntorch._neurons.neurons", "SpikingNeuron", "reset_mem"),
    ("spikingjelly.activation_based.base", "MemoryModule", "reset"),
)


class SpikingState:
    """The neurons of a network that keep state; searched once, so that a network without any has no overhead.

    Args:
        network: the network, or a module around it.

    Example:
        >>> state = SpikingState(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        >>> bool(state)
        False
        >>> state.reset()
    """

    def __init__(self, network: nn.Module) -> None:
        self._neurons: list[tuple[nn.Module, Callable[[], object]]] = []
        self._lasting = False
        for place, kind, method in _PACKAGES:
            # A network cannot hold neurons of a package that was never imported.
            neuron = getattr(sys.modules.get(place), kind, None)
            if neuron is None:
                continue
            for module in network.modules():
                if isinstance(module, neuron) and callable(reset := getattr(module, method, None)):
                    self._neurons.append((module, reset))

    def __bool__(self) -> bool:
        return bool(self._neurons)

    def reset(self) -> None:
        """Puts every neuron into its initial state, as before a new sample."""
        for _, reset in self._neurons:
            reset()

    def reset_used(self) -> None:
        """Resets all neurons if a state still depends on the graph of an earlier forward pass.

        That graph is freed by its backward pass, and another one through it would fail. Detached state is kept, since it may
        be carried over on purpose.
        """
        if any(
            tensor.requires_grad and not tensor.is_leaf for module, _ in self._neurons for tensor in _tensors(module)
        ):
            self.reset()

    @contextmanager
    def reset_before_calls(self, network: nn.Module) -> Iterator[None]:
        """Resets all neurons before every call of a network, except inside `lasting`."""
        if not self._neurons:
            yield
            return

        def hook(*_: object) -> None:
            if not self._lasting:
                self.reset()

        handle = network.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """Resets all neurons once, and not before calls of the network inside the block."""
        self.reset()
        outer, self._lasting = self._lasting, True
        try:
            yield
        finally:
            self._lasting = outer


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Tensors that a module stores: attributes, buffers, and those in mappings, tuples and lists among its attributes."""
    attributes: list[Any] = [*vars(module).values(), *module._buffers.values()]
    for value in attributes:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from (part for part in value if isinstance(part, Tensor))
        elif isinstance(value, Mapping):
            yield from (
                part for part in value.values() if isinstance(part, Tensor) and not isinstance(part, nn.Parameter)
            )
