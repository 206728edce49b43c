"""Any nn.Module as a metaplastic LightningModule."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_meta.core._training_steps import NonFinite
from lit_meta.core.batches import BatchFunction, UnpackOnce, unpack
from lit_meta.core.rule import Rule
from lit_meta.integrations import _lightning
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.integrations.losses import LOSSES, Loss, check_labels
from lit_meta.integrations.optimizers import OptimizerFactory, optimizer_factory
from lit_meta.networks.registry import build_network
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import Specification

_SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


class MetaplasticModule(L.LightningModule):
    """Wraps a classifier so that a Trainer can fit it with a metaplasticity rule, or (``rule=None``) without one.

    The rule reaches the network through the callback `Metaplasticity`, which this module brings along.

    Args:
        network: maps inputs (batch, ...) to outputs (batch, classes); or its spec, see `lit_meta.networks.build_network`.
        rule: a rule or its spec, several in order, or None for plain training.
        loss: ``"cross_entropy"`` (of logits), ``"mse"`` (half the squared distance to the one-hot label, averaged over
            the batch), ``"summed_mse"`` (its sum), or a function of (outputs, targets).
        optimizer: ``{"name": "sgd", "lr": 0.1}``, ``{"class_path": "torch.optim.SGD", "init_args": {...}}``, or a function of
            the parameters; see `lit_meta.integrations.optimizers.optimizer_factory`.
        unpack: takes a batch apart into (inputs, targets).
        non_finite: what becomes of a step whose loss or gradients are not finite, where there is a rule: ``"raise"`` or
            ``"skip"``, as of `Session`.

    Raises:
        KeyError: an unknown loss or optimizer.
        TypeError: a network or an optimizer of the wrong kind.

    Example:
        >>> from lit_meta.rules import EWC
        >>> module = MetaplasticModule(nn.Sequential(nn.Linear(4, 2)), rule=EWC())
        >>> import torch; module(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        network: nn.Module | Specification,
        *,
        rule: Rule | Specification | Sequence[Rule | Specification] | None = None,
        loss: str | Loss = "cross_entropy",
        optimizer: Specification | OptimizerFactory | None = None,
        unpack: BatchFunction = unpack,
        non_finite: NonFinite = "raise",
    ) -> None:
        super().__init__()
        if isinstance(network, (str, Mapping)):
            network = build_network(network)
        if not isinstance(network, nn.Module):
            raise TypeError(f"a network is a torch.nn.Module, got {type(network).__name__}")
        if isinstance(loss, str) and loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self.network = network
        self.loss: Loss = LOSSES[loss] if isinstance(loss, str) else loss
        self._checks_labels = isinstance(loss, str)
        self._optimizer = optimizer_factory(_SGD if optimizer is None else optimizer)
        self._unpack = UnpackOnce(unpack)
        # `fit_stream` spares itself the logging where nobody can read it: a fifth of the time of a small step.
        self.logs_loss = True
        self.plasticity = None
        if rule is not None:
            self.plasticity = Metaplasticity(rule, network="network", unpack=self._unpack, non_finite=non_finite)
        if self.plasticity is not None:
            self.plasticity.belongs_to_module = True

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = self._unpack(batch)
        if targets is None:
            raise ValueError("the batch has no targets, and the loss needs them")
        outputs = self._outputs(inputs) if self._checks_labels else self.network(inputs)
        if self._checks_labels:
            check_labels(outputs, targets)
        loss = self.loss(outputs, targets)
        if self.logs_loss:
            self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        loaders = self.trainer.val_dataloaders
        self._log_accuracy("validation_accuracy", batch, loaders, batch_idx, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        loaders = self.trainer.test_dataloaders
        self._log_accuracy("test_accuracy", batch, loaders, batch_idx, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._outputs(self._unpack(batch)[0]).argmax(1)

    def configure_callbacks(self) -> list[L.Callback]:
        if self.plasticity is None:
            return []
        trainer = _lightning.trainer_of(self)
        if trainer is not None:
            self.plasticity.check_alone(_lightning.callbacks_of(trainer))
        return [self.plasticity]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Brings the rule's memory along, so that `load_from_checkpoint` does too, and not the weights alone."""
        saved = {key: state for key, state in checkpoint.get("callbacks", {}).items() if _is_memory(state)}
        if self.plasticity is not None and self.plasticity.state_key in saved:
            self.plasticity.load_state_dict(saved[self.plasticity.state_key])
        elif saved:
            names = " and ".join(rule["name"] for state in saved.values() for rule in state["rules"])
            warnings.warn(
                f"the checkpoint holds the memory of {names}, which is left behind: give the module such a rule to keep it",
                stacklevel=2,
            )

    def configure_optimizers(self) -> Optimizer:
        return self._optimizer([p for p in self.network.parameters() if p.requires_grad])

    def _outputs(self, inputs: Tensor) -> Tensor:
        outputs = self.network(inputs)
        if not isinstance(outputs, Tensor):
            kind = " (its outputs.logits, say)" if hasattr(outputs, "logits") else ""
            raise TypeError(
                f"{type(self.network).__name__} gives a {type(outputs).__name__}, and this module needs a tensor of outputs "
                f"(batch, classes){kind}: wrap the network in one that returns it, or write a LightningModule with a loss of "
                "its own and give the Trainer the callback Metaplasticity(rule, network=...)"
            )
        return outputs

    def _log_accuracy(self, name: str, batch: Any, loaders: Any, batch_index: int, position: int) -> None:
        """Logs the accuracy over all samples in all processes, each counted once."""
        inputs, targets = self._unpack(batch)
        if targets is None:
            raise ValueError("the batch has no targets to compare predictions with")
        right = (self._outputs(inputs).argmax(1) == targets).float()
        genuine = _lightning.genuine_samples(loaders, position, batch_index, len(targets))
        if genuine is None:
            self.log(name, right.mean(), batch_size=len(targets))
            return
        # Lightning would average the processes' accuracies, whose batches are not of one size.
        counts = torch.stack([right[:genuine].sum(), right.new_tensor(genuine)])
        total = self.trainer.strategy.reduce(counts, reduce_op="sum")
        self.log(name, total[0] / total[1], batch_size=int(total[1]))


def _is_memory(state: Any) -> bool:
    return isinstance(state, Mapping) and bool(state.get("rules")) and "in_experience" in state
