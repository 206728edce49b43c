"""The registry of rules, one line each; other packages add theirs through the entry-point group ``lit_meta.rules``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Specification, build

if TYPE_CHECKING:
    from lit_meta.core.rule import Rule

RULES: Registry[type[Rule]] = Registry(
    "rule",
    {
        "benna-fusi": "lit_meta.rules.benna_fusi:BennaFusi",
        "bgd": "lit_meta.rules.bgd:BGD",
        "binary-metaplasticity": "lit_meta.rules.binary_metaplasticity:BinaryMetaplasticity",
        "continual-backprop": "lit_meta.rules.continual_backprop:ContinualBackprop",
        "critical-period": "lit_meta.rules.critical_period:CriticalPeriod",
        "ewc": "lit_meta.rules.ewc:EWC",
        "hlop": "lit_meta.rules.hlop:HLOP",
        "l2-init": "lit_meta.rules.l2_init:L2Init",
        "mas": "lit_meta.rules.mas:MAS",
        "mesu": "lit_meta.rules.mesu:MESU",
        "naca": "lit_meta.rules.naca:NACA",
        "owm": "lit_meta.rules.owm:OWM",
        "recursive-readout": "lit_meta.rules.recursive_readout:RecursiveReadout",
        "shrink-and-perturb": "lit_meta.rules.shrink_and_perturb:ShrinkAndPerturb",
        "si": "lit_meta.rules.si:SI",
        "streaming-lda": "lit_meta.rules.streaming_lda:StreamingLDA",
        "upgd": "lit_meta.rules.upgd:UPGD",
        "xdg": "lit_meta.rules.xdg:XdG",
    },
    group="lit_meta.rules",
    listed_by="lit-meta rules",
)


def build_rule(spec: Specification | Rule | None = None, *, trusted: bool = True, **hyperparameters: Any) -> Rule:
    """A rule from its spec; see `lit_meta.utils.specs`.

    Args:
        spec: a name, ``{"name": ..., hyperparameters}`` or ``{"class_path": ..., "init_args": ...}``; a rule is returned as is.
        trusted: whether a class path that is not registered may be imported.
        **hyperparameters: of the rule, in place of a mapping; ``name`` in place of ``spec``.

    Raises:
        KeyError: no rule of that name; the nearest are named.
        TypeError: the rule does not have a hyperparameter, or the spec builds something that is not a rule.
        ValueError: a class path does not exist or must not be imported.

    Example:
        >>> build_rule("ewc", strength=2.0).strength, build_rule({"name": "ewc", "strength": 2.0}).strength
        (2.0, 2.0)
    """
    from lit_meta.core.rule import Rule

    if isinstance(spec, Rule):
        return spec
    if spec is None:
        spec = {"name": hyperparameters.pop("name", "")}
    rule = build(spec, RULES, trusted=trusted, **hyperparameters)
    if not isinstance(rule, Rule):
        raise TypeError(f"the spec {spec!r} built a {type(rule).__name__}, not a lit_meta.Rule")
    return rule


@overload
def build_rules(
    specs: Rule | Specification | Sequence[Rule | Specification], *, trusted: bool = True
) -> Rule | list[Rule]: ...
@overload
def build_rules(
    specs: Rule | Specification | Sequence[Rule | Specification] | None, *, trusted: bool = True
) -> Rule | list[Rule] | None: ...
def build_rules(
    specs: Rule | Specification | Sequence[Rule | Specification] | None, *, trusted: bool = True
) -> Rule | list[Rule] | None:
    """One rule, several or none, from specs, rules, or a mix of them.

    Args:
        specs: a spec or a rule, a sequence of these, or None.
        trusted: as in `build_rule`.

    Raises:
        KeyError, TypeError, ValueError: as in `build_rule`.

    Example:
        >>> build_rules(["si", {"name": "xdg", "gated": 0.5}])[1].gated
        0.5
    """
    if isinstance(specs, (str, Mapping)):
        return build_rule(specs, trusted=trusted)
    if isinstance(specs, Sequence):
        return [build_rule(spec, trusted=trusted) if isinstance(spec, (str, Mapping)) else spec for spec in specs]
    return specs
