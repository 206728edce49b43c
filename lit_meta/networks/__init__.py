"""Networks to learn with, artificial and spiking, and their registry."""

from __future__ import annotations

from typing import Any

from torch import nn

from lit_meta.networks.ann import MLP, ConvNet
from lit_meta.networks.binary import BinaryConv2d, BinaryLinear, BinaryMLP, SignActivation
from lit_meta.networks.context import ContextNet, NoveltyGate
from lit_meta.networks.gates import InputGate
from lit_meta.networks.patches import PatchConv2d, PatchNet, RandomExpansion
from lit_meta.networks.snn import LIFMLP, LIFConvNet
from lit_meta.networks.spiking import SpikingNetwork
from lit_meta.networks.spiking_patches import SpikingPatchNet
from lit_meta.networks.stepwise import Stepwise
from lit_meta.utils.registry import unknown

NETWORKS: dict[str, type[nn.Module]] = {
    "binary-mlp": BinaryMLP,
    "context-net": ContextNet,
    "convnet": ConvNet,
    "lif-convnet": LIFConvNet,
    "lif-mlp": LIFMLP,
    "mlp": MLP,
    "patch-net": PatchNet,
    "spiking-patch-net": SpikingPatchNet,
}


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build a network by its registered name.

    Args:
        name: a key of `NETWORKS`.
        arguments: of its constructor.

    Returns:
        The network, in training mode.

    Raises:
        KeyError: no network of that name.
        TypeError: an argument its constructor does not have, or one that is missing.
        ValueError: an argument out of range.

    Example:
        >>> build_network("mlp", inputs=64, hidden=[32], classes=10, seed=0).layers[0]
        Linear(in_features=64, out_features=32, bias=False)
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](**arguments)


__all__ = [
    "LIFMLP",
    "MLP",
    "NETWORKS",
    "BinaryConv2d",
    "BinaryLinear",
    "BinaryMLP",
    "ContextNet",
    "ConvNet",
    "InputGate",
    "LIFConvNet",
    "NoveltyGate",
    "PatchConv2d",
    "PatchNet",
    "RandomExpansion",
    "SignActivation",
    "SpikingNetwork",
    "SpikingPatchNet",
    "Stepwise",
    "build_network",
]
