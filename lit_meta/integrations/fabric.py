"""Metaplasticity in a loop written with Lightning Fabric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import lightning as L
from lightning.fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_meta.core._training_steps import NonFinite
from lit_meta.core.batches import BatchFunction, unpack
from lit_meta.core.experience_data import ExperienceData, in_order, replicas
from lit_meta.core.rule import Rule
from lit_meta.core.session import Session
from lit_meta.core.task import Criterion
from lit_meta.integrations import _lightning
from lit_meta.rules.registry import build_rules
from lit_meta.utils.specs import Specification


class FabricSession(Session):
    """Binds rules to what ``fabric.setup`` returned.

    The rule sees the network itself, so that its memory has the names of the network's own parameters and goes from a Fabric
    loop to any other host and back.

    Args:
        fabric: that set the module up.
        module: what ``fabric.setup`` returned for the network, or the network.
        rules: a rule or its spec (see `lit_meta.rules.build_rule`), or several that answer each event in the given order.
        unpack: takes a batch apart into (inputs, targets).
        loss: what the network is trained for, a function of its outputs and the targets; None for the cross-entropy.
        non_finite: what becomes of a step whose loss or gradients are not finite: ``"raise"`` or ``"skip"``, as of `Session`.

    Raises:
        TypeError, ValueError: as of `Session`.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from lit_meta.rules import EWC
        >>> fabric = L.Fabric(accelerator="cpu", devices=1)
        >>> network = nn.Linear(4, 2)
        >>> module, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.1))
        >>> data = TensorDataset(torch.ones(6, 4), torch.tensor([0, 1] * 3))
        >>> loader = fabric.setup_dataloaders(DataLoader(data, batch_size=3))
        >>> session = FabricSession(fabric, module, EWC())
        >>> with session.experience(loader):
        ...     for inputs, targets in loader:
        ...         with session.step(inputs, targets, optimizer):
        ...             fabric.backward(nn.functional.cross_entropy(module(inputs), targets))
        >>> sorted(session.rules[0].state["importance"])
        ['bias', 'weight']
    """

    def __init__(
        self,
        fabric: L.Fabric,
        module: nn.Module,
        rules: Rule | Specification | Sequence[Rule | Specification],
        *,
        unpack: BatchFunction = unpack,
        loss: Criterion | None = None,
        non_finite: NonFinite = "raise",
    ) -> None:
        if _lightning.splits_parameters(fabric.strategy):
            raise ValueError(
                f"{type(fabric.strategy).__name__} splits parameters between processes, and a rule's memory is of whole "
                "parameters: use strategy='ddp', which gives every process the whole network"
            )
        network = _lightning.fabric_network(module)
        super().__init__(network, build_rules(rules), unpack=unpack, loss=loss, non_finite=non_finite)
        self._fabric = fabric
        self.scales_losses = getattr(fabric.strategy.precision, "scaler", None) is not None

    def before_batch(self, batch: object) -> None:
        """Before the forward pass of a training batch, which the module will convert to its precision."""
        super().before_batch(_converted(self._fabric, batch))

    def before_forward(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """Before the forward pass of a training batch that a loop has taken apart, see `Session.before_forward`."""
        inputs, targets = _converted(self._fabric, (inputs, targets))
        super().before_forward(inputs, targets)

    def before_step(self, optimizer: Optimizer | None = None) -> None:
        """Before the optimizer's step: unscales the gradients where the precision scales losses, and rules change them.

        Args:
            optimizer: what ``fabric.setup`` returned for it; needed where losses are scaled (``precision="16-mixed"``).
        """
        if optimizer is not None:
            optimizer = _lightning.fabric_optimizer(optimizer)
            self._fabric.strategy.precision.unscale_gradients(optimizer)
        super().before_step(optimizer)

    def after_step(self, optimizer: Optimizer | None = None) -> None:
        """After the optimizer's step: rules see, and may correct, what it did."""
        super().after_step(None if optimizer is None else _lightning.fabric_optimizer(optimizer))

    def end_experience(self, data: Iterable[object] | None = None) -> None:
        """Ends an experience, see `Session.end_experience`.

        Args:
            data: the experience's training data; a loader from ``fabric.setup_dataloaders`` is read in the order of its data
                set, in the precision and on the device of training.
        """
        ready = data if data is None or isinstance(data, ExperienceData) else _FabricData(self._fabric, data)
        super().end_experience(ready)


class _FabricData(ExperienceData):
    def __init__(self, fabric: L.Fabric, data: Iterable[Any]) -> None:
        self._fabric = fabric
        self._data = _lightning.fabric_loader(data)
        self.batches_per_step = replicas(self._data)

    def __iter__(self) -> Iterator[Any]:
        for batch in in_order(self._data):
            yield self._fabric.to_device(_converted(self._fabric, batch))


def _converted(fabric: L.Fabric, batch: Any) -> Any:
    """A batch as the network itself takes it; under mixed precision its parameters, and with them the rules, stay wide."""
    precision = fabric.strategy.precision
    return batch if isinstance(precision, MixedPrecision) else precision.convert_input(batch)
