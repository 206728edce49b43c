"""The description of an experiment, the content of a YAML file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, cast

from lit_meta.evaluation.protocols import PROTOCOLS, Protocol
from lit_meta.utils.annotations import annotations_of, described, fits
from lit_meta.utils.arguments import located, require_count, require_keys, require_one_of
from lit_meta.utils.specs import Spec, normalized

LEARNERS = ("rule", "naive", "joint")

_NAMES = {"name", "class_path"}
_LARGEST_SEED = 2**32 - 1  # Of NumPy.

Rules = str | dict[str, Any] | list[str | dict[str, Any]] | None
"""The spec of a rule, or of several."""

MatmulPrecision = Literal["highest", "high", "medium"]
MATMUL_PRECISIONS: tuple[MatmulPrecision, ...] = ("highest", "high", "medium")


@dataclass
class Override:
    """Arguments of an `Experiment` that differ for one learner; None for those that do not.

    A ``rule`` that is an empty list is plain training. A ``network`` with a name replaces the whole network; without one it
    changes only the arguments that it gives, and of an argument that is a mapping only the keys that it gives.
    """

    network: dict[str, Any] | None = None
    rule: Rules = None
    loss: str | None = None
    optimizer: str | dict[str, Any] | None = None
    max_epochs: int | None = None
    batch_size: int | None = None
    replay: int | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        _check_numbers(self)


@dataclass
class Experiment:
    """The whole description of an experiment; a YAML file in ``configs/experiment/`` holds one.

    Attributes:
        name: of the experiment, and of the zoo entry made from it.
        scenario: the spec of a scenario (see `lit_meta.utils.specs`), such as ``{"name": ..., "experiences": ...}``, without a
            seed.
        network: the spec of a network.
        rule: the spec of a rule; a list of them for several rules.
        loss: a loss of `MetaplasticModule`.
        optimizer: the spec of an optimizer.
        max_epochs: passes over each experience.
        batch_size: of training.
        protocol: of evaluation.
        replay: samples of earlier experiences that are stored and learned again, half of what is learned; see
            `lit_meta.data.replay.with_replay`. A baseline that keeps data, mostly of a control: ``{rule: [], replay: 200}``.
        seeds: of initial weights, class order and order of samples; one run each.
        overrides: by learner (``rule``, ``naive``, ``joint``), arguments above that differ for it, such as the epochs of the
            joint bound.
        controls: further learners on the same stream, by a name of their own, each by what differs from the experiment: the
            same rule with a part switched off, another rule, another gate.
        batching: also test every learner's last network on class-pure batches, on shuffled ones and on one sample at a time:
            if these differ, the composition of the batch gives the network information that the sample does not.
        online: also record the accuracy on samples before they are learned, experience by experience, and how many hidden
            units are dormant; see `lit_meta.callbacks.OnlineAccuracy`.
        matmul_precision: of products of float32 matrices, in training, consolidation and testing, as of
            `torch.set_float32_matmul_precision`: with ``"medium"`` processors that can may round factors to bfloat16 (sums
            stay float32), which is faster and, since rounding depends on the machine, not the same bits everywhere.
        note: what a reader of the results must know.
    """

    name: str
    scenario: str | dict[str, Any]
    network: str | dict[str, Any]
    rule: Rules = None
    loss: str = "cross_entropy"
    optimizer: str | dict[str, Any] = field(
        default_factory=lambda: {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    )
    max_epochs: int = 1
    batch_size: int = 128
    protocol: Protocol = "standard"
    replay: int = 0
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    overrides: dict[str, Override] = field(default_factory=dict)
    controls: dict[str, Override] = field(default_factory=dict)
    batching: bool = False
    online: bool = False
    matmul_precision: MatmulPrecision = "highest"
    note: str = ""

    def __post_init__(self) -> None:
        _check_types(self)
        # Folders are called by it.
        if (
            not self.name.strip()
            or self.name in (".", "..")
            or any(c in "/\\" or not c.isprintable() for c in self.name)
        ):
            raise ValueError(f"an experiment's name is the name of a folder, without slashes, got {self.name!r}")
        _check_numbers(self)
        require_one_of("protocol", self.protocol, PROTOCOLS)
        require_one_of("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be a list of different integers, got {self.seeds}")
        if min(self.seeds) < 0 or max(self.seeds) > _LARGEST_SEED:
            raise ValueError(f"seeds must be from 0 to {_LARGEST_SEED}, got {self.seeds}")
        for learner in self.overrides:
            require_one_of("a learner in overrides", learner, LEARNERS)
            if learner != "rule" and self.overrides[learner].replay is not None:
                raise ValueError(
                    f"overrides.{learner}: replay is of the rule and of controls; {learner} training stores nothing"
                )
        for learner in self.controls:
            if learner in LEARNERS or not learner.replace("-", "").isalnum():
                raise ValueError(
                    f"a control has a name of letters, digits and hyphens other than {', '.join(LEARNERS)}, got {learner!r}"
                )
        for part in ("scenario", "network", "optimizer"):
            setattr(self, part, normalized(getattr(self, part), part))
        self.rule = _normalized_rules(self.rule)
        if self.batching and self.tasks_told:
            raise ValueError("batching tests the network without the task of each sample, which this scenario provides")

    @property
    def tasks_told(self) -> bool:
        """Whether the scenario provides the task of every sample, at test time too."""
        return _arguments(self.scenario).get("form") == "task"

    @property
    def learners(self) -> tuple[str, ...]:
        """Every learner there is: the rule, its bounds and the controls."""
        return (*(LEARNERS if self.rule else LEARNERS[1:]), *self.controls)

    def for_learner(self, learner: str) -> Experiment:
        """The experiment with one learner's overrides put in place.

        Raises:
            ValueError: no such learner.
        """
        require_one_of("a learner", learner, (*LEARNERS, *self.controls))
        changes = _given(
            self.controls[learner] if learner in self.controls else self.overrides.get(learner, Override())
        )
        changed = changes.get("network", {"name": ""})
        if not changed.keys() & _NAMES:
            changes["network"] = _with_arguments(self.network, changed)
        part = replace(self, overrides={}, controls={}, **changes)
        return replace(part, rule=None, replay=0) if learner in ("naive", "joint") else part

    def to_dict(self) -> dict[str, Any]:
        """The form that a YAML file has."""
        return {
            **asdict(self),
            "overrides": {learner: _given(changes) for learner, changes in self.overrides.items()},
            "controls": {learner: _given(changes) for learner, changes in self.controls.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Experiment:
        """The experiment that `to_dict` describes.

        Raises:
            TypeError: a value of another type, or no mapping where one is needed.
            ValueError: a key that does not exist at any level (the nearest is named), one that is missing, or a value out of
                range.
        """
        given = dict(_known_keys("an experiment", values, cls))
        for part in ("overrides", "controls"):
            by_learner = given.get(part, {})
            if not isinstance(by_learner, Mapping):
                raise TypeError(f"{part} must be a mapping from learners to what differs for them, got {by_learner!r}")
            given[part] = {learner: _override(f"{part}.{learner}", changes) for learner, changes in by_learner.items()}
        return cls(**given)


def _known_keys(what: str, values: object, cls: type) -> dict[str, Any]:
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    return cast(dict[str, Any], require_keys(what, values, [f.name for f in fields(cls)], needed=needed))


def _override(where: str, changes: object) -> Override:
    given = _known_keys(where, changes, Override)
    with located(f"{where}."):
        return Override(**given)


def _check_types(config: Experiment | Override) -> None:
    for name, annotation in annotations_of(type(config)).items():
        value = getattr(config, name)
        if not fits(value, annotation):
            raise TypeError(f"{name} must be {described(annotation)}, got {value!r}")


def _check_numbers(config: Experiment | Override) -> None:
    for name in ("max_epochs", "batch_size"):
        number = getattr(config, name)
        if number is not None:
            require_count(name, number)
    if config.replay is not None and config.replay < 0:
        raise ValueError(f"replay must be a number of stored samples, 0 for none, got {config.replay}")
    for name in ("scenario", "network", "rule", "optimizer"):
        for path, value in _leaves(getattr(config, name, None), name):
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{path} is not a number: give one")


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    """The values in nested mappings and lists, each with its path as an option of the command has it."""
    if isinstance(value, (Mapping, list)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(item, f"{path}.{key}")
    else:
        yield path, value


def _arguments(spec: str | dict[str, Any]) -> dict[str, Any]:
    return dict(Spec.parse(spec, "spec").arguments)


def _with_arguments(spec: str | dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    parsed = Spec.parse(spec, "spec")
    return replace(parsed, arguments=_merged(parsed.arguments, changes)).to_dict()


def _merged(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with changes put in place, key by key where both are mappings, unless the change names something else."""
    merged = {**arguments, **changes}
    for name, change in changes.items():
        before = arguments.get(name)
        if isinstance(before, Mapping) and isinstance(change, Mapping) and not change.keys() & _NAMES:
            merged[name] = _merged(before, change)
    return merged


def _normalized_rules(rules: Rules) -> Rules:
    if not rules:
        return rules  # None, or the empty list that means plain training.
    if isinstance(rules, (str, Mapping)):
        return normalized(rules, "rule")
    if not isinstance(rules, list):
        raise TypeError(f"rule must be a spec or a list of specs, got {rules!r}")
    return [normalized(rule, "rule") for rule in rules]


def _given(override: Override) -> dict[str, Any]:
    return {key: value for key, value in asdict(override).items() if value is not None}


def is_classification(described: Mapping[str, Any]) -> bool:
    """Whether an experiment, or a report of one, has all classes learned at once, so that there is no stream to forget.

    Example:
        >>> is_classification({"scenario": {"name": "split-digits", "experiences": 1}})
        True
    """
    return bool(_arguments(described["scenario"]).get("experiences") == 1)
