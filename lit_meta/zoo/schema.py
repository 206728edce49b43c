"""What the card of an entry must look like. It is checked as a whole before anything is built; nothing it names is imported."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lit_meta.data.registry import SCENARIOS
from lit_meta.data.sources.registry import SOURCES
from lit_meta.experiments.config import Experiment
from lit_meta.integrations.optimizers import OPTIMIZERS
from lit_meta.networks.registry import NETWORKS
from lit_meta.rules.registry import RULES
from lit_meta.utils.arguments import require_keys
from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Spec
from lit_meta.zoo import references
from lit_meta.zoo.layout import CONFIG, FORMAT, GOLDEN, MODEL, PAGE, RULE, SNAPSHOTS

# Everything that learns, as `Experiment.for_learner("rule")` has it.
LEARNER = ("network", "rule", "loss", "optimizer")
# What a run knows; all of it is null where an entry was saved from Python.
OF_A_RUN = ("experiment", "protocol", "command", "results", "accuracy_matrix", "continuation")
KEYS = (
    *("format", "library_name", "name", *LEARNER, "seed"),
    *("input_shape", "class_names", "preprocessing", "spiking", "parameters", "note"),
    *OF_A_RUN,
    *("provenance", "versions", "sha256"),
)
_LARGEST = 10**9  # Of a size or a count on a card.
_DEEPEST = 40


def digest_of(card: Mapping[str, Any]) -> str:
    """The sha256 of a card itself: of all it says but this digest, whatever the order of keys and the spaces."""
    content = {**card, "sha256": {file: digest for file, digest in card["sha256"].items() if file != CONFIG}}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def check_card(card: Mapping[str, Any], name: str, *, in_zoo: bool = False) -> dict[str, Any]:
    """Checks that a card is whole, and that nothing in it leads outside the registries.

    Args:
        card: its content.
        name: of the entry's folder or repository.
        in_zoo: whether that lies in a zoo, so that the entry must have its name.

    Returns:
        The card.

    Raises:
        ValueError: a newer format; a key that is missing, unknown, or has a value of another kind; a class path that no
            registry knows; a card that was changed after it was written.
    """
    called = f"the card of {name!r}"
    _check_format(card, called)
    _check_depth(card, called)
    for text in _texts(card):
        if any(not character.isprintable() and character not in "\n\t" for character in text):
            raise ValueError(f"{called} holds control characters, in {text[:40]!r}: do not use this entry")
    try:
        keys = (*KEYS, references.KEY) if card["format"] > 2 else KEYS
        require_keys("it", card, keys, needed=keys)
        if in_zoo and card["name"] != name:
            raise ValueError(f"it is of {card['name']!r}: an entry lies in a folder of its own name")
        _check_plain(card)
        if card["format"] > 2 and card[references.KEY] is not None:
            references.check_stated(card[references.KEY])
        _check_learner(card)
        if card["experiment"] is not None:
            _check_run(card)
        elif given := [key for key in OF_A_RUN if card[key] is not None]:
            raise ValueError(f"{given[0]} is of a run, and there is no experiment")
        _check_digests(card)
    except RecursionError:
        raise ValueError(f"{called} is nested too deep") from None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{called} cannot be used: {' '.join(str(error).split())}") from None
    return dict(card)


def _check_format(card: Mapping[str, Any], called: str) -> None:
    number = card.get("format")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{called} has no format: fetch the entry again")
    if number > FORMAT:
        raise ValueError(
            f"{called} has format {number}, and this version of lit-meta reads up to {FORMAT}: upgrade lit-meta"
        )


def _check_depth(card: object, called: str) -> None:
    level: list[object] = [card]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, (Mapping, list, tuple))
            for item in (value.values() if isinstance(value, Mapping) else value)
        ]
        if not level:
            return
    raise ValueError(f"{called} is nested too deep")


def _check_plain(card: Mapping[str, Any]) -> None:
    for key, kind, fits in _PLAIN:
        if not fits(card[key]):
            raise ValueError(f"{key} must be {kind}, got {card[key]!r}")
    shape, classes = card["input_shape"], card["class_names"]
    if card["format"] > 1 and (shape is None or classes is None or card["parameters"] is None):
        raise ValueError("input_shape, class_names and parameters must be given")
    if shape is not None and (not shape or not all(_is_count(n) and n > 0 for n in shape)):
        raise ValueError(f"input_shape must be a list of sizes, got {shape!r}")
    if classes is not None and (len(classes) < 2 or not all(isinstance(c, str) and c for c in classes)):
        raise ValueError("class_names must be the names of two classes or more")
    if not card["name"].strip() or card["name"] in (".", "..") or any(c in "/\\" for c in card["name"]):
        raise ValueError(f"name must be the name of a folder, without slashes, got {card['name']!r}")
    if card["preprocessing"] is not None:
        from lit_meta.zoo.preprocessing import Transform

        Transform.from_dict(card["preprocessing"], card["input_shape"])
    for part, facts in card["provenance"].items():
        if part not in ("data", "weights") or not _is_texts(facts):
            raise ValueError("provenance must be what is known of data and weights, in words")
    if not _is_texts(card["versions"]):
        raise ValueError("versions must be a mapping of texts")


def _check_learner(card: Mapping[str, Any]) -> None:
    rules = card["rule"] if isinstance(card["rule"], list) else [card["rule"]]
    specs: list[tuple[Any, Registry[Any]]] = [(card["network"], NETWORKS), (card["optimizer"], OPTIMIZERS)]
    for spec, registry in [*specs, *((rule, RULES) for rule in rules if rule is not None)]:
        Spec.parse(spec, registry.kind).require_registered(registry)


def _check_run(card: Mapping[str, Any]) -> None:
    experiment = Experiment.from_dict(card["experiment"])
    if card["protocol"] != experiment.protocol:
        raise ValueError(f"protocol {card['protocol']!r} is not the experiment's, {experiment.protocol!r}")
    if card["name"] != experiment.name:
        raise ValueError(f"name {card['name']!r} is not the experiment's, {experiment.name!r}")
    part = experiment.for_learner("rule")
    for key in LEARNER:
        if card[key] != getattr(part, key):
            raise ValueError(f"{key} is not that of the experiment")
    if card["seed"] not in experiment.seeds:
        raise ValueError(f"seed {card['seed']} is none of the experiment's, {experiment.seeds}")
    if not isinstance(card["command"], str):
        raise ValueError(f"command must be text, got {card['command']!r}")
    _check_results(card["results"], experiment)
    rows = card["accuracy_matrix"]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise ValueError("accuracy_matrix must be a list of rows")
    for row in rows:
        if not row or len(row) != len(rows[0]) or not all(map(_is_fraction, row)):
            raise ValueError(f"accuracy_matrix must have rows of {len(rows[0])} numbers from 0 to 1")
    _check_continuation(card["continuation"])
    _check_registered(experiment)


def _check_results(results: object, experiment: Experiment) -> None:
    if not isinstance(results, Mapping) or not _is_fraction(results.get("seed_average_accuracy")):
        raise ValueError("results must be a mapping with seed_average_accuracy, a number from 0 to 1")
    for learner, result in results.items():
        if learner == "seed_average_accuracy":
            continue
        if learner not in experiment.learners:
            raise ValueError(f"results: the experiment has no learner {learner!r}")
        for quantity in ("average_accuracy", "forgetting"):
            values = result.get(quantity, False) if isinstance(result, Mapping) else False
            if values is None:
                continue
            if not isinstance(values, Mapping) or not _is_number(values.get("mean")):
                raise ValueError(
                    f"results: {learner}: {quantity} must be a mapping with the numbers mean and sd, or null"
                )
            numbers = values.get("values", [])
            if not (values.get("sd") is None or _is_number(values["sd"])) or not isinstance(numbers, list):
                raise ValueError(
                    f"results: {learner}: {quantity} must be a mapping with the numbers mean and sd, or null"
                )
            if not all(map(_is_number, numbers)):
                raise ValueError(f"results: {learner}: {quantity} has values that are no numbers")
        cost = result.get("cost", {})
        if not isinstance(cost, Mapping) or not all(map(_is_number, cost.values())):
            raise ValueError(f"results: {learner}: cost must be a mapping of numbers")
    if "rule" not in results and experiment.rule:
        raise ValueError("results has no rule")


CONTINUATION = ("learned", "new", "old_before", "old_after")


def _check_continuation(continuation: object) -> None:
    if continuation is None:
        return
    given = require_keys("continuation", continuation, CONTINUATION, needed=CONTINUATION)
    if not isinstance(given["learned"], str) or not all(_is_fraction(given[key]) for key in CONTINUATION[1:]):
        raise ValueError("continuation must say what was learned, and three accuracies from 0 to 1")


def _check_registered(experiment: Experiment) -> None:
    scenario = Spec.parse(experiment.scenario, SCENARIOS.kind)
    scenario.require_registered(SCENARIOS)
    source = scenario.arguments.get("source")
    if isinstance(source, (str, Mapping)):
        Spec.parse(source, SOURCES.kind).require_registered(SOURCES)
    for part in (*experiment.overrides.values(), *experiment.controls.values()):
        # A network without a name changes arguments of the experiment's own.
        network = part.network if part.network and part.network.keys() & {"name", "class_path"} else experiment.network
        _check_learner({"network": network, "optimizer": part.optimizer or experiment.optimizer, "rule": part.rule})


def _check_digests(card: Mapping[str, Any]) -> None:
    digests = card["sha256"]
    needed = {MODEL, RULE} if card["format"] == 1 else {CONFIG, MODEL, RULE, GOLDEN, PAGE}
    if card["format"] > 2 and isinstance(digests, Mapping) and SNAPSHOTS in digests:
        needed.add(SNAPSHOTS)
    if not isinstance(digests, Mapping) or set(digests) != needed:
        raise ValueError(
            f"sha256 must be a mapping of {', '.join(sorted(needed))} to their digests, and of no other file"
        )
    for file, digest in digests.items():
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError(f"sha256: {file}: a digest has 64 hexadecimal digits, got {digest!r}")
    if card["format"] > 1 and digest_of(card) != digests[CONFIG]:
        raise ValueError(f"{CONFIG} was changed after it was written (sha256 differs): fetch the entry again")


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
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def _is_fraction(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())


def _or_null(kind: type) -> Callable[[object], bool]:
    return lambda value: value is None or isinstance(value, kind)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_PLAIN: Sequence[tuple[str, str, Callable[[Any], bool]]] = (
    ("library_name", "text", _is_text),
    ("name", "text", _is_text),
    ("note", "text", _is_text),
    ("seed", "a whole number, at least 0", lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**32),
    ("input_shape", "a list of sizes", _or_null(list)),
    ("class_names", "a list of names", _or_null(list)),
    ("preprocessing", "a mapping or null", _or_null(dict)),
    ("spiking", "true or false", lambda v: isinstance(v, bool)),
    ("parameters", "a count", lambda v: v is None or _is_count(v)),
    ("loss", "text", _is_text),
    ("rule", "a spec, a list of specs, or null", lambda v: v is None or isinstance(v, (dict, list))),
    ("network", "a spec", lambda v: isinstance(v, dict)),
    ("optimizer", "a spec", lambda v: isinstance(v, dict)),
    ("provenance", "a mapping", lambda v: isinstance(v, dict)),
    ("versions", "a mapping of texts", lambda v: isinstance(v, dict)),
    ("sha256", "a mapping of files to digests", lambda v: isinstance(v, dict)),
)
