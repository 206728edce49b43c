"""What can be known to be wrong with an experiment before anything is built, downloaded or written."""

from __future__ import annotations

from collections.abc import Mapping

from lit_meta.data.registry import SCENARIOS, scenario_spec
from lit_meta.experiments.config import Experiment
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.optimizers import optimizer_factory
from lit_meta.networks.registry import NETWORKS
from lit_meta.rules.registry import RULES
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import check


def check_specs(experiment: Experiment, *, trusted: bool = True) -> None:
    """Checks that all that an experiment names, for every learner, exists and takes the arguments it is given.

    A mistake in what differs for the last learner is found before the first one trains.

    Args:
        experiment: to be run.
        trusted: whether it is the user's own, and may import what it names.

    Raises:
        KeyError: an unknown name; the nearest are named.
        TypeError: an argument that does not exist, is missing, or is of another type.
        ValueError: a class path that leads nowhere or must not be imported.

    Example:
        >>> from lit_meta.experiments import load_experiment
        >>> check_specs(load_experiment("ewc-mlp-digits", ["overrides.joint.network.hiden=[3]"]))
        Traceback (most recent call last):
        ...
        TypeError: network 'mlp' has no argument 'hiden'; did you mean 'hidden'? It takes inputs, hidden, ...
    """
    check(scenario_spec(experiment.scenario).to_dict(), SCENARIOS, offered={"seed": 0}, trusted=trusted)
    for learner in experiment.learners:
        part = experiment.for_learner(learner)
        check(part.network, NETWORKS, trusted=trusted)
        for rule in [part.rule] if isinstance(part.rule, (str, Mapping)) else part.rule or []:
            check(rule, RULES, trusted=trusted)
        if part.loss not in LOSSES:
            raise unknown("loss", part.loss, LOSSES)
        optimizer_factory(part.optimizer, trusted=trusted)
