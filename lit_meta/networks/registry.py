"""The registry of networks, one line each; other packages add theirs through the entry-point group ``lit_meta.networks``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Specification, build

if TYPE_CHECKING:
    from torch import nn

NETWORKS: Registry[Callable[..., nn.Module]] = Registry(
    "network",
    {
        "backbone": "lit_meta.networks.backbones.network:Backbone",
        "binary-mlp": "lit_meta.networks.binary:BinaryMLP",
        "context-net": "lit_meta.networks.context:ContextNet",
        "convnet": "lit_meta.networks.ann:ConvNet",
        "lif-convnet": "lit_meta.networks.snn:LIFConvNet",
        "lif-mlp": "lit_meta.networks.snn:LIFMLP",
        "mlp": "lit_meta.networks.ann:MLP",
        "patch-net": "lit_meta.networks.patches:PatchNet",
        "spiking-patch-net": "lit_meta.networks.spiking_patches:SpikingPatchNet",
    },
    group="lit_meta.networks",
    listed_by="lit-meta networks",
)


def build_network(
    spec: Specification | nn.Module | None = None, *, trusted: bool = True, **arguments: Any
) -> nn.Module:
    """A network from its spec; see `lit_meta.utils.specs`.

    Args:
        spec: a name, ``{"name": ..., arguments}`` or ``{"class_path": ..., "init_args": ...}``; a module is returned unchanged.
        trusted: whether a class path that is not registered may be imported.
        **arguments: of the network, in place of a mapping; ``name`` in place of ``spec``.

    Returns:
        The network, in training mode.

    Raises:
        KeyError: no network of that name; the nearest are named.
        TypeError: an unknown argument, a missing one, or the spec builds something that is not a network.
        ValueError: an argument out of range, or a class path that does not exist or must not be imported.

    Example:
        >>> build_network("mlp", inputs=64, hidden=[32], classes=10, seed=0).layers[0]
        Linear(in_features=64, out_features=32, bias=False)
    """
    from torch import nn

    if isinstance(spec, nn.Module):
        return spec
    if spec is None:
        spec = {"name": arguments.pop("name", "")}
    network = build(spec, NETWORKS, trusted=trusted, **arguments)
    if not isinstance(network, nn.Module):
        raise TypeError(f"network {spec!r} returned a {type(network).__name__}, not a torch.nn.Module")
    return network
