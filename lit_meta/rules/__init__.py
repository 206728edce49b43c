"""Metaplasticity rules: what a synapse remembers, and how that changes its next update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.rules.registry import RULES as RULES
from lit_meta.rules.registry import build_rule as build_rule
from lit_meta.rules.registry import build_rules as build_rules
from lit_meta.utils.lazy import lazy_exports

if TYPE_CHECKING:  # For editors and type checkers; the registry is what counts.
    from lit_meta.core.rule import Experience as Experience
    from lit_meta.core.rule import Layer as Layer
    from lit_meta.core.rule import Rule as Rule
    from lit_meta.core.rule import Synapses as Synapses
    from lit_meta.core.state import State as State
    from lit_meta.rules.benna_fusi import BennaFusi as BennaFusi
    from lit_meta.rules.bgd import BGD as BGD
    from lit_meta.rules.binary_metaplasticity import BinaryMetaplasticity as BinaryMetaplasticity
    from lit_meta.rules.continual_backprop import ContinualBackprop as ContinualBackprop
    from lit_meta.rules.critical_period import CriticalPeriod as CriticalPeriod
    from lit_meta.rules.ewc import EWC as EWC
    from lit_meta.rules.hlop import HLOP as HLOP
    from lit_meta.rules.l2_init import L2Init as L2Init
    from lit_meta.rules.mas import MAS as MAS
    from lit_meta.rules.mesu import MESU as MESU
    from lit_meta.rules.naca import NACA as NACA
    from lit_meta.rules.owm import OWM as OWM
    from lit_meta.rules.recursive_readout import RecursiveReadout as RecursiveReadout
    from lit_meta.rules.shrink_and_perturb import ShrinkAndPerturb as ShrinkAndPerturb
    from lit_meta.rules.si import SI as SI
    from lit_meta.rules.streaming_lda import StreamingLDA as StreamingLDA
    from lit_meta.rules.upgd import UPGD as UPGD
    from lit_meta.rules.xdg import XdG as XdG

_CORE = ("rule:Experience", "rule:Layer", "rule:Rule", "rule:Synapses", "state:State")
__getattr__, __dir__, _names = lazy_exports(__name__, [*RULES.targets, *(f"lit_meta.core.{name}" for name in _CORE)])
__all__ = [*_names, "RULES", "build_rule", "build_rules"]
