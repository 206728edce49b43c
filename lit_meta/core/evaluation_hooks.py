"""Noticing that a network is about to be evaluated, for rules that keep its weights up to date only then."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lit_meta.core.layers import weight_layers


class EvaluationWatch:
    """Forward pre-hooks that let rules bring weights up to date before a network in evaluation mode uses them.

    Args:
        network: the network to watch.
        synchronize: called before every forward pass of a weight layer in evaluation mode; must be quick where nothing
            has changed.
    """

    def __init__(self, network: nn.Module, synchronize: Callable[[], None]) -> None:
        self._handles = [
            layer.module.register_forward_pre_hook(_BeforeEvaluation(layer.module, synchronize))
            for layer in weight_layers(network)
        ]

    def close(self) -> None:
        """Removes all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _BeforeEvaluation:
    """Does nothing in a copy of the module: a copied or unpickled network has no rule that learns in it."""

    def __init__(self, module: nn.Module | None = None, synchronize: Callable[[], None] | None = None) -> None:
        self._module = module
        self._synchronize = synchronize

    def __call__(self, module: nn.Module, arguments: tuple[object, ...]) -> None:
        if self._synchronize is not None and module is self._module and not module.training:
            self._synchronize()

    def __reduce__(self) -> tuple[type[_BeforeEvaluation], tuple[()]]:
        return type(self), ()
