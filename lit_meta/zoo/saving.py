"""Making entries: of a module in Python, of a finished run, and of an entry of an older format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lit_meta.core.memory_codec import encode_numbered
from lit_meta.core.rule import Rule
from lit_meta.experiments.run import network_for_seed, versions
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.module import MetaplasticModule
from lit_meta.integrations.optimizers import OPTIMIZERS
from lit_meta.rules.registry import RULES
from lit_meta.utils.io import check_folder, load_tensors, save_tensors, sha256
from lit_meta.utils.specs import Specification, normalized
from lit_meta.zoo import references
from lit_meta.zoo.golden import described as described_versions
from lit_meta.zoo.golden import golden_tensors
from lit_meta.zoo.layout import CONFIG, FORMAT, GOLDEN, MODEL, PAGE, RULE, SNAPSHOTS
from lit_meta.zoo.pages import model_card
from lit_meta.zoo.preprocessing import Transform
from lit_meta.zoo.schema import OF_A_RUN, check_card, digest_of
from lit_meta.zoo.snapshots import snapshot_tensors

WEIGHTS_LICENCE = "Apache-2.0"


def save(
    module: nn.Module,
    folder: str | Path,
    *,
    network: Specification,
    samples: Tensor,
    class_names: Sequence[str],
    transform: Transform | None = None,
    name: str | None = None,
    optimizer: Specification | None = None,
    provenance: Mapping[str, Mapping[str, str]] | None = None,
    note: str = "",
    seed: int = 0,
) -> Path:
    """Saves a trained network, with its rule and the rule's memory, as an entry: without a run, and ready for the hub.

    Args:
        module: a network, or a `MetaplasticModule` around one, whose rule and memory are then saved with it.
        folder: for the entry; created, or an entry in it replaced.
        network: the spec that builds the network again, such as ``{"name": "mlp", "inputs": 64, ...}``: files hold no code, so
            it must be in a registry (see `lit_meta.networks`).
        samples: a few inputs, (samples, *shape), as the network takes them; they become the golden inputs.
        class_names: of every output.
        transform: how an image of one's own becomes an input; None for samples that are given as tensors.
        name: of the entry; None takes the folder's.
        optimizer: spec of the optimizer to go on learning with; None takes the module's where it has one by name.
        provenance: what is known of ``data`` and ``weights``: licence, origin.
        note: what a reader must know.
        seed: that the network was trained with.

    Returns:
        The folder.

    Raises:
        TypeError: a rule whose hyperparameters are no plain values.
        ValueError: the spec builds another network, a rule or an optimizer has no name in a registry, or the folder holds
            something else than an entry.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from lit_meta.networks import build_network
        >>> spec = {"name": "mlp", "inputs": 64, "hidden": [8], "classes": 2}
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = save(build_network(spec), Path(place) / "mine", network=spec, samples=torch.rand(3, 1, 8, 8),
        ...                   class_names=["zero", "one"], transform=Transform((1, 8, 8)))
        ...     sorted(path.name for path in folder.iterdir())
        ['README.md', 'config.json', 'golden.safetensors', 'model.safetensors', 'rule.safetensors']
    """
    own = module.network if isinstance(module, MetaplasticModule) else module
    rules = module.plasticity.rules if isinstance(module, MetaplasticModule) and module.plasticity is not None else ()
    target = Path(folder)
    content = {
        "name": name or target.resolve().name,
        "network": normalized(network, "network"),
        "rule": [_rule_spec(rule) for rule in rules] or None,
        "loss": _loss_name(module),
        "optimizer": normalized(optimizer or _optimizer_spec(module), "optimizer"),
        "seed": seed,
        "class_names": list(class_names),
        "note": note,
        **dict.fromkeys(OF_A_RUN),
        "provenance": {part: dict(facts) for part, facts in (provenance or {}).items()},
        "versions": versions(),
    }
    weights = {key: tensor.detach().cpu() for key, tensor in own.state_dict().items()}
    memory = encode_numbered(rule.state.state_dict() for rule in rules)
    return write_entry(target, content, weights, memory, samples=samples.cpu(), transform=transform)


def write_entry(
    folder: Path,
    content: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    memory: Mapping[str, Tensor],
    *,
    samples: Tensor,
    transform: Transform | None,
    snapshots: Sequence[Mapping[str, Tensor]] = (),
) -> Path:
    """Writes the files of an entry to a folder beside the target, checks them by loading them, and moves them there.

    Raises:
        ValueError: they do not fit each other, or the folder holds something else than an entry.
    """
    from lit_meta.zoo.entries import load

    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / f).is_file() for f in (CONFIG, "card.yaml")):
        raise ValueError(f"{folder} holds something else than a zoo entry: choose another folder")
    network = network_for_seed(content["network"], content["seed"], trusted=False)
    reference = references.referred(weights, network.state_dict())
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(
            f"the spec {content['network']!r} builds another network: {' '.join(str(error).split())}"
        ) from None
    made_again = references.names_of(reference, weights)
    weights = {key: tensor for key, tensor in weights.items() if key not in made_again}
    golden = golden_tensors(network, samples)
    outputs = golden["outputs"]
    if outputs.dim() != 2 or outputs.shape[1] != len(content["class_names"]):
        raise ValueError(
            f"the network gives outputs of shape {tuple(outputs.shape)}, not one for each of the "
            f"{len(content['class_names'])} class names"
        )
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    try:
        partial_folder.mkdir(parents=True)
        stored = {MODEL: weights, RULE: memory, GOLDEN: golden}
        if steps := snapshot_tensors(snapshots, weights):
            stored[SNAPSHOTS] = steps
        is_third = reference is not None or SNAPSHOTS in stored  # What format 2 does not have.
        for file, tensors in stored.items():
            save_tensors(partial_folder / file, tensors)
        card = {
            "format": FORMAT if is_third else 2,
            "library_name": "lit-meta",
            **content,
            "input_shape": list(samples.shape[1:]),
            **({references.KEY: reference} if is_third else {}),
            "preprocessing": None if transform is None else transform.to_dict(),
            "spiking": is_spiking(network),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "versions": described_versions(content["versions"]),
        }
        # As JSON has it: lists in place of tuples.
        card = json.loads(json.dumps(card, allow_nan=False))
        (partial_folder / PAGE).write_text(model_card(card), encoding="utf-8")
        card["sha256"] = {file: sha256(partial_folder / file) for file in (*stored, PAGE)}
        card["sha256"][CONFIG] = digest_of(card)
        check_card(card, card["name"])
        (partial_folder / CONFIG).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        load(partial_folder, with_rule=True)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for path in partial_folder.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return folder


def migrate(source: str | Path, folder: str | Path | None = None) -> Path:
    """Writes an entry again in the present format: one of format 1 gains what its card did not say.

    Its data are read for class names, preprocessing and golden inputs, and it learns one more experience for its card.

    Args:
        source: as of `lit_meta.zoo.load`.
        folder: for the new files; None replaces the old ones.

    Raises:
        KeyError, ValueError, FileNotFoundError: as of `lit_meta.zoo.load`; or the data are absent.
    """
    from lit_meta.zoo.cards import read_card
    from lit_meta.zoo.entries import load
    from lit_meta.zoo.layout import locate
    from lit_meta.zoo.runs import entry_of_experiment

    files = locate(source)
    card = read_card(files)
    if card["experiment"] is None:
        raise ValueError(f"{files.name} was saved without a run, and has the present format already")
    target = Path(folder) if folder is not None else files.path(MODEL).parent
    final = load(source)
    steps = []
    if SNAPSHOTS in files.paths:
        steps = [load(source, after=number).state_dict() for number in range(1, len(card["accuracy_matrix"]) + 1)]
    return entry_of_experiment(card, final.state_dict(), load_tensors(files.path(RULE)), target, steps)


def is_spiking(network: nn.Module) -> bool:
    """Whether a network has neurons that fire: ours, or those of snnTorch, SpikingJelly and Norse."""
    from lit_meta.core.spiking_state import SpikingState

    return bool(SpikingState(network)) or any(hasattr(module, "spike_counts") for module in network.modules())


def _rule_spec(rule: Rule) -> dict[str, Any]:
    name = RULES.named(f"{type(rule).__module__}.{type(rule).__qualname__}")
    if name is None:
        name = next((known for known in RULES if RULES.is_foreign(known) and RULES[known] is type(rule)), None)
    if name is None:
        raise ValueError(
            f"{type(rule).__name__} has no name in the registry of rules, and files name nothing else: register it "
            "(an entry point of the group lit_meta.rules)"
        )
    spec = {"name": name, **rule.hyperparameters}
    try:
        return dict(json.loads(json.dumps(spec, allow_nan=False)))
    except (TypeError, ValueError):
        raise TypeError(f"hyperparameters of {rule!r} are no plain values, and cannot be written to a card") from None


def _loss_name(module: nn.Module) -> str:
    loss = getattr(module, "loss", None)
    name = next((known for known, function in LOSSES.items() if function is loss), None)
    if name is None and isinstance(module, MetaplasticModule):
        raise ValueError(f"the loss must be one by name ({', '.join(LOSSES)}), so that the entry can go on learning")
    return name or "cross_entropy"


def _optimizer_spec(module: nn.Module) -> Specification:
    factory = getattr(module, "_optimizer", None)
    if isinstance(factory, partial) and len(factory.args) > 1:
        target, arguments = factory.args[0], factory.args[1]
        name = OPTIMIZERS.named(f"torch.optim.{getattr(target, '__name__', '')}")
        if name is not None:
            return {"name": name, **arguments}
    if isinstance(module, MetaplasticModule):
        raise ValueError("the module's optimizer has no name: pass save(..., optimizer={'name': 'sgd', 'lr': 0.1})")
    return {"name": "sgd", "lr": 0.1}
