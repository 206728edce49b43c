"""The places where a rule can live: a Lightning callback, a LightningModule, an Avalanche plugin."""

from lit_meta.hosts.callback import Metaplasticity
from lit_meta.hosts.losses import LOSSES
from lit_meta.hosts.module import MetaplasticModule

__all__ = ["LOSSES", "MetaplasticModule", "Metaplasticity"]
