"""What can be known to be wrong with an experiment before anything is downloaded, trained or written."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch
from torch import nn

from lit_meta.data.registry import SCENARIOS, scenario_spec
from lit_meta.experiments.config import Experiment
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.optimizers import optimizer_factory
from lit_meta.networks.registry import NETWORKS, build_network
from lit_meta.rules.registry import RULES, build_rule
from lit_meta.utils.memory_limit import MemoryLimit
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import Specification, check, label


def check_specs(experiment: Experiment, *, trusted: bool = True) -> None:
    """Checks that everything an experiment names, for every learner, exists and takes the given arguments.

    A mistake in an override of the last learner is found before the first one trains.

    Args:
        experiment: the experiment to check.
        trusted: whether it is the user's own, and may import what it names.

    Raises:
        KeyError: an unknown name; the nearest are named.
        TypeError: an argument that does not exist, is missing, or is of another type.
        ValueError: a class path does not exist or must not be imported.

    Example:
        >>> from lit_meta.experiments import load_experiment
        >>> check_specs(load_experiment("ewc-mlp-digits", ["overrides.joint.network.hiden=[3]"]))
        Traceback (most recent call last):
        ...
        TypeError: network 'mlp' has no argument 'hiden'; did you mean 'hidden'? It takes inputs, hidden, ...
    """
    check(scenario_spec(experiment.scenario).to_dict(), SCENARIOS, offered={"seed": 0}, trusted=trusted)
    networks = []
    for learner in experiment.learners:
        part = experiment.for_learner(learner)
        check(part.network, NETWORKS, trusted=trusted)
        for rule in [part.rule] if isinstance(part.rule, (str, Mapping)) else part.rule or []:
            check(rule, RULES, trusted=trusted)
            build_rule(rule, trusted=trusted)
        if part.loss not in LOSSES:
            raise unknown("loss", part.loss, LOSSES)
        _check_optimizer(part.optimizer, trusted)
        if part.network not in networks:
            networks.append(part.network)
    for network in networks:
        _check_network(network, trusted)


def memory_of_the_machine() -> int:
    """Bytes of working memory, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_optimizer(spec: Specification, trusted: bool) -> None:
    optimizer = optimizer_factory(spec, trusted=trusted)([nn.Parameter(torch.zeros(1))])
    rate = optimizer.defaults.get("lr")
    if isinstance(rate, (int, float)) and not 0 < rate < math.inf:
        raise ValueError(f"optimizer {label(spec)!r}: lr must be above 0 and finite, got {rate!r}")


def _check_network(spec: Specification, trusted: bool) -> None:
    """Builds a network and throws it away, so that sizes that do not fit are found before anything is written."""
    what = f"network {label(spec)!r}"
    limit = MemoryLimit(memory_of_the_machine(), f"{what} needs more memory than this machine has: make it smaller")
    try:
        with torch.random.fork_rng(devices=[]), limit:
            build_network(spec, trusted=trusted)
    # Of torch: a size that is no size, or memory that cannot be had.
    except (RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(f"{what} cannot be built: {str(error).splitlines()[0]}") from None
