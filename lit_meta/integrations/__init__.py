"""The places where a rule can live: a Lightning callback, a LightningModule, an Avalanche plugin."""

from lit_meta.integrations.callback import Metaplasticity
from lit_meta.integrations.losses import LOSSES
from lit_meta.integrations.module import MetaplasticModule

__all__ = ["LOSSES", "MetaplasticModule", "Metaplasticity"]
