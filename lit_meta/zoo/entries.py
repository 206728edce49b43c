"""Loading entries: a trained network, alone or with its rule and the rule's memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import nn

from lit_meta.core.memory_codec import decode_numbered
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.integrations.optimizers import optimizer_factory
from lit_meta.networks import build_network
from lit_meta.rules import build_rules
from lit_meta.utils.registry import unknown
from lit_meta.zoo import references
from lit_meta.zoo.cards import read_card
from lit_meta.zoo.checks import building, check_memory, check_weights, read_tensors
from lit_meta.zoo.layout import MODEL, RULE, Files, locate
from lit_meta.zoo.preprocessing import Transform
from lit_meta.zoo.snapshots import put_back


@overload
def load(source: str | Path, *, with_rule: Literal[False] = False, after: int | None = None) -> nn.Module: ...
@overload
def load(source: str | Path, *, with_rule: Literal[True]) -> MetaplasticModule: ...
@overload
def load(source: str | Path, *, with_rule: bool) -> nn.Module: ...
def load(source: str | Path, *, with_rule: bool = False, after: int | None = None) -> nn.Module:
    """A trained network, in evaluation mode, on the CPU.

    Nothing that the entry names is imported unless a registry knows it, and nothing of it runs.

    Args:
        source: the name of an entry, the folder of one, or ``"hf://owner/name@revision"`` on the Hugging Face hub.
        with_rule: return a `MetaplasticModule` around the network, with the rules and their memory: in training mode, ready
            for the next experience.
        after: the network as it was after this many experiences, where the entry has snapshots; without the rule, whose
            memory is that of the end.

    Returns:
        A plain module with two attributes beside it: ``transform``, which makes an input of an image of one's own, and
        ``class_names``, by output; either is None where the entry does not state it.

    Raises:
        KeyError: no entry of that name; the nearest are named.
        FileNotFoundError: a file, or the folder, is absent.
        ValueError: a file is damaged, is not the one that the card describes, or does not fit what the card describes; or
            the entry is of a newer format.

    Example:
        >>> network = load("mlp.naca_split-digits")
        >>> network(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
        >>> module = load("mlp.ewc_split-digits", with_rule=True)
        >>> sorted(module.plasticity.rules[0].state)
        ['anchor', 'importance']
    """
    if with_rule and after is not None:
        raise ValueError("after= gives a network without its rule: the memory in an entry is that of the end")
    files = locate(source)
    card = read_card(files)
    try:
        network = _module(files, card) if with_rule else _network(files, card)
        if after is not None:
            put_back(network, files, card, after)
        return network
    except (RuntimeError, OverflowError, MemoryError) as error:  # Of torch: a size that is no size.
        raise ValueError(
            f"the network on the card of {files.name!r} cannot be built: {str(error).splitlines()[0]}"
        ) from None


def _network(files: Files, card: Mapping[str, Any]) -> nn.Module:
    weights = read_tensors(files, card, MODEL)
    reference = card.get(references.KEY)
    with torch.random.fork_rng(devices=[]), building(files.name, weights, reference):
        torch.manual_seed(card["seed"])  # As in training, for layers that are made again from it.
        network = build_network(card["network"], trusted=False)
    referred = references.check_reference(reference, network.state_dict(), files.name)
    check_weights(weights, network, referred)
    network.load_state_dict(weights.tensors(), strict=not referred)
    return _described(network.eval(), card)


def _module(files: Files, card: Mapping[str, Any]) -> MetaplasticModule:
    optimizer = optimizer_factory(card["optimizer"], trusted=False)
    if card["loss"] not in LOSSES:
        raise unknown("loss", card["loss"], LOSSES)
    rules = build_rules(card["rule"], trusted=False)
    stored = read_tensors(files, card, RULE)
    network = _network(files, card).train()
    module = MetaplasticModule(network, rule=rules or None, loss=card["loss"], optimizer=optimizer)
    own = module.plasticity.rules if module.plasticity is not None else ()
    memories = decode_numbered(stored.tensors(), len(own))
    check_memory(files.path(RULE), network, own, memories)
    for rule, memory in zip(own, memories, strict=True):
        rule.state.load_state_dict(memory)
    return _described(module, card)


def _described(module: Any, card: Mapping[str, Any]) -> Any:
    names, preprocessing = card["class_names"], card["preprocessing"]
    module.class_names = None if names is None else tuple(names)
    module.transform = None if preprocessing is None else Transform.from_dict(preprocessing, card["input_shape"])
    return module
