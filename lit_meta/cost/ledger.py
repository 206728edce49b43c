"""The cost of every experience, counted while a Trainer fits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Literal

import lightning as L
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lit_meta.core.batches import BatchFunction
from lit_meta.core.layers import WEIGHT_LAYERS
from lit_meta.core.rule import Rule
from lit_meta.core.trees import tensors
from lit_meta.cost.arithmetic import ArithmeticCounter
from lit_meta.cost.memory import SavedTensors, tensor_bytes
from lit_meta.cost.operations import OperationCounter
from lit_meta.cost.totals import Cost
from lit_meta.functional._batch_tree import count_samples
from lit_meta.functional.cost import PICOJOULES_PER_ACCUMULATE, PICOJOULES_PER_MAC, published_operations
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.utils.heap import peak_bytes


class CostLedger(L.Callback):
    """Counts what learning costs, one `Cost` for every ``trainer.fit``.

    Works with and without `Metaplasticity`, in any order of the callbacks, and changes nothing that is computed. Given to
    `lit_meta.fit_stream`, its counts become part of ``StreamResult.cost``.

    Args:
        picojoules_per_mac: energy of a multiply-accumulate.
        picojoules_per_accumulate: energy of an accumulate.
        unpack: takes a batch apart into (inputs, targets), where the length of its tensors does not say how many samples it
            holds.

    Attributes:
        experiences: the cost of every finished experience.

    Example:
        >>> from lit_meta import MetaplasticModule, fit_stream, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> ledger = CostLedger()
        >>> result = fit_stream(module, scenario("split-digits", experiences=2), accelerator="cpu", callbacks=[ledger])
        >>> samples = sum(cost.samples for cost in ledger.experiences)
        >>> result.cost["forward_macs"] == samples * (64 * 8 + 8 * 10)
        True
    """

    def __init__(
        self,
        *,
        picojoules_per_mac: float = PICOJOULES_PER_MAC,
        picojoules_per_accumulate: float = PICOJOULES_PER_ACCUMULATE,
        unpack: BatchFunction | None = None,
    ) -> None:
        for name, value in (("mac", picojoules_per_mac), ("accumulate", picojoules_per_accumulate)):
            if not value >= 0:
                raise ValueError(f"picojoules_per_{name} must not be negative, got {value}")
        self.experiences: list[Cost] = []
        self._picojoules = {
            "picojoules_per_mac": picojoules_per_mac,
            "picojoules_per_accumulate": picojoules_per_accumulate,
        }
        self._unpack = unpack
        self._in_batch = False
        self._counter: OperationCounter | None = None
        self._handles: list[RemovableHandle] = []
        self._rules: tuple[Rule, ...] = ()
        self._observing = ExitStack()
        self._saved: SavedTensors | None = None
        self._arithmetic = ArithmeticCounter()
        self._present = Cost()
        self._epochs = 0
        self._started = 0.0
        self._inside: dict[str, Any] | None = None

    @property
    def total(self) -> Cost:
        """The cost of all experiences together.

        Raises:
            ValueError: there was none yet.
        """
        if not self.experiences:
            raise ValueError("no experience has been counted yet: give the ledger to a Trainer and fit")
        found = self.experiences[0]
        for cost in self.experiences[1:]:
            found = found + cost
        return found

    def experience_cost(self) -> Cost:
        """The cost of the last finished experience, for the stream that it is in.

        Raises:
            ValueError: there was none yet.
        """
        if not self.experiences:
            raise ValueError("no experience has been counted yet: give the ledger to a Trainer and fit")
        return self.experiences[-1]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Before any callback's on_train_start, where rules begin the experience.
        self._release()
        # Lightning gives its hooks no list of callbacks but the Trainer's.
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        plasticity = [callback for callback in callbacks if isinstance(callback, Metaplasticity)]
        self._rules = tuple(rule for callback in plasticity for rule in callback.rules)
        self._counter = OperationCounter(pl_module, local=any(rule.overrides("local_error") for rule in self._rules))
        self._present, self._epochs = Cost(), 0
        self._arithmetic.operations = 0
        for callback in plasticity:
            if callback.session is not None:
                self._observing.enter_context(callback.session.observe(self._observe))
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._started = time.perf_counter()
        if self._inside is not None:
            self._go_on(self._inside)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._stepped))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._present.samples == 0:
            self._saved = SavedTensors(pl_module).__enter__()
        self._present.samples += _samples(batch) if self._unpack is None else self._unpack(batch)[0].shape[0]
        self._counting.start()
        self._in_batch = True

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor) -> None:
        self._end_saving()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._counting.after_backward()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._end_saving()
        self._counting.stop()
        self._in_batch = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epochs += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
        self._present.optimizer_bytes = sum(tensor_bytes(state.values()) for state in states)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Here, because consolidation runs in on_train_end, after this callback's or before.
        found = self._present + self._counting.cost()
        found.seconds = time.perf_counter() - self._started
        found.rule_operations = self._arithmetic.operations
        found.published_operations = self._published(pl_module)
        found.state_bytes = sum(rule.state.bytes for rule in self._rules)
        found.peak_memory_bytes = _peak_memory(pl_module.device)
        found.set_energy(**self._picojoules)
        self.experiences.append(found)
        self._release()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"experiences": [asdict(cost) for cost in self.experiences], "inside": None}
        if self._counter is not None:
            state["inside"] = {
                "present": asdict(self._present),
                "counts": self._counter.counts(),
                "rule_operations": self._arithmetic.operations,
                "epochs": self._epochs,
                "seconds": time.perf_counter() - self._started,
            }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.experiences = [Cost(**cost) for cost in state_dict["experiences"]]
        self._inside = state_dict["inside"]

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._release()

    def _go_on(self, inside: dict[str, Any]) -> None:
        """Counts on from a checkpoint inside the experience."""
        self._present, self._epochs = Cost(**inside["present"]), inside["epochs"]
        self._counting.add(inside["counts"])
        self._arithmetic.operations = inside["rule_operations"]
        self._started -= inside["seconds"]
        self._inside = None

    @property
    def _counting(self) -> OperationCounter:
        if self._counter is None:
            raise RuntimeError("the ledger is not attached: it works inside trainer.fit")
        return self._counter

    def _observe(self, rule: Rule, event: str) -> AbstractContextManager[object]:
        return self._paused() if event == "rehearse" else self._arithmetic

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """What a rule tries out before the first step is no part of learning."""
        if not self._in_batch:
            yield
            return
        saved, self._saved = self._saved, None
        self._counting.stop()
        if saved is not None:
            saved.__exit__(None, None, None)
        try:
            yield
        finally:
            self._saved = None if saved is None else saved.__enter__()
            self._counting.start()

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._present.steps += 1
        self._present.weight_updates += sum(
            p.numel() for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        )

    def _end_saving(self) -> None:
        if self._saved is not None:
            self._saved.__exit__(None, None, None)
            self._present.saved_bytes = self._saved.bytes
            self._saved = None

    def _published(self, pl_module: nn.Module) -> float | None:
        names: dict[tuple[str, ...], Literal["sgd", "ewc", "naca"]] = {
            (): "sgd",
            ("EWC",): "ewc",
            ("NACA",): "naca",
        }
        name = names.get(tuple(type(rule).__name__ for rule in self._rules))
        layers = [module for module in pl_module.modules() if isinstance(module, WEIGHT_LAYERS)]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        chain = all(one.out_features == two.in_features for one, two in pairwise(linear))
        if name is None or not linear or len(linear) != len(layers) or not chain:
            return None
        sizes = [linear[0].in_features, *(layer.out_features for layer in linear)]
        tasks = len(self.experiences) if name == "ewc" else 0
        return published_operations(sizes, name, epochs=self._epochs, tasks=tasks)

    def _release(self) -> None:
        self._end_saving()
        self._in_batch = False
        self._observing.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._counter is not None:
            self._counter.close()
            self._counter = None


def _samples(batch: Any) -> int:
    try:
        return count_samples(batch)
    except ValueError:  # Tensors of several lengths: the first one tells.
        return next((len(tensor) for tensor in tensors(batch) if tensor.dim()), 0)


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()
