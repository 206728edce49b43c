"""The card of an entry, and lists of them; PyTorch is not imported."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_meta.data.registry import scenario_names
from lit_meta.data.sources.registry import source_names
from lit_meta.networks.registry import NETWORKS
from lit_meta.rules.registry import RULES
from lit_meta.utils.io import load_text
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import label
from lit_meta.zoo.layout import CONFIG, LEGACY_CARD, SNAPSHOTS, Files, locate, names
from lit_meta.zoo.schema import check_card

_LONGEST = 1_000_000  # Characters of a card.


def card(source: str | Path) -> dict[str, Any]:
    """The description of an entry: network, rule, preprocessing, classes, scenario, results, sha256 of its files.

    Args:
        source: the name of an entry, the folder of one, or ``"hf://owner/name@revision"``.

    Raises:
        KeyError: no entry of that name; the nearest are named.
        FileNotFoundError: the folder holds no entry.
        ValueError: the card is damaged, of a newer format, or names what no registry knows; nothing is imported.

    Example:
        >>> card("mlp.ewc_split-digits")["network"]["hidden"]
        [200]
    """
    return read_card(locate(source))


def read_card(files: Files) -> dict[str, Any]:
    """The checked card of located files."""
    from lit_meta.zoo.legacy import read_legacy_card

    read = _read_json if CONFIG in files.paths else read_legacy_card
    content = read(files.path(CONFIG if CONFIG in files.paths else LEGACY_CARD))
    checked = check_card(content, files.name, in_zoo=files.in_zoo)
    if SNAPSHOTS in files.paths and SNAPSHOTS not in checked["sha256"]:
        raise ValueError(f"{files.path(SNAPSHOTS)} is not on the card of {files.name!r}: remove it")
    return checked


def list_entries(
    *, rule: str | None = None, network: str | None = None, scenario: str | None = None, spiking: bool | None = None
) -> list[str]:
    """The names of the entries that fit every filter, in alphabetical order.

    An entry whose card cannot be read is left out, with a warning that says why.

    Args:
        rule: registry name of a rule that the entry learned with.
        network: registry name of its network.
        scenario: name of the scenario that it was trained on, or of its data (``"split-mnist"``, ``"mnist"``).
        spiking: True for spiking networks, False for others.

    Raises:
        KeyError: a rule, network, scenario or source that neither an entry nor a registry has; the nearest are named.

    Example:
        >>> list_entries(rule="ewc", scenario="split-digits")
        ['mlp.ewc_split-digits']
        >>> "mlp.ewc_split-digits" in list_entries(scenario="digits", spiking=True)
        False
    """
    cards = []
    for name in names():
        try:
            cards.append(card(name))
        except (ValueError, OSError) as error:
            warnings.warn(f"{name} is left out of the list: {error}", stacklevel=2)
    check_filters(cards, rule=rule, network=network, scenario=scenario)
    return [c["name"] for c in cards if fits(c, rule=rule, network=network, scenario=scenario, spiking=spiking)]


def check_filters(
    cards: Sequence[Mapping[str, Any]],
    *,
    rule: str | None = None,
    network: str | None = None,
    scenario: str | None = None,
) -> None:
    """Checks that a filter of `list_entries` is no misspelt name, which would find nothing.

    Raises:
        KeyError: no card has the name, and no registry either.
    """
    trained_on = {scenario_of(c) for c in cards} - {""}
    names_of = {
        "rule": (rule, {*RULES, *(label(r) for c in cards for r in rules_of(c))}),
        "network": (network, {*NETWORKS, *(label(c["network"]) for c in cards)}),
        "scenario": (scenario, {*scenario_names(), *source_names(), *trained_on}),
    }
    for kind, (name, known) in names_of.items():
        # Of a scenario, any end of the name is taken for its data.
        ends = kind == "scenario" and any(of_entry.endswith(f"-{name}") for of_entry in trained_on)
        if name is not None and name not in known and not ends:
            raise unknown(kind, name, known, listed_by=f"lit-meta {kind}s")


def rules_of(described: Mapping[str, Any]) -> list[Any]:
    """The specs of an entry's rules, in order."""
    rules = described["rule"]
    return rules if isinstance(rules, list) else [] if rules is None else [rules]


def scenario_of(described: Mapping[str, Any]) -> str:
    """The name of the scenario that an entry was trained on; empty if it was saved without a run.

    Example:
        >>> scenario_of(card("mlp.ewc_split-digits"))
        'split-digits'
    """
    if not described["experiment"]:
        return ""
    scenario = described["experiment"]["scenario"]
    source = scenario.get("source") if isinstance(scenario, Mapping) else None
    if isinstance(source, Mapping):  # Features are called by the images that they are of.
        source = source.get("of") or source
    return f"{label(scenario)}-{label(source)}" if source else label(scenario)


def fits(
    described: Mapping[str, Any],
    *,
    rule: str | None = None,
    network: str | None = None,
    scenario: str | None = None,
    spiking: bool | None = None,
) -> bool:
    """Whether an entry fits every filter of `list_entries`."""
    trained_on = scenario_of(described)
    return (
        (rule is None or rule in map(label, rules_of(described)))
        and (network is None or network == label(described["network"]))
        and (scenario is None or scenario == trained_on or trained_on.endswith(f"-{scenario}"))
        and (spiking is None or spiking == described["spiking"])
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a card; no key may be there twice, and no number may be NaN or infinite."""
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"{path} is longer than any card: fetch the entry again")
    try:
        content = json.loads(load_text(path), object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"{path} is nested too deep for a card") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a whole card: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a mapping, it holds a {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it gives the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return content


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")
