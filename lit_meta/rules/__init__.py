"""The rules, and the one registry of them."""

from __future__ import annotations

from typing import Any

from lit_meta.core.rule import Experience, Layer, Rule, Synapses
from lit_meta.core.state import State
from lit_meta.rules.benna_fusi import BennaFusi
from lit_meta.rules.bgd import BGD
from lit_meta.rules.binary_metaplasticity import BinaryMetaplasticity
from lit_meta.rules.critical_period import CriticalPeriod
from lit_meta.rules.ewc import EWC
from lit_meta.rules.hlop import HLOP
from lit_meta.rules.mas import MAS
from lit_meta.rules.mesu import MESU
from lit_meta.rules.naca import NACA
from lit_meta.rules.owm import OWM
from lit_meta.rules.recursive_readout import RecursiveReadout
from lit_meta.rules.si import SI
from lit_meta.rules.streaming_lda import StreamingLDA
from lit_meta.rules.upgd import UPGD
from lit_meta.rules.xdg import XdG
from lit_meta.utils.registry import unknown

RULES: dict[str, type[Rule]] = {
    "benna-fusi": BennaFusi,
    "bgd": BGD,
    "binary-metaplasticity": BinaryMetaplasticity,
    "critical-period": CriticalPeriod,
    "ewc": EWC,
    "hlop": HLOP,
    "mas": MAS,
    "mesu": MESU,
    "naca": NACA,
    "owm": OWM,
    "recursive-readout": RecursiveReadout,
    "si": SI,
    "streaming-lda": StreamingLDA,
    "upgd": UPGD,
    "xdg": XdG,
}

__all__ = [
    "BGD",
    "EWC",
    "HLOP",
    "MAS",
    "MESU",
    "NACA",
    "OWM",
    "RULES",
    "SI",
    "UPGD",
    "BennaFusi",
    "BinaryMetaplasticity",
    "CriticalPeriod",
    "Experience",
    "Layer",
    "RecursiveReadout",
    "Rule",
    "State",
    "StreamingLDA",
    "Synapses",
    "XdG",
    "build_rule",
]


def build_rule(name: str, **hyperparameters: Any) -> Rule:
    """A rule by its name in the registry.

    Raises:
        KeyError: no rule of that name; the nearest are named.
        TypeError: a hyperparameter that the rule does not have.

    Example:
        >>> build_rule("ewc", strength=2.0).strength
        2.0
    """
    if name not in RULES:
        raise unknown("rule", name, RULES)
    try:
        return RULES[name](**hyperparameters)
    except TypeError as error:
        known = ", ".join(build_rule(name).hyperparameters)
        raise TypeError(f"rule {name!r}: {str(error).split('__init__() ')[-1]}; it takes {known}") from None
