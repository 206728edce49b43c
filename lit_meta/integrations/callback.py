"""Metaplasticity for any LightningModule, as a callback."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from operator import attrgetter
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lit_meta.core.batches import BatchFunction, UnpackOnce, unpack
from lit_meta.core.checks import check_rules
from lit_meta.core.layers import uncompiled
from lit_meta.core.rule import Rule
from lit_meta.core.session import Session
from lit_meta.integrations import _lightning
from lit_meta.integrations._experience_data import LightningData, LightningTask


class Metaplasticity(L.Callback):
    """Makes an unmodified LightningModule metaplastic.

    Every ``trainer.fit`` is one experience: it begins when training starts and ends, with consolidation on the training
    data, when training ends. The rule's memory is part of the Trainer's checkpoints.

    Args:
        rule: a rule, or several that answer each event in the given order.
        network: the attribute of the LightningModule that maps inputs to outputs (``"backbone.classifier"`` goes
            deeper); None takes the LightningModule itself.
        unpack: takes a batch apart into (inputs, targets), for rules that need one of them; by default the common forms are
            understood. Rules that need neither take batches of any form.

    Raises:
        ValueError: a network that the rule cannot work with; see `Session`.

    Example:
        >>> from lit_meta.rules import EWC
        >>> trainer = L.Trainer(callbacks=[Metaplasticity(EWC(strength=1.0))], logger=False, enable_checkpointing=False,
        ...                     enable_model_summary=False, enable_progress_bar=False, accelerator="cpu")
        >>> trainer.callbacks[0].rules
        (EWC(strength=1.0, mode='offline', decay=1.0, labels='true', loss='task', samples=None, seed=0),)
    """

    def __init__(
        self, rule: Rule | Sequence[Rule], *, network: str | None = None, unpack: BatchFunction = unpack
    ) -> None:
        self.rules = check_rules(rule)
        self.session: Session | None = None
        self._network = network
        self._unpack = unpack if isinstance(unpack, UnpackOnce) else UnpackOnce(unpack)
        self._data: LightningData | None = None
        self._handles: list[RemovableHandle] = []
        self._saved: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        return _lightning.state_key(self, rules=[type(rule).__name__ for rule in self.rules], network=self._network)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        local = any(rule.overrides("local_error") for rule in self.rules)
        if local and _lightning.misses_unused_parameters(trainer.strategy):
            raise ValueError(
                "with a local rule the loss does not reach hidden layers, so DDP must be told to expect unused parameters: "
                "Trainer(strategy='ddp_find_unused_parameters_true')"
            )
        for rule in self.rules if trainer.precision == "16-mixed" else ():
            if "fp16" in rule.limits:
                raise ValueError(
                    f"{type(rule).__name__} does not work with precision='16-mixed' ({rule.limits['fp16']}): use 'bf16-mixed'"
                )
        network = self._find_network(pl_module)
        if self.session is None or self.session.network is not uncompiled(network):
            if self.session is not None:
                raise ValueError(
                    "this callback has learned in another network; use a new rule for a new network (rule.clone())"
                )
            self.session = Session(network, self.rules, unpack=self._unpack)
        self.session.task = LightningTask(trainer, pl_module, self.session.network)
        self._data = LightningData(trainer, pl_module, self.session.data_readers)
        self._load()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        session = self._session
        self._experience_data.check_end()
        session.begin_experience()
        if "update" in session.answers:
            for optimizer in trainer.optimizers:
                handle = optimizer.register_step_post_hook(lambda stepped, *_: session.after_step(stepped))
                self._handles.append(handle)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._experience_data.begin_epoch()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._experience_data.count()
        self._session.before_batch(batch)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        divisor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self._session.after_backward(loss_divisor=divisor)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        session = self._session
        if _lightning.logs_this_step(trainer):
            for name, value in session.scalars().items():
                _lightning.log(self, name, value)
        session.before_step(optimizer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._release()
        self._session.end_experience(self._experience_data)
        self._let_go()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._release()
        self._let_go()
        if self.session is not None:
            self.session.close()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.session is None else self.session.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = dict(state_dict)
        # A stream that was complete is never fitted again, and yet its rules' memory is read.
        for rule, entry in zip(self.rules, self._saved.get("rules", ()), strict=False):
            if entry["name"] == type(rule).__name__:
                rule.state.load_state_dict(entry["state"])
        self._load()

    def context(self, pl_module: L.LightningModule, experiences: Tensor) -> AbstractContextManager[object]:
        """Tells rules that need tasks, while ``pl_module`` is tested, what each sample of a batch is of.

        Args:
            pl_module: the LightningModule that this callback is used with.
            experiences: of each sample, the position of its experience in the stream, (batch,).
        """
        stack = ExitStack()
        for rule in self.rules:
            stack.enter_context(rule.context(self._find_network(pl_module), experiences))
        return stack

    @property
    def _session(self) -> Session:
        if self.session is None:
            raise RuntimeError("the callback is not attached: it works inside trainer.fit")
        return self.session

    @property
    def _experience_data(self) -> LightningData:
        if self._data is None:
            raise RuntimeError("the callback is not attached: it works inside trainer.fit")
        return self._data

    def _let_go(self) -> None:
        """Neither the Trainer's data nor its last batch outlive the fit."""
        if self._data is not None:
            self._data.close()
        self._data = None
        self._unpack.forget()

    def _load(self) -> None:
        # A checkpoint may be read before the network is known.
        if self.session is not None and self._saved:
            self.session.load_state_dict(self._saved)
            self._saved = None

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _find_network(self, pl_module: L.LightningModule) -> nn.Module:
        if self._network is None:
            return pl_module
        try:
            found = attrgetter(self._network)(pl_module)
        except AttributeError:
            children = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise ValueError(
                f"{type(pl_module).__name__} has no attribute {self._network!r} to attach to; its modules: {children}"
            ) from None
        if not isinstance(found, nn.Module):
            raise TypeError(f"{self._network!r} is a {type(found).__name__}, not a torch.nn.Module")
        return found
