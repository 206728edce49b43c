"""NACA: neuromodulation-assisted credit assignment."""

from __future__ import annotations

import zlib
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from lit_meta.core.layers import units, weight_layers
from lit_meta.core.memory_codec import encode_key
from lit_meta.core.rule import Layer, Rule, Synapses
from lit_meta.core.state import Kept
from lit_meta.functional._counting import uncounted
from lit_meta.functional.neuromodulation import (
    expectation_code,
    modulation_table,
    neuromodulator_projection,
)
from lit_meta.utils.validation import check_class_labels, require_in, require_one_of


class NACA(Rule):
    r"""Neuromodulation-assisted credit assignment: hidden layers learn from the expected class, without backpropagation.

    The label c of a sample is turned into an expectation code e_c, which a fixed random projection NI spreads to every
    hidden unit j as a neuromodulator level λ_j = e_c · NI[:, j]. A nonlinear function M of the level is the unit's local
    error: low levels depress (LTD), high levels potentiate (LTP). With the unit's own derivative and input this gives

    .. math:: Δ W_{ji} = -η \, M_j(c) \, g_j \, σ'(a_j) \, x_i

    for a hidden unit with logistic σ and gate g (the gate belongs to the network, see `lit_meta.networks`). The head
    learns from the host's loss and its own error. The chain of backpropagation is cut at every weight layer, so no
    gradient with respect to an input is ever computed.

    Units are those of the layer that receives a block's output: the features of a Linear layer, the last dimension, and the
    channels of a convolution. All positions of a unit (the tokens of (batch, tokens, features), the pixels of a map) share the
    level of their sample, and their changes are summed. With ``reduction="sum"`` that is as if every token were a sample of its
    own; ``"mean"`` divides by the number of samples, not of tokens.

    Args:
        classes: number of classes N; None takes the width of the network's last weight layer.
        distribution: of NI: ``"uniform"`` on (0, 1), ``"normal"`` (0.5, 1) clipped to [0, 1], or ``"beta"`` (½, ½).
        code: ``"paper"``, where neighbouring classes can share an index, or ``"disjoint"``.
        inversion: Λ, the level at which depression turns into potentiation, in (0, 1].
        maximum: θ, the largest modulation, at least 1.
        strength: factor on the local error; 0 switches hidden plasticity off, as a control.
        reduction: ``"mean"`` divides local errors by the batch size, as losses do that are means over the batch;
            ``"sum"`` does not, as published.
        seed: of NI.

    Raises:
        ValueError: a hyperparameter out of range; at the first batch, labels outside the head or, with ``code="paper"``,
            more classes than the code can tell apart.

    Source:
        Zhang, Cheng, Jia, Li, Poo, Xu, Science Advances 9(34) eadi2947, 2023. NI is part of the rule's state here; the
        authors' incremental code draws it anew. The published accuracy on streams of classes rests on test batches that
        hold one class each; `lit_meta.networks` says more at its gates.

    Example:
        >>> NACA(classes=10).hyperparameters["distribution"]
        'uniform'
    """

    needs_inputs = False
    needs_labels = True
    stages_memory = True

    def __init__(
        self,
        *,
        classes: int | None = None,
        distribution: Literal["uniform", "normal", "beta"] = "uniform",
        code: Literal["paper", "disjoint"] = "paper",
        inversion: float = 0.5,
        maximum: float = 1.2,
        strength: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if classes is not None and classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        require_one_of("distribution", distribution, ("uniform", "normal", "beta"))
        require_one_of("code", code, ("paper", "disjoint"))
        require_in("inversion", inversion, 0.0, 1.0, open_low=True)
        require_in("maximum", maximum, 1.0, float("inf"))
        require_in("strength", strength, 0.0, float("inf"))
        require_one_of("reduction", reduction, ("mean", "sum"))
        self.classes = classes
        self.distribution = distribution
        self.code = code
        self.inversion = inversion
        self.maximum = maximum
        self.strength = strength
        self.reduction = reduction
        self.seed = seed
        self._width = 0
        self._tables: dict[str, tuple[Tensor, Tensor]] = {}

    def begin_experience(self, synapses: Synapses) -> None:
        for name, module in synapses.network.named_modules():
            if getattr(module, "step_mode", "s") == "m":
                raise ValueError(
                    f"NACA gives every sample an error by its label, and {name!r} ({type(module).__name__}) is in multi-step "
                    "mode, where time and not samples is the first dimension: set step_mode='s' and call the network once for "
                    "each time step"
                )
        self._width = self.classes or _head_width(synapses)
        # Called for its check: too many classes for the code raise before anything is learned.
        expectation_code(self._width, kind=self.code)

    def remembers(self, network: nn.Module) -> dict[str, Kept]:
        layers = weight_layers(network)
        classes = self.classes or getattr(layers[-1].module, "out_features", None)
        kept = {}
        for layer in layers[:-1]:
            width = getattr(layer.module, "out_features", getattr(layer.module, "out_channels", None))
            kept[encode_key("projection", layer.name)] = Kept((classes and 2 * classes, width), nonzero=True)
        return kept

    def join(self, synapses: Synapses) -> None:
        """Nothing depends on which layers learn."""

    def before_forward(self, synapses: Synapses, inputs: Tensor, targets: Tensor | None) -> None:
        if targets is None:
            raise ValueError("NACA needs labels, and the batch has none")
        if not self._width:  # The stream was resumed from a checkpoint inside an experience.
            with uncounted():
                self.begin_experience(synapses)
        check_class_labels(targets, self._width, "NACA")

    def local_error(self, layer: Layer, output: Tensor, targets: Tensor) -> Tensor:
        # The factor goes into the table of classes, which is smaller than the batch.
        factor = self.strength / targets.shape[0] if self.reduction == "mean" else self.strength
        dimension = units(layer, output)
        if dimension == 0 or output.shape[0] != targets.shape[0]:
            raise ValueError(
                f"NACA gives every sample an error by its label, but block {layer.name!r} gives {tuple(output.shape)} for "
                f"{targets.shape[0]} labels: samples must be the first dimension"
            )
        table = self._table(layer.name, output, output.shape[dimension])
        error = (table if factor == 1.0 else table * factor).index_select(0, targets)
        if output.dim() == 2:
            return error
        shape = [1] * output.dim()
        shape[0], shape[dimension] = error.shape
        return error.view(shape).expand_as(output)

    def _table(self, name: str, output: Tensor, width: int) -> Tensor:
        """M for every class and unit of a block, (classes, units); it changes only when NI does."""
        if "projection" not in self.state:
            self.state["projection"] = {}
        projections = self.state["projection"]
        known = name in projections
        if not known:
            # Each block draws from a generator of its own: NI depends on neither the host nor the order of blocks.
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{name}".encode()))
            drawn = neuromodulator_projection(self._width, width, distribution=self.distribution, generator=generator)
            projections[name] = drawn.to(output.device)
        projection = projections[name]
        if projection.shape != (2 * self._width, width):
            raise ValueError(
                f"block {name!r} has {width} units and {self._width} classes, but its neuromodulator projection "
                f"was drawn for {projection.shape[1]} units and {projection.shape[0] // 2} classes: give NACA(classes=...) "
                "the number of classes the stream will end with"
            )
        held = self._tables.get(name)
        # Halves are for the network's products; an error divided by the batch keeps its digits until then.
        dtype = torch.float64 if output.dtype == torch.float64 else torch.float32
        if held is None or held[0] is not projection or held[1].dtype != dtype:
            with uncounted() if known else nullcontext():  # Made again after the stream was resumed.
                code = expectation_code(self._width, kind=self.code, device=projection.device, dtype=dtype)
                table = modulation_table(code, projection.to(dtype), inversion=self.inversion, maximum=self.maximum)
            held = (projection, table)
            self._tables[name] = held
        return held[1]


def _head_width(synapses: Synapses) -> int:
    head = weight_layers(synapses.network)[-1]
    width = getattr(head.module, "out_features", None)
    if width is None:
        raise ValueError(
            f"the last weight layer {head.name!r} is a {type(head.module).__name__}, not a Linear head: pass the number of "
            "classes, NACA(classes=...)"
        )
    return int(width)
