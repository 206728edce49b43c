"""One cell of the matrix: a rule in a network through a host, and what came of it."""

from __future__ import annotations

import os
import random
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lit_meta
from lit_meta import Metaplasticity, MetaplasticityPlugin, fit_stream
from lit_meta.data.tensors import tensor_benchmark
from lit_meta.rules import RULES, Rule
from lit_meta.streams.learner import quiet
from tests.interop.models import BATCH, MODELS, Classifier, Model, optimizer_of
from tests.interop.networks import reset

# Lightning's name of the device: "cuda" tries the matrix on a GPU.
ACCELERATOR = os.environ.get("LIT_META_TEST_ACCELERATOR", "cpu")
_SILENT: dict[str, Any] = {
    "accelerator": ACCELERATOR,
    "max_epochs": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
_PACKAGE = str(Path(lit_meta.__file__).parent)


def make_rule(name: str, model: Model) -> Rule:
    """A rule with its default hyperparameters, apart from what so few samples and such networks need."""
    settings: dict[str, dict[str, Any]] = {
        "ewc": {"strength": model.penalty},
        "mas": {"strength": model.penalty},
        "continual-backprop": {"rate": 0.1, "maturity": 0},
        "critical-period": {"samples": BATCH, "patches": 200},
        "naca": {"classes": model.classes},
    }
    return RULES[name](**settings.get(name, {}))


def through_callback(model: Model, network: nn.Module, rule: Rule | None) -> None:
    module = model.module(network)
    options = {} if model.unpack is None else {"unpack": model.unpack}
    callbacks: list[L.Callback] = [] if rule is None else [Metaplasticity(rule, **options)]
    for inputs, labels in model.experiences():
        trainer = L.Trainer(**_SILENT, callbacks=callbacks)
        trainer.fit(module, DataLoader(model.rows(inputs, labels), batch_size=BATCH))


def through_plugin(model: Model, network: nn.Module, rule: Rule | None) -> None:
    from avalanche.core import SupervisedPlugin
    from avalanche.evaluation.metrics import loss_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    class Reset(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **options: Any) -> None:
            reset(network)

    plugins = [Reset()] if rule is None else [MetaplasticityPlugin(rule), Reset()]
    strategy = Naive(
        model=network,
        optimizer=optimizer_of(network),
        criterion=F.cross_entropy,
        train_mb_size=BATCH,
        train_epochs=1,
        plugins=plugins,
        evaluator=EvaluationPlugin(loss_metrics(experience=True), loggers=[]),
        device=ACCELERATOR,
    )
    experiences = model.experiences()
    for experience in tensor_benchmark(experiences, experiences).train_stream:
        strategy.train(experience, shuffle=False, drop_last=False)


def through_fit_stream(model: Model, network: nn.Module, rule: Rule | None) -> None:
    experiences = model.experiences()
    callbacks = [] if rule is None else [Metaplasticity(rule)]
    benchmark = tensor_benchmark(experiences, experiences)
    fit_stream(Classifier(network), benchmark, batch_size=BATCH, accelerator=ACCELERATOR, callbacks=callbacks)


def through_fabric(model: Model, network: nn.Module, rule: Rule | None) -> None:
    from lit_meta.integrations.fabric import FabricSession

    fabric = L.Fabric(accelerator=ACCELERATOR, devices=1)
    module, optimizer = fabric.setup(network, optimizer_of(network))
    session = None if rule is None else FabricSession(fabric, module, rule)
    module.train()
    for experience in model.experiences():
        loader = fabric.setup_dataloaders(DataLoader(TensorDataset(*experience), batch_size=BATCH))
        if session is not None:
            session.begin_experience()
        for inputs, labels in loader:
            optimizer.zero_grad()
            if session is not None:
                session.before_batch((inputs, labels))
            fabric.backward(F.cross_entropy(module(inputs), labels))
            if session is not None:
                session.after_backward()
                session.before_step(optimizer)
            optimizer.step()
            if session is not None:
                session.after_step(optimizer)
            reset(network)
        if session is not None:
            session.end_experience(loader)


THROUGH: dict[str, Callable[[Model, nn.Module, Rule | None], None]] = {
    "callback": through_callback,
    "plugin": through_plugin,
    "fit_stream": through_fit_stream,
    "fabric": through_fabric,
}


def verdict(model: str, rule: str, host: str) -> str:
    """``"works"``, ``"refused: why"`` or ``"fails: how"``."""
    row = MODELS[model]
    with _quietly():  # Libraries warn while they are imported, too.
        learned, network = make_rule(rule, row), _network(row, host)
    before = _copy(network)
    try:
        with _quietly():
            THROUGH[host](row, network, learned)
    except Exception as error:  # Whatever it is, the cell says so.
        return _of_error(error, network, before)
    return _of_training(learned, network, before, _without(model, host))


def _of_error(error: Exception, network: nn.Module, before: dict[str, Tensor]) -> str:
    text = " ".join(str(error).split())
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    if not isinstance(error, (ValueError, TypeError)) or not raised.startswith(_PACKAGE):
        return f"fails: {type(error).__name__}: {text[:200]}"
    after = _copy(network)
    moved = [name for name, value in before.items() if not torch.equal(after[name], value)]
    if moved:
        return f"fails: refused only after {moved[0]} had changed: {text}"
    if not text or "\n" in str(error).strip():
        return f"fails: refused in other than one sentence: {text}"
    return f"refused: {text}"


def _of_training(rule: Rule, network: nn.Module, before: dict[str, Tensor], without: dict[str, Tensor]) -> str:
    after = _copy(network)
    broken = [name for name, value in after.items() if not bool(torch.isfinite(value).all())]
    if broken:
        return f"fails: {broken[0]} is not finite"
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    if all(torch.equal(after[name], before[name]) for name in trained):
        return "fails: nothing was learned"
    if all(torch.equal(after[name], without[name]) for name in trained):
        return "fails: the weights are those of training without the rule"
    memory = {name: value for name, value in rule.state.state_dict().items() if value.is_floating_point()}
    unknown = [name for name, value in memory.items() if not bool(torch.isfinite(value).all())]
    if unknown:
        return f"fails: {unknown[0]} in the rule's memory is not finite"
    importance = [rule.state[quantity] for quantity in rule.state if quantity == "importance"]
    if importance and not any(bool(value.any()) for value in importance[0].values()):
        return "fails: the importance of every parameter is 0"
    return "works"


@lru_cache(maxsize=2)
def _without(model: str, host: str) -> dict[str, Tensor]:
    """The weights after the same training without a rule."""
    row = MODELS[model]
    with _quietly():
        network = _network(row, host)
        THROUGH[host](row, network, None)
    return _copy(network)


def _network(row: Model, host: str) -> nn.Module:
    torch.manual_seed(0)
    random.seed(0)
    network = row.build()
    network = network if host == "callback" else row.alone(network)
    # Dropout would draw other numbers once a rule runs the network for itself.
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch.manual_seed(1)
    return network.train()


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()}


@contextmanager
def _quietly() -> Any:
    with quiet(), warnings.catch_warnings():
        # How other libraries like to be used is not what is tested here.
        warnings.simplefilter("ignore")
        yield
