"""Entries as a careless or a hostile hand would leave them: thousands of small changes, the same ones every time."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from lit_meta.zoo.schema import digest_of

CARD, MODEL, RULE, GOLDEN = "config.json", "model.safetensors", "rule.safetensors", "golden.safetensors"

# What may stand in the place of a value of a card.
_BOMB: Any = "x"
for _ in range(60):
    _BOMB = [_BOMB]
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        10**6,
        20_000_000,
        2**31,
        2**63,
        10**30,
        -(10**30),
        0.5,
        -0.0,
        1e-320,
        1e308,
        -1e308,
    ),
    *(
        "",
        " ",
        "x",
        "..",
        "../../x",
        "/etc/passwd",
        "mlp",
        "ewc",
        "sgd",
        "torch.save",
        "os.system",
        "evil_module.thing",
    ),
    *("\x1b[2J", "\u202e", "\ud800", "a" * 5000, "é", "0", "nan", "null", "split-digits", "digits", "1" * 64),
    *(
        [],
        {},
        [[]],
        [None],
        [1, 2],
        [20_000_000],
        [1] * 3000,
        ["a"] * 50,
        {"a": 1},
        {"name": "mlp"},
        {"name": "x"},
        _BOMB,
    ),
    *(
        {"class_path": "evil_module.thing"},
        {"class_path": "torch.save", "init_args": {"f": "x"}},
        {"name": {"name": "mlp"}},
    ),
    *([{"name": "ewc"}, {"name": "si"}], {"name": "recursive-readout"}, {"name": "naca"}, {"name": "binary-mlp"}),
    *(
        {"name": "mlp", "inputs": 64, "hidden": [200] * 500, "classes": 10},
        {"name": "split", "source": "evil_module.thing"},
    ),
)


def mutations(good: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, dict[str, bytes | None], bool]]:
    """Yields a description, the files that differ (None: absent), and whether the change must be refused."""
    draw = random.Random(seed)
    card = json.loads(good[CARD])
    kinds: list[Callable[[], tuple[str, dict[str, bytes | None], bool]]] = [
        *[lambda: _in_the_card(card, draw)] * 6,
        lambda: _in_the_bytes(good, CARD, draw, None),
        lambda: _in_the_bytes(good, draw.choice((MODEL, RULE, GOLDEN)), draw, card),
        *[lambda: _in_the_tensors(good, RULE, card, draw)] * 2,
        lambda: _in_the_tensors(good, MODEL, card, draw),
        lambda: (f"without {(file := draw.choice(list(good)))}", {file: None}, file in (CARD, MODEL, RULE)),
    ]
    for _ in range(count):
        yield draw.choice(kinds)()


def signed(card: dict[str, Any]) -> bytes:
    """A card with the digest that it should have, as one would write it who knows of digests."""
    with suppress(
        TypeError, KeyError, AttributeError, ValueError, RecursionError
    ):  # There may be no place for it any more.
        card["sha256"][CARD] = digest_of(card)
    return json.dumps(card).encode()


def with_file(card: dict[str, Any], file: str, content: bytes) -> bytes:
    """A card that describes another file."""
    changed = copy.deepcopy(card)
    changed["sha256"][file] = hashlib.sha256(content).hexdigest()
    return signed(changed)


def _in_the_card(card: dict[str, Any], draw: random.Random) -> tuple[str, dict[str, bytes | None], bool]:
    changed = copy.deepcopy(card)
    places = list(_places(changed))
    inner, key = draw.choice(places)
    action = draw.choice(("replace", "replace", "replace", "delete", "add", "copy"))
    what = f"{action} {key!r}"
    if action == "replace":
        inner[key] = copy.deepcopy(draw.choice(VALUES))
        what += f" by {str(inner[key])[:60]!r}"
    elif action == "delete":
        del inner[key]
    elif action == "add":
        if isinstance(inner, dict):
            inner[draw.choice(("x", "", "class_path", "init_args", "name", "seed", "\x1b[2J"))] = draw.choice(VALUES)
        else:
            inner.append(copy.deepcopy(draw.choice(VALUES)))
    else:
        other, place = draw.choice(places)
        inner[key] = copy.deepcopy(other[place]) if other is not inner else draw.choice(VALUES)
    return what, {CARD: signed(changed) if draw.random() < 0.9 else json.dumps(changed).encode()}, False


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (dict, list)):
        for key, item in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
            yield value, key
            if key != "accuracy_matrix":  # A hundred numbers, all alike.
                yield from _places(item)


def _in_the_bytes(
    good: dict[str, bytes], file: str, draw: random.Random, card: dict[str, Any] | None
) -> tuple[str, dict[str, bytes | None], bool]:
    content = bytearray(good[file])
    # The header of a tensor file and its end are where a change can do something.
    place = draw.choice((draw.randrange(len(content)), draw.randrange(min(300, len(content)))))
    action = draw.choice(("flip", "cut", "insert", "empty", "length"))
    if action == "flip":
        content[place] ^= 1 << draw.randrange(8)
    elif action == "cut":
        del content[place:]
    elif action == "insert":
        content[place:place] = draw.randbytes(draw.randrange(1, 20))
    elif action == "empty":
        content = bytearray()
    else:
        content[:8] = draw.choice((0, 2, 2**32, 2**63, 10**9)).to_bytes(8, "little")
    changed: dict[str, bytes | None] = {file: bytes(content)}
    if card is not None and draw.random() < 0.9:
        changed[CARD] = with_file(card, file, bytes(content))
    return f"{action} at {place} of {file}", changed, False


def _in_the_tensors(
    good: dict[str, bytes], file: str, card: dict[str, Any], draw: random.Random
) -> tuple[str, dict[str, bytes | None], bool]:
    tensors = load(good[file])
    key = draw.choice(sorted(tensors))
    action = draw.choice(("drop", "rename", "resize", "zero", "nan", "infinite", "double", "add", "swap", "transpose"))
    tensor = tensors[key]
    certain = action not in ("zero", "swap", "transpose")
    if action == "drop":
        del tensors[key]
    elif action == "rename":
        tensors[draw.choice((key + "x", key.upper(), "x", "0:" + key, "\x1b[2J", key.replace(".", "/")))] = tensors.pop(
            key
        )
    elif action == "resize":
        tensors[key] = tensor[:-1].contiguous()
    elif action == "zero":
        tensors[key] = torch.zeros_like(tensor)
        certain = file == RULE and tensor.dim() > 1
    elif action in ("nan", "infinite"):
        tensors[key] = tensor.clone()
        tensors[key].flatten()[draw.randrange(tensor.numel())] = float("nan" if action == "nan" else "inf")
    elif action == "double":
        tensors[key] = tensor.double()
        certain = file == MODEL
    elif action == "add":
        tensors[
            draw.choice(("x", "0:x/y", "1:importance/layers.0.weight", "0:importance/*", "0:new/layers.0.weight"))
        ] = tensor
    elif action == "swap":
        other = draw.choice(sorted(tensors))
        tensors[key], tensors[other] = tensors[other].clone(), tensor.clone()
    else:
        tensors[key] = tensor.t().contiguous()
        certain = tensor.dim() > 1
    content = save({name: t.clone().contiguous() for name, t in tensors.items()})
    return f"{action} {key!r} of {file}", {file: content, CARD: with_file(card, file, content)}, certain


def write(folder: Path, files: dict[str, bytes | None]) -> None:
    for file, content in files.items():
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
