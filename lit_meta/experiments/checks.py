"""What can be known to be wrong with an experiment before anything is downloaded, trained or written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from lit_meta.data.registry import SCENARIOS, scenario_spec
from lit_meta.experiments.config import Experiment, Override
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.optimizers import optimizer_factory
from lit_meta.networks.registry import NETWORKS, build_network
from lit_meta.rules.registry import RULES, build_rule
from lit_meta.utils.arguments import located
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
        >>> check_specs(load_experiment("mlp.ewc_split-digits", ["overrides.joint.network.hiden=[3]"]))
        Traceback (most recent call last):
        ...
        TypeError: overrides.joint.network.hiden: network 'mlp' has no argument 'hiden'; did you mean 'hidden'? It takes ...
    """
    with key_named("scenario", experiment.scenario):
        check(scenario_spec(experiment.scenario).to_dict(), SCENARIOS, offered={"seed": 0}, trusted=trusted)
    networks = []
    for learner in experiment.learners:
        where, own = _override_of(experiment, learner)
        at = partial(key_named, where=where, own=own)
        # Putting the overrides in place checks them, too: a spec of another form, a number out of range.
        with located(f"{learner}: " if own is None else where):
            part = experiment.for_learner(learner)
        with at("network", part.network):
            check(part.network, NETWORKS, trusted=trusted)
        for position, rule in enumerate([part.rule] if isinstance(part.rule, (str, Mapping)) else part.rule or []):
            with at("rule" if isinstance(part.rule, (str, Mapping)) else f"rule.{position}", rule):
                check(rule, RULES, trusted=trusted)
                build_rule(rule, trusted=trusted)
        if part.loss not in LOSSES:
            with at("loss", part.loss):
                raise unknown("loss", part.loss, LOSSES)
        with at("optimizer", part.optimizer):
            _check_optimizer(part.optimizer, trusted)
        if part.network not in networks:
            networks.append(part.network)
            with at("network", part.network):
                _check_network(part.network, trusted)


def _override_of(experiment: Experiment, learner: str) -> tuple[str, Override | None]:
    group = "controls" if learner in experiment.controls else "overrides"
    return f"{group}.{learner}.", getattr(experiment, group).get(learner)


@contextmanager
def key_named(part: str, spec: object, *, where: str = "", own: Override | None = None) -> Iterator[None]:
    """Puts the dotted key of what is wrong before the message of an error: of the argument of a spec that it speaks of.

    Args:
        part: of the experiment, such as ``"network"``.
        spec: of the part.
        where: where a learner's own settings are, such as ``"overrides.joint."``.
        own: what they are; the key is there if they have the part.

    Example:
        >>> with key_named("rule", {"name": "ewc", "strength": -1}):
        ...     build_rule({"name": "ewc", "strength": -1})
        Traceback (most recent call last):
        ...
        ValueError: rule.strength: strength must be in [0.0, inf], got -1
    """
    overridden = own is not None and getattr(own, part.split(".")[0]) is not None
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            key = f"{where if overridden else ''}{part}{_argument_in(error.args[0], spec)}"
            error.args = (f"{key}: {error.args[0]}",)
        raise


def _argument_in(message: str, spec: object) -> str:
    """The end of a dotted key: the argument of a spec that a message speaks of."""
    if not isinstance(spec, Mapping):
        return ""
    inner, prefix = (spec.get("init_args"), ".init_args") if "class_path" in spec else (spec, "")
    # The name of what is built stands before the colon, and may be the name of an argument as well.
    said = message.partition(": ")[2] or message
    said = said.partition(" It takes ")[0]
    first = len(said)
    key = ""
    for name in inner if isinstance(inner, Mapping) else ():
        found = re.search(rf"(?<![\w.]){re.escape(str(name))}(?!\w)", said)
        if found and found.start() < first:
            first, key = found.start(), f"{prefix}.{name}"
    return key


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
