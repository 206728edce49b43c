"""The places where a rule can live: a Lightning callback, a LightningModule, an Avalanche plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from lit_meta.integrations.callback import Metaplasticity as Metaplasticity
    from lit_meta.integrations.losses import LOSSES as LOSSES
    from lit_meta.integrations.module import MetaplasticModule as MetaplasticModule

_PARTS = ("callback:Metaplasticity", "losses:LOSSES", "module:MetaplasticModule")
# Names of optimizers are looked up, on cards for example, where neither PyTorch nor Lightning is needed.
__getattr__, __dir__, __all__ = lazy_exports(__name__, [f"lit_meta.integrations.{part}" for part in _PARTS])
