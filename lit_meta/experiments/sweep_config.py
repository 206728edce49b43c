"""The description of a sweep, the content of a YAML file in ``configs/sweep/``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lit_meta.experiments.config import Experiment
from lit_meta.experiments.loading import load_experiment, read_config, replaced
from lit_meta.utils.annotations import annotations_of, described, fits
from lit_meta.utils.arguments import require_count, require_keys, require_one_of
from lit_meta.utils.paths import config_file

TUNABLE = ("rule", "network", "loss", "optimizer", "max_epochs", "batch_size")


@dataclass(frozen=True)
class Dimension:
    """The values that one hyperparameter may take: a range, or choices.

    Attributes:
        low: least value; with `high`.
        high: greatest value, included. If both are written without a decimal point the values are integers.
        log: whether to search uniformly in the logarithm.
        choices: the values to choose from, instead of a range.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def read(cls, name: str, values: Any) -> Dimension:
        """From its form in YAML, ``{low: 0.001, high: 0.1, log: true}`` or ``{choices: [16, 32]}``.

        Raises:
            ValueError: another form, or bounds that do not fit.

        Example:
            >>> Dimension.read("batch_size", {"choices": [16, 32]}).choices
            (16, 32)
        """
        form = "{low: ..., high: ..., log: true or false} or {choices: [...]}"
        if not isinstance(values, Mapping):
            raise ValueError(f"space: {name} must be {form}, got {values!r}")
        require_keys(f"space: {name}", values, ["low", "high", "log", "choices"])
        if not isinstance(values.get("log", False), bool):
            raise ValueError(f"space: {name}: log must be true or false, got {values['log']!r}")
        if "choices" in values:
            if len(values) > 1 or not isinstance(values["choices"], list) or not values["choices"]:
                raise ValueError(f"space: {name} must be {form}, got {values!r}")
            return cls(choices=tuple(values["choices"]))
        low, high = (_number(name, part, values.get(part)) for part in ("low", "high"))
        if not low < high or (values.get("log") and low <= 0):
            raise ValueError(f"space: {name} needs low below high, and above 0 where log is true; got {values!r}")
        return cls(low=low, high=high, log=bool(values.get("log", False)))

    @property
    def example(self) -> Any:
        """One of its values."""
        return self.choices[0] if self.choices else self.low

    def value(self, suggested: Any) -> Any:
        """The value for the search's suggestion, which for choices is the position, since a choice may be a list."""
        return self.choices[suggested] if self.choices else suggested


@dataclass(frozen=True)
class Sweep:
    """A search for hyperparameters on validation data.

    Attributes:
        experiment: the experiment that is tuned: its network, rule, scenario and protocol.
        space: by dotted path into the experiment (``rule.strength``, ``optimizer.init_args.lr``, ``batch_size``), the values.
        experiences: number of the stream's first experiences to learn and validate on.
        validation: the fraction of the training data that is held out for validation.
        seeds: of weights, class order, order of samples and held-out samples; a trial's accuracy is the mean over them.
        trials: number of settings to try.
        learner: ``rule``, ``naive``, or a control of the experiment.
        seed: of the search.
    """

    experiment: Experiment
    space: dict[str, Dimension]
    experiences: int
    validation: float = 0.2
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    trials: int = 20
    learner: str = "rule"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, annotation in annotations_of(Sweep).items():
            if not fits(getattr(self, name), annotation):
                raise TypeError(f"{name} must be {described(annotation)}, got {getattr(self, name)!r}")
        for name in ("experiences", "trials"):
            require_count(name, getattr(self, name))
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be above 0 and below 1, got {self.validation!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be a list of different integers, got {self.seeds}")
        if not self.space:
            raise ValueError("the space is empty: name at least one hyperparameter")
        if "validation" in self.experiment.scenario:
            raise ValueError("the experiment's scenario names a validation part of its own; the sweep sets it")
        known = tuple(name for name in self.experiment.learners if name != "joint")
        require_one_of("learner", self.learner, known)
        for path in self.space:
            require_one_of(f"the first part of {path!r}", path.split(".")[0], TUNABLE)
        from lit_meta.experiments.run import build_module

        # A misspelled hyperparameter is found before the first trial, not after an hour.
        part = self.with_values({path: dimension.example for path, dimension in self.space.items()})
        try:
            build_module(part.for_learner(self.learner), self.seeds[0])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"the space does not fit the experiment: {error}") from None

    def with_values(self, values: Mapping[str, Any]) -> Experiment:
        """The experiment with new hyperparameters, set where the learner reads them.

        Raises:
            ValueError: a path does not exist in the experiment.
        """
        settings = self.experiment.to_dict()
        part = self.experiment.for_learner(self.learner).to_dict()
        group = "controls" if self.learner in self.experiment.controls else "overrides"
        own = settings[group].get(self.learner, {})
        for path, value in values.items():
            top, *rest = path.split(".")
            _require_place(part[top], rest, path)
            part[top] = replaced(part[top], rest, value, path)
            # An override would hide the experiment's own value, so the new one goes where it is read from.
            if self.learner == "rule" and top not in own:
                settings[top] = part[top]
            else:
                own[top] = part[top]
                settings[group][self.learner] = own
        return Experiment.from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values: two sweeps are equal if these are."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        settings["experiment"] = self.experiment.to_dict()
        settings["space"] = {path: asdict(dimension) for path, dimension in self.space.items()}
        for values in settings["space"].values():
            values["choices"] = list(values["choices"])
        return settings


def load_sweep(path_or_name: str) -> Sweep:
    """A sweep from a YAML file, or by its name in ``configs/sweep/``.

    Its ``experiment`` is a name in ``configs/experiment/`` or a path, relative to the file of the sweep.

    Raises:
        FileNotFoundError: no such file.
        KeyError: no sweep or experiment of that name.
        ValueError: the file does not describe a sweep.

    Example:
        >>> sorted(load_sweep("mlp.ewc_split-digits").space)
        ['optimizer.init_args.lr', 'rule.strength']
    """
    path = config_file("sweep", path_or_name)
    values = read_config(path)
    names = [field.name for field in fields(Sweep)]
    try:
        require_keys("a sweep", values, names, needed=("experiment", "space", "experiences"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(values["space"], dict):
        raise ValueError(f"{path}: space must be a mapping of hyperparameters to values, got {values['space']!r}")
    beside = path.parent / str(values["experiment"])
    experiment = load_experiment(str(beside) if beside.suffix in (".yaml", ".yml") else str(values["experiment"]))
    space = {str(name): Dimension.read(str(name), given) for name, given in values["space"].items()}
    try:
        return Sweep(**{**values, "experiment": experiment, "space": space})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _number(name: str, part: str, value: Any) -> float | int:
    # YAML reads 1e-4 (without a point) as a string.
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise ValueError(f"space: {name} needs a number as {part}, got {value!r}")
    return number


def _require_place(container: Any, path: list[str], whole: str) -> None:
    """Checks that a path leads to where a value is or could be, so that nothing between is made up."""
    for key in path[:-1]:
        if isinstance(container, Mapping) and key not in container:
            raise ValueError(f"{whole!r} leads nowhere: the experiment has no {key!r} there")
        if not isinstance(container, (Mapping, list)) or (isinstance(container, list) and not key.isdigit()):
            return  # `replaced` says what is wrong.
        container = container[key] if isinstance(container, Mapping) else dict(enumerate(container)).get(int(key))
