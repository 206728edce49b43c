"""Networks of an entry as they were after each experience, so that forgetting can be looked at without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_meta.zoo.layout import SNAPSHOTS, Files

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_BYTES = 700 << 10  # Of all snapshots of an entry; more of them are left out.


def snapshot_tensors(networks: Sequence[Mapping[str, Tensor]], final: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to store: of each experience those that differ from the final ones in any of them.

    Args:
        networks: weights after each experience, by name; the last are the final ones.
        final: the weights of the entry.

    Returns:
        By ``"experience/name"``, counted from 1; empty where they take too much space, or there is a single experience.

    Raises:
        ValueError: the last snapshot is another network than the final one.

    Example:
        >>> import torch
        >>> steps = [{"a": torch.tensor([float(k)]), "b": torch.ones(1)} for k in range(3)]
        >>> sorted(snapshot_tensors(steps, steps[-1]))
        ['1/a', '2/a']
    """
    import torch

    if len(networks) < 2:
        return {}
    if any(not torch.equal(networks[-1][name], tensor) for name, tensor in final.items()):
        raise ValueError("the last snapshot is not the network of the entry: remove the folder of snapshots")
    moving = [name for name in final if any(not torch.equal(n[name], final[name]) for n in networks)]
    chosen = {
        f"{number}/{name}": network[name].clone() for number, network in enumerate(networks[:-1], 1) for name in moving
    }
    size = sum(tensor.numel() * tensor.element_size() for tensor in chosen.values())
    return chosen if size <= MOST_BYTES else {}


def put_back(network: nn.Module, files: Files, card: Mapping[str, Any], experience: int) -> None:
    """Makes a network of an entry the one that it was after an experience.

    Args:
        network: the final one; it is changed.
        files: of the entry.
        card: of it.
        experience: how many experiences it had learned, from 1.

    Raises:
        ValueError: the entry has no snapshots, or none of that experience; or they are not of this network.
    """
    from lit_meta.zoo.checks import check_snapshots, read_tensors

    rows = card["accuracy_matrix"] or []
    if isinstance(experience, bool) or not isinstance(experience, int) or not 1 <= experience <= len(rows):
        raise ValueError(f"after= must be a number of experiences from 1 to {len(rows)}, got {experience!r}")
    if experience == len(rows):
        return
    if SNAPSHOTS not in card["sha256"]:
        raise ValueError(f"{files.name} has no snapshots: only the network after all {len(rows)} experiences is stored")
    stored = read_tensors(files, card, SNAPSHOTS)
    check_snapshots(stored, network, len(rows) - 1)
    own = stored.tensors()
    prefix = f"{experience}/"
    network.load_state_dict(
        {key.removeprefix(prefix): tensor for key, tensor in own.items() if key.startswith(prefix)}, strict=False
    )
