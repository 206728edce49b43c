"""Weight layers as matrix products: their inputs as the rows of one matrix, their weights as another.

A Linear layer's input is a row as it is; a convolution's are the patches under its kernel; an embedding's are one-hot. A
trainable bias is the weight of one more input that is always 1, and stands first. With rows x and the matrix W of these,
the layer's output is W x at every position, so that what keeps W x as it was keeps the layer's output. Groups of a
convolution see channels of their own: their rows and matrices are stacked, (groups, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.functional.windows import upsampled, windows


@dataclass(frozen=True, eq=False)
class Receptive:
    """A weight layer whose output is W x for the rows x of its input; this class: a Linear layer.

    Attributes:
        name: of the module, relative to the network.
        module: the module whose calls show the rows.
        parameter: its weight.
        weight: name of the weight among the network's parameters.
        bias: name of the trainable bias; None if there is none.
    """

    name: str
    module: nn.Module
    parameter: nn.Parameter
    weight: str
    bias: str | None

    one_hot: ClassVar[bool] = False

    @property
    def groups(self) -> int:
        """Number of channel groups of a convolution; 1 for other layers."""
        return 1

    @property
    def width(self) -> int:
        """Inputs that one output sees, the bias among them."""
        return self.parameter[0].numel() + (self.bias is not None)

    def rows(self, inputs: Tensor) -> Tensor:
        """Inputs of the layer, of the layout that it takes, as (rows, width), or (groups, rows, width)."""
        seen = self._seen(inputs)
        if self.bias is None:
            return seen
        return torch.cat([seen.new_ones(*seen.shape[:-1], 1), seen], -1)

    def rows_of_call(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
        """The rows of a call of the module, as `rows`."""
        return self.rows(arguments[0] if arguments else keywords["input"])

    def matrix(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W, or a change of it, as (outputs, width), or (groups, outputs of a group, width)."""
        matrix = self._as_matrix(weight)
        if bias is not None:
            matrix = torch.cat([bias.unsqueeze(1), matrix], 1)
        return matrix if self.groups == 1 else matrix.unflatten(0, (self.groups, -1))

    def parts(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias from W; the inverse of `matrix`."""
        if self.groups > 1:
            matrix = matrix.flatten(0, 1)
        if self.bias is None:
            return self._from_matrix(matrix), None
        return self._from_matrix(matrix[:, 1:]), matrix[:, 0]

    def _seen(self, inputs: Tensor) -> Tensor:
        return inputs.reshape(-1, inputs.shape[-1])

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.flatten(1)

    def _from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.reshape(self.parameter.shape)


class TransposedLinear(Receptive):
    """A Linear layer that keeps its weight as (inputs, outputs), as in GPT-2."""

    @property
    def width(self) -> int:
        return self.parameter.shape[0] + (self.bias is not None)

    def rows_of_call(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
        return self.rows(arguments[0] if arguments else next(iter(keywords.values())))

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.T

    def _from_matrix(self, matrix: Tensor) -> Tensor:
        return matrix.T


class Convolution(Receptive):
    """A convolution in one, two or three dimensions, of any stride, dilation, groups and padding."""

    @property
    def groups(self) -> int:
        return cast(nn.Conv2d, self.module).groups

    def _seen(self, inputs: Tensor) -> Tensor:
        module = cast(nn.Conv2d, self.module)
        rank = len(module.kernel_size)
        if inputs.dim() == rank + 1:
            inputs = inputs.unsqueeze(0)
        # As torch keeps it for padding modes: the last dimension first, a margin before and one after in each.
        margins = module._reversed_padding_repeated_twice
        if any(margins):
            inputs = F.pad(inputs, margins, "constant" if module.padding_mode == "zeros" else module.padding_mode)
        seen = windows(inputs, module.kernel_size, stride=module.stride, dilation=module.dilation, groups=module.groups)
        return seen if module.groups > 1 else seen[0]


class TransposedConvolution(Receptive):
    """A transposed convolution: an ordinary one, by the flipped kernel, of an input with zeros between its positions."""

    @property
    def groups(self) -> int:
        return cast(nn.ConvTranspose2d, self.module).groups

    @property
    def width(self) -> int:
        return self.parameter[:, 0].numel() // self.groups + (self.bias is not None)

    def _seen(self, inputs: Tensor) -> Tensor:
        module = cast(nn.ConvTranspose2d, self.module)
        rank = len(module.kernel_size)
        if inputs.dim() == rank + 1:
            inputs = inputs.unsqueeze(0)
        padding = cast("tuple[int, ...]", module.padding)
        margins = [
            (gap * (size - 1) - cut, gap * (size - 1) - cut + more)
            for size, gap, cut, more in zip(
                module.kernel_size, module.dilation, padding, module.output_padding, strict=True
            )
        ]
        spread = upsampled(inputs, module.stride, margins)
        seen = windows(spread, module.kernel_size, stride=(1,) * rank, dilation=module.dilation, groups=module.groups)
        seen = seen.unflatten(-1, (-1, *module.kernel_size)).flip([*range(-rank, 0)]).flatten(2)
        return seen if module.groups > 1 else seen[0]

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)

    def _from_matrix(self, matrix: Tensor) -> Tensor:
        shape = self.parameter.shape
        split = matrix.reshape(self.groups, shape[1], shape[0] // self.groups, *shape[2:])
        return split.transpose(1, 2).reshape(shape)


class Lookup(Receptive):
    """An embedding: its inputs are one-hot, so that their span is given by the indices that occurred."""

    one_hot: ClassVar[bool] = True

    @property
    def width(self) -> int:
        return self.parameter.shape[0]

    def rows(self, inputs: Tensor) -> Tensor:
        """How often each index occurs, (1, width): the diagonal of Σ x xᵀ."""
        return torch.bincount(inputs.flatten(), minlength=self.width).double().unsqueeze(0)


class AttentionInput(Receptive):
    """The input projections of `nn.MultiheadAttention`, which it stores as one matrix: queries, keys and values.

    If these are computed from several inputs, all of them are rows, so each projection preserves more than it needs to.
    """

    def rows_of_call(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
        given = {**dict(zip(("query", "key", "value"), arguments, strict=False)), **keywords}
        distinct = {id(given[part]): given[part] for part in ("query", "key", "value")}
        return torch.cat([self.rows(inputs) for inputs in distinct.values()])


class AttentionOutput(Receptive):
    """The output projection of `nn.MultiheadAttention`, which is never called: its rows are the output of an identity."""

    def rows_of_call(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor:
        identity = {"out_proj.weight": torch.eye(self.parameter.shape[1]).to(self.parameter)}
        if cast(nn.MultiheadAttention, self.module).out_proj.bias is not None:
            identity["out_proj.bias"] = torch.zeros(self.parameter.shape[0]).to(self.parameter)
        return self.rows(torch.func.functional_call(self.module, identity, arguments, dict(keywords))[0])
