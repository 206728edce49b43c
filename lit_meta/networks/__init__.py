"""Networks to learn with, artificial and spiking, and the parts they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.networks.registry import NETWORKS as NETWORKS
from lit_meta.networks.registry import build_network as build_network
from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:  # For editors and type checkers; the registry is what counts.
    from lit_meta.networks.ann import MLP as MLP
    from lit_meta.networks.ann import ConvNet as ConvNet
    from lit_meta.networks.backbones import Backbone as Backbone
    from lit_meta.networks.backbones import Preprocessing as Preprocessing
    from lit_meta.networks.backbones import backbone as backbone
    from lit_meta.networks.binary import BinaryConv2d as BinaryConv2d
    from lit_meta.networks.binary import BinaryLinear as BinaryLinear
    from lit_meta.networks.binary import BinaryMLP as BinaryMLP
    from lit_meta.networks.binary import SignActivation as SignActivation
    from lit_meta.networks.context import ContextNet as ContextNet
    from lit_meta.networks.context import NoveltyGate as NoveltyGate
    from lit_meta.networks.gates import GateOptions as GateOptions
    from lit_meta.networks.gates import InputGate as InputGate
    from lit_meta.networks.patches import PatchConv2d as PatchConv2d
    from lit_meta.networks.patches import PatchNet as PatchNet
    from lit_meta.networks.patches import RandomExpansion as RandomExpansion
    from lit_meta.networks.snn import LIFMLP as LIFMLP
    from lit_meta.networks.snn import LIFConvNet as LIFConvNet
    from lit_meta.networks.spiking import SpikingNetwork as SpikingNetwork
    from lit_meta.networks.spiking_options import Encoding as Encoding
    from lit_meta.networks.spiking_options import LIFParameters as LIFParameters
    from lit_meta.networks.spiking_patches import SpikingPatchNet as SpikingPatchNet
    from lit_meta.networks.stepwise import Stepwise as Stepwise

_PARTS = (
    "backbones:Preprocessing",
    "backbones:backbone",
    "binary:BinaryConv2d",
    "binary:BinaryLinear",
    "binary:SignActivation",
    "context:NoveltyGate",
    "gates:GateOptions",
    "gates:InputGate",
    "patches:PatchConv2d",
    "patches:RandomExpansion",
    "spiking_options:Encoding",
    "spiking_options:LIFParameters",
    "spiking:SpikingNetwork",
    "stepwise:Stepwise",
)
__getattr__, __dir__, _names = lazy_exports(
    __name__, [*NETWORKS.targets, *(f"lit_meta.networks.{part}" for part in _PARTS)]
)
__all__ = [*_names, "NETWORKS", "build_network"]
