"""What can be known to be wrong with an entry before anything of it is built; nothing that it names is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_meta.data.registry import SCENARIOS
from lit_meta.data.sources.registry import SOURCES
from lit_meta.experiments.config import Experiment
from lit_meta.integrations.optimizers import OPTIMIZERS
from lit_meta.networks.registry import NETWORKS
from lit_meta.rules.registry import RULES
from lit_meta.utils.arguments import require_keys
from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

FILES = ("model.safetensors", "rule.safetensors")
CARD, PAGE = "card.yaml", "README.md"
_KEYS = ("name", "command", "protocol", "seed", "experiment", "results", "accuracy_matrix", "sha256", "versions")
_NEEDED = ("experiment", "protocol", "results", "seed", "sha256")


def check_card(name: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """Checks that a card is whole, and that nothing in it leads outside the registries.

    Args:
        name: of the entry's folder.
        described: the content of the card.

    Returns:
        The card.

    Raises:
        ValueError: a key is missing, unknown, or has a value of another kind; a class path that no registry knows.
    """
    card = f"the card of {name!r}"
    absent = [key for key in _NEEDED if key not in described]
    if absent:
        raise ValueError(f"{card} lacks {', '.join(absent)}: fetch the entry again")
    for text in _texts(described):
        if any(not character.isprintable() and character not in "\n\t" for character in text):
            raise ValueError(f"{card} holds control characters, in {text[:40]!r}: do not use this entry")
    try:
        require_keys("it", described, _KEYS, needed=_KEYS)
        if described["name"] != name:
            raise ValueError(f"it is of {described['name']!r}: an entry lies in a folder of its own name")
        if not isinstance(described["command"], str):
            raise ValueError(f"command must be text, got {described['command']!r}")
        seed = described["seed"]
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be a whole number, got {seed!r}")
        experiment = Experiment.from_dict(described["experiment"])
        if described["protocol"] != experiment.protocol:
            raise ValueError(f"protocol {described['protocol']!r} is not the experiment's, {experiment.protocol!r}")
        _check_results(described["results"])
        rows = described["accuracy_matrix"]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
            raise ValueError("accuracy_matrix must be a list of rows")
        for row in rows:
            if len(row) != len(rows[0]) or not all(map(_is_fraction, row)):
                raise ValueError(f"accuracy_matrix must have rows of {len(rows[0])} numbers from 0 to 1")
        _check_digests(described["sha256"])
        _check_registered(experiment)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{card} cannot be used: {error}") from None
    # As the file has it, with the arguments of networks and rules as they were written.
    return dict(described)


def check_files(folder: Path) -> None:
    """Checks that the folder of an entry holds the files of an entry and no others.

    Raises:
        ValueError: another file, a folder or a link that leads out.
    """
    for path in sorted(folder.iterdir()):
        if path.name not in (*FILES, CARD, PAGE) or path.is_dir():
            raise ValueError(
                f"{folder} holds {path.name!r}, which is no part of an entry ({', '.join((CARD, PAGE, *FILES))}): remove it"
            )


def check_weights(path: Path, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Checks that weights are those of a network: names, shapes, types, and no NaN.

    Raises:
        ValueError: they are not.
    """
    expected = network.state_dict()
    for key in [*expected, *weights]:
        if key not in weights or key not in expected:
            raise ValueError(
                f"{path} {'lacks' if key in expected else 'holds'} {key!r}, which the network of the card "
                f"{'has' if key in expected else 'does not have'}: fetch the entry again"
            )
        if weights[key].shape != expected[key].shape or weights[key].dtype != expected[key].dtype:
            stored, own = (f"{t.dtype} {tuple(t.shape)}" for t in (weights[key], expected[key]))
            raise ValueError(f"{path}: {key!r} is {stored}, in the network of the card {own}: fetch the entry again")
    _check_finite(path, weights)


def check_memory(path: Path, network: nn.Module, memories: Sequence[Mapping[str, Tensor]]) -> None:
    """Checks that memory belongs to the synapses of a network.

    What a rule keeps for parameters has their names and shapes, and every such quantity is of the same parameters; what it
    keeps apart is of a parameter, a module, a block, or of nothing in particular.

    Args:
        path: of the file, for the message.
        network: that learned.
        memories: of every rule, by ``"quantity/name"``.

    Raises:
        ValueError: it does not.
    """
    from lit_meta.core.memory_codec import decode_key

    parameters = dict(network.named_parameters())
    modules = dict(network.named_modules())
    for memory in memories:
        _check_finite(path, memory)
        named: dict[str, set[str]] = {}
        for key, tensor in memory.items():
            quantity, name = decode_key(key)
            place = name.removeprefix("*")
            if place not in parameters and place not in modules and not place.isdecimal():
                raise ValueError(f"{path} holds {key!r}, and the network has no {place!r}: fetch the entry again")
            if name in parameters:
                if tensor.shape != parameters[name].shape:
                    raise ValueError(
                        f"{path}: {key!r} has shape {tuple(tensor.shape)}, its parameter {tuple(parameters[name].shape)}: "
                        "fetch the entry again"
                    )
                named.setdefault(quantity, set()).add(name)
        whole = set().union(*named.values())
        for quantity, names in named.items():
            if names != whole:
                raise ValueError(f"{path} lacks '{quantity}/{min(whole - names)}': fetch the entry again")


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from lit_meta.utils.validation import all_finite

    for key, tensor in tensors.items():
        if not all_finite(tensor):
            raise ValueError(f"{path}: {key!r} holds NaN or infinite values: do not use this entry")


def _check_results(results: object) -> None:
    if not isinstance(results, Mapping) or not _is_fraction(results.get("seed_average_accuracy")):
        raise ValueError("results must be a mapping with seed_average_accuracy, a number from 0 to 1")
    for learner, result in results.items():
        if learner == "seed_average_accuracy":
            continue
        for quantity in ("average_accuracy", "forgetting"):
            values = result.get(quantity, False) if isinstance(result, Mapping) else False
            numbers = [values.get("mean"), values.get("sd")] if isinstance(values, Mapping) else [values]
            if values is not None and not all(map(_is_number, numbers)):
                raise ValueError(
                    f"results: {learner}: {quantity} must be a mapping with the numbers mean and sd, or null"
                )


def _check_digests(digests: object) -> None:
    if not isinstance(digests, Mapping) or set(digests) != set(FILES):
        raise ValueError(f"sha256 must be a mapping of {' and '.join(FILES)} to their digests, and of no other file")
    for file, digest in digests.items():
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError(f"sha256: {file}: a digest has 64 hexadecimal digits, got {digest!r}")


def _check_registered(experiment: Experiment) -> None:
    scenario = Spec.parse(experiment.scenario, SCENARIOS.kind)
    scenario.require_registered(SCENARIOS)
    source = scenario.arguments.get("source")
    if isinstance(source, (str, Mapping)):
        Spec.parse(source, SOURCES.kind).require_registered(SOURCES)
    for learner in experiment.learners:
        part = experiment.for_learner(learner)
        specs: list[tuple[Any, Registry[Any]]] = [(part.network, NETWORKS), (part.optimizer, OPTIMIZERS)]
        specs += [(rule, RULES) for rule in (part.rule if isinstance(part.rule, list) else [part.rule]) if rule]
        for spec, registry in specs:
            Spec.parse(spec, registry.kind).require_registered(registry)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_fraction(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]
