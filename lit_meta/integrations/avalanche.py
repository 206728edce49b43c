"""Metaplasticity for any Avalanche strategy, as a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch.utils.data import DataLoader

from lit_meta.core.batches import BatchFunction, unpack
from lit_meta.core.checks import check_rules
from lit_meta.core.layers import uncompiled
from lit_meta.core.rule import Rule
from lit_meta.core.session import Session


class MetaplasticityPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Makes an unmodified Avalanche strategy metaplastic.

    Every training experience of the strategy is one experience of the rule; a head that grows has grown before the
    experience begins.

    Args:
        rule: a rule, or several that answer each event in the given order.
        unpack: takes a batch of the experience's data set apart into (inputs, targets).

    Example:
        >>> from lit_meta.rules import EWC
        >>> MetaplasticityPlugin(EWC(strength=2.0)).rules[0].strength
        2.0
    """

    def __init__(self, rule: Rule | Sequence[Rule], *, unpack: BatchFunction = unpack) -> None:
        super().__init__()
        self.rules = check_rules(rule)
        self.session: Session | None = None
        self._unpack = unpack
        self._tested = ExitStack()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        if self.session is None:
            self.session = Session(strategy.model, self.rules, unpack=self._unpack)
        elif self.session.network is not uncompiled(strategy.model):
            raise ValueError(
                "this plugin has learned in another network; use a new rule for a new network (rule.clone())"
            )
        self.session.begin_experience()

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.before_forward(strategy.mb_x, strategy.mb_y)

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.after_backward()

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.before_step(strategy.optimizer)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self._bound.after_step(strategy.optimizer)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        data = strategy.experience.dataset
        collate = getattr(data, "collate_fn", None)
        self._bound.end_experience(DataLoader(data, batch_size=strategy.train_mb_size, collate_fn=collate))

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

    @property
    def _bound(self) -> Session:
        if self.session is None:
            raise RuntimeError("the plugin is not attached: it works inside strategy.train")
        return self.session
