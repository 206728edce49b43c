"""Metaplasticity for any Avalanche strategy, as a plugin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import TaskBalancedDataLoader
from avalanche.core import SupervisedPlugin
from avalanche.models.dynamic_modules import DynamicModule, MultiTaskModule, avalanche_model_adaptation
from avalanche.models.utils import avalanche_forward
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_meta.core._training_steps import NonFinite
from lit_meta.core.batches import BatchFunction, UnpackOnce, unpack
from lit_meta.core.checks import check_rules
from lit_meta.core.experience_data import PlainData
from lit_meta.core.layers import uncompiled
from lit_meta.core.rule import Rule
from lit_meta.core.session import Session
from lit_meta.core.task import Form, NoOneLoss
from lit_meta.rules.registry import build_rules
from lit_meta.utils.specs import Specification
from lit_meta.utils.validation import require_one_of


class MetaplasticityPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Makes an unmodified Avalanche strategy metaplastic.

    Every training experience of the strategy is one experience of the rule; a head that grows has grown before the
    experience begins.

    Args:
        rule: a rule or its spec (see `lit_meta.rules.build_rule`), or several that answer each event in the given order.
        unpack: takes a minibatch apart into (inputs, targets); by default these are its first two parts, as in Avalanche.
        non_finite: what becomes of a step whose loss or gradients are not finite: ``"raise"`` or ``"skip"``, as of `Session`.

    Example:
        >>> from lit_meta.rules import EWC
        >>> MetaplasticityPlugin(EWC(strength=2.0)).rules[0].strength
        2.0
    """

    def __init__(
        self,
        rule: Rule | Specification | Sequence[Rule | Specification],
        *,
        unpack: BatchFunction | None = None,
        non_finite: NonFinite = "raise",
    ) -> None:
        super().__init__()
        require_one_of("non_finite", non_finite, ("raise", "skip"))
        self.non_finite: NonFinite = non_finite
        self.rules = check_rules(build_rules(rule))
        self.session: Session | None = None
        self._unpack = UnpackOnce(_first_two if unpack is None else unpack)
        self._tested = ExitStack()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        if self.session is None:
            self.session = Session(strategy.model, self.rules, unpack=self._unpack, non_finite=self.non_finite)
        elif self.session.network is not uncompiled(strategy.model):
            raise ValueError(
                "this plugin has learned in another network; use a new rule for a new network (rule.clone())"
            )
        self.session.task = _StrategyTask(strategy, self.session.network, self._unpack)
        self.session.begin_experience()
        # Avalanche tells plugins of no error, and a step that fails is to be undone.
        self._epoch = strategy.training_epoch
        strategy.training_epoch = self._train_epoch

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.refresh()

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.before_batch(strategy.mbatch)

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.after_backward()

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.before_step(strategy.optimizer)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.after_step(strategy.optimizer)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        vars(strategy).pop("training_epoch", None)
        self._bound.end_experience(PlainData(self._bound.network, _training_data(strategy)))

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        # An experience hides its position in some modes; its logging mode shows everything.
        self._position = int(strategy.experience.logging().current_experience)

    def before_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        self._tested.close()
        experiences = torch.full((len(strategy.mb_x),), self._position)
        for rule in self.rules:
            if rule.needs_tasks:
                self._tested.enter_context(rule.context(strategy.model, experiences))

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        self._tested.close()

    def _train_epoch(self, **kwargs: Any) -> None:
        try:
            self._epoch(**kwargs)
        except BaseException:
            vars(self._epoch.__self__).pop("training_epoch", None)
            self._bound.close()
            raise

    @property
    def _bound(self) -> Session:
        if self.session is None:
            raise RuntimeError("the plugin is not attached: it works inside strategy.train")
        return self.session


class _StrategyTask:
    """The strategy's own criterion, of its own call of the model."""

    plain = False
    inseparable: NoOneLoss | None = None

    def __init__(self, strategy: Any, network: nn.Module, unpack: BatchFunction) -> None:
        self.owner = network
        self.form: Form | None = None
        self._strategy = strategy
        self._unpack = unpack

    def loss(self, batch: Any) -> Tensor:
        inputs, targets = self._unpack(batch)
        model = self._strategy.model
        if hasattr(self._strategy.experience, "task_labels") and isinstance(batch, (list, tuple)) and len(batch) > 2:
            outputs = avalanche_forward(model, inputs, batch[-1])
        else:
            outputs = model(inputs)
        loss: Tensor = self._strategy._criterion(outputs, targets)
        return loss

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()


def _first_two(batch: Any) -> tuple[Tensor, Tensor | None]:
    return unpack(tuple(batch[:2]) if isinstance(batch, (list, tuple)) else batch)


def _training_data(strategy: Any) -> Any:
    """What the strategy trained on: its own loader where that mixes in other data, such as those of a replay memory."""
    loader = strategy.dataloader
    if loader and type(loader) not in (DataLoader, TaskBalancedDataLoader):
        return loader
    data = strategy.experience.dataset
    return DataLoader(data, batch_size=strategy.train_mb_size, collate_fn=getattr(data, "collate_fn", None))


def grows(module: nn.Module) -> bool:
    """Whether some part of a module is one that Avalanche adapts to every experience."""
    return any(isinstance(part, DynamicModule) for part in module.modules())


def multi_task_modules(module: nn.Module) -> list[nn.Module]:
    """The multi-task parts that a module's own code calls: those inside another are called by it, with labels."""
    multi_task = {name: part for name, part in module.named_modules() if isinstance(part, MultiTaskModule)}
    inner = {
        name
        for name in multi_task
        for outer in multi_task
        if name != outer and name.startswith(f"{outer}." if outer else "")
    }
    return [part for name, part in multi_task.items() if name not in inner]


def adapt(module: nn.Module, experiences: Iterable[Any], *, training: bool) -> None:
    """Adapts the dynamic parts of a module, as Avalanche's strategies do before an experience is learned or tested."""
    modes = {part: part.training for part in module.modules()}
    module.train(training)
    for experience in experiences:
        avalanche_model_adaptation(module, experience)
    for part, mode in modes.items():
        part.training = mode
