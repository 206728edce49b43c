"""Metaplasticity for any LightningModule, as a callback."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from operator import attrgetter
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lit_meta.core._training_steps import NonFinite
from lit_meta.core.batches import BatchFunction, UnpackOnce, unpack
from lit_meta.core.binding import check_optimizer
from lit_meta.core.checks import check_rules
from lit_meta.core.layers import uncompiled
from lit_meta.core.rule import Rule
from lit_meta.core.session import Session
from lit_meta.integrations import _lightning
from lit_meta.integrations._experience_data import LightningData, LightningTask
from lit_meta.rules.registry import build_rules
from lit_meta.utils.specs import Specification
from lit_meta.utils.validation import require_one_of


class Metaplasticity(L.Callback):
    """Makes an unmodified LightningModule metaplastic.

    Every ``trainer.fit`` is one experience: it begins when training starts and ends, with consolidation on the training
    data, when training ends. The rule's memory is part of the Trainer's checkpoints.

    Lightning puts a callback that a module brings (``configure_callbacks``) in the place of the Trainer's of that class, before
    either of them is asked: a module that brings one should call `check_alone` there. `fit_stream` does.

    Args:
        rule: a rule or its spec (see `lit_meta.rules.build_rule`), or several that answer each event in the given order.
        network: the attribute of the LightningModule that maps inputs to outputs (``"backbone.classifier"`` goes
            deeper); None takes the LightningModule itself.
        unpack: takes a batch apart into (inputs, targets), for rules that need one of them; by default the common forms are
            understood. Rules that need neither take batches of any form.
        non_finite: what becomes of a step whose loss or gradients are not finite: ``"raise"`` or ``"skip"``, as of `Session`.

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
        self,
        rule: Rule | Specification | Sequence[Rule | Specification],
        *,
        network: str | None = None,
        unpack: BatchFunction = unpack,
        non_finite: NonFinite = "raise",
    ) -> None:
        self.rules = check_rules(build_rules(rule))
        require_one_of("non_finite", non_finite, ("raise", "skip"))
        self.non_finite: NonFinite = non_finite
        self.session: Session | None = None
        self._network = network
        self._unpack = unpack if isinstance(unpack, UnpackOnce) else UnpackOnce(unpack)
        self._data: LightningData | None = None
        self._handles: list[RemovableHandle] = []
        # A module's callback stays with a Trainer that has fitted the module, and gives way to that of another module.
        self.belongs_to_module = False
        self._has_trained = False
        self._has_stepped = False
        self._consolidated = torch.zeros(0)
        self._saved: dict[str, Any] | None = None

    def __repr__(self) -> str:
        rules = ", ".join(map(repr, self.rules))
        network = "" if self._network is None else f", network={self._network!r}"
        return f"{type(self).__name__}({rules if len(self.rules) == 1 else f'[{rules}]'}{network})"

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
        if _lightning.splits_parameters(trainer.strategy):
            raise ValueError(
                f"{type(trainer.strategy).__name__} splits parameters between processes, and a rule's memory is of whole "
                "parameters: use strategy='ddp', which gives every process the whole network"
            )
        for rule in self.rules if trainer.precision == "16-mixed" else ():
            if "fp16" in rule.limits:
                raise ValueError(
                    f"{type(rule).__name__} does not work with precision='16-mixed' ({rule.limits['fp16']}): use 'bf16-mixed'"
                )
        network = self._find_network(pl_module)
        self._check_beside(trainer, pl_module)
        _lightning.run_after_averaging(trainer, self)
        self._has_trained = False
        if self.session is None or self.session.network is not uncompiled(network):
            if self.session is not None:
                raise ValueError(
                    "this callback has learned in another network; use a new rule for a new network (rule.clone())"
                )
            self.session = Session(network, self.rules, unpack=self._unpack, non_finite=self.non_finite)
            self.session.shares_network = True  # The Trainer tells all callbacks of every step.
        self.session.scales_losses = trainer.precision == "16-mixed"
        self.session.task = LightningTask(trainer, pl_module, self.session.network)
        self._data = LightningData(trainer, pl_module, self.session.data_readers)
        self._load()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        session = self._session
        self._experience_data.check_end()
        self._has_trained = True
        self._check_optimizers(trainer)
        session.begin_experience()
        for optimizer in trainer.optimizers:
            handle = optimizer.register_step_post_hook(lambda stepped, *_: session.after_step(stepped))
            self._handles.append(handle)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._experience_data.begin_epoch()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        session = self._session
        if batch_idx == 0:
            session.refresh()
        if pl_module.automatic_optimization and batch_idx % trainer.accumulate_grad_batches == 0:
            session.drop_unfinished_step()  # An epoch was cut short while gradients were accumulated.
        self._has_stepped = False
        self._experience_data.count()
        session.batch_name = f"batch {batch_idx} of epoch {trainer.current_epoch} (both counted from 0)"
        session.before_batch(batch)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        divisor = trainer.accumulate_grad_batches if pl_module.automatic_optimization else None
        self._session.after_backward(loss_divisor=divisor)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        session = self._session
        if pl_module.automatic_optimization:
            if self._has_stepped:
                raise ValueError(
                    f"{type(optimizer).__name__} evaluates the loss several times in one step, and a rule follows steps of one "
                    "backward pass: use another optimizer"
                )
            self._has_stepped = True
            session.leave_batch()  # training_step has returned None.
        if _lightning.logs_this_step(trainer):
            for name, value in session.scalars().items():
                _lightning.log(self, name, value)
        session.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._session.leave_batch()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._session.leave_batch()  # A batch that on_train_batch_start has skipped has no end.

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        # A checkpoint may be saved while a batch is under way.
        values = {} if self.session is None else self.session.unperturbed()
        for part in _lightning.WEIGHTS if values else ():
            tensors: dict[str, Any] = checkpoint.get(part, {})
            for name, tensor in tensors.items():
                if isinstance(tensor, Tensor) and tensor.data_ptr() in values:
                    tensors[name] = values[tensor.data_ptr()]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._release()
        self._session.end_experience(self._experience_data)
        self._let_go()
        self._consolidated = _some_values(self._session.network)
        # Lightning has saved the last checkpoint already, and a second task that began with it would not be protected.
        _lightning.save_last_again(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._has_trained:
            raise ValueError(
                f"trainer.fit took no training step, so that there is no experience to learn: this Trainer has had its epochs "
                f"(max_epochs={trainer.max_epochs}, counted over all its fits) or steps, or there was no batch; use a new "
                "Trainer for every experience"
            )
        consolidating = [type(rule).__name__ for rule in self.rules if rule.overrides("end_experience")]
        if consolidating and not torch.equal(self._consolidated, _some_values(self._session.network)):
            warnings.warn(
                f"the weights were changed after {' and '.join(consolidating)} had consolidated, so that what is protected is "
                "not what stays: put Metaplasticity behind the callback that changes them when training ends",
                stacklevel=2,
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._release()
        self._let_go()
        if self.session is not None:
            self.session.close()

    def state_dict(self) -> dict[str, Any]:
        if self.session is None:
            return {}
        state = self.session.state_dict()
        return state if self._data is None else {**state, "batches": list(self._data.batches_of_epochs)}

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

    def check_alone(self, callbacks: Sequence[L.Callback]) -> None:
        """Checks that a Trainer has no rule of its own beside the one that a module brings: Lightning would drop it silently.

        Args:
            callbacks: the Trainer's.

        Raises:
            ValueError: it has.
        """
        for callback in callbacks:
            if isinstance(callback, Metaplasticity) and callback is not self and not callback.belongs_to_module:
                own, brought = (" and ".join(type(r).__name__ for r in c.rules) for c in (callback, self))
                raise ValueError(
                    f"the Trainer has a Metaplasticity callback ({own}), and the module brings its own ({brought}), which "
                    "would replace it: give the module both rules, or leave the callback out"
                )

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
            if self._data is not None and self._saved.get("batches"):
                self._data.continue_from(self._saved["batches"])
            self._saved = None

    def _check_beside(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks that this callback gets on with the others of the Trainer.

        Raises:
            ValueError: it does not.
        """
        averaging = _lightning.averaging_callbacks(trainer)
        for rule in self.rules if averaging else ():
            if rule.overrides("synchronize"):
                raise ValueError(
                    f"{type(rule).__name__} works weights out from its memory, and {type(averaging[0]).__name__} would put an "
                    "average of older ones in their place: use one of them"
                )
        own = {id(p) for p in self._find_network(pl_module).parameters()}
        before: list[Rule] = []
        for callback in _lightning.callbacks_of(trainer):
            if callback is self:
                break
            if isinstance(callback, Metaplasticity):
                for rule in self.rules:
                    if any(rule is other for other in callback.rules):
                        raise ValueError(
                            f"two callbacks have the same {type(rule).__name__}, which has one memory: give each a rule of its "
                            "own (rule.clone())"
                        )
                others = {id(p) for p in callback._find_network(pl_module).parameters()}
                before += callback.rules if own & others else ()
        if not before:
            return
        check_rules([*before, *self.rules])
        for rule in self.rules:
            if rule.overrides("local_error"):
                raise ValueError(
                    f"{type(rule).__name__} in a callback of its own comes too late for {type(before[0]).__name__}: give one "
                    f"callback both rules, Metaplasticity([{type(before[0]).__name__}(...), {type(rule).__name__}(...)])"
                )

    def _check_optimizers(self, trainer: L.Trainer) -> None:
        """Checks that what the Trainer does with gradients and steps suits the rules.

        Raises:
            ValueError: it does not.
        """
        own = {id(p) for p in self._session.network.parameters()}
        clearing = [rule for rule in self.rules if rule.makes_update or rule.head_only]
        for optimizer in trainer.optimizers:
            check_optimizer(optimizer)
            if clearing and _lightning.clips_by_value(trainer) and own.issuperset(_parameters(optimizer)):
                raise ValueError(
                    f"{type(clearing[0]).__name__} leaves the optimizer no gradients, which gradient_clip_algorithm='value' "
                    "cannot take: use 'norm', or no clipping"
                )

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _find_network(self, pl_module: L.LightningModule) -> nn.Module:
        if self._network is None:
            return pl_module
        try:
            network = attrgetter(self._network)(pl_module)
        except AttributeError:
            children = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise ValueError(
                f"{type(pl_module).__name__} has no attribute {self._network!r} to attach to; its modules: {children}"
            ) from None
        if not isinstance(network, nn.Module):
            raise TypeError(f"{self._network!r} is a {type(network).__name__}, not a torch.nn.Module")
        return network


def _some_values(network: nn.Module) -> Tensor:
    """A few values of every parameter, that tell a network from the same one with other weights."""
    few = [p.detach().flatten()[:: max(1, p.numel() // 16)].double().cpu() for p in network.parameters()]
    return torch.cat(few)


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
