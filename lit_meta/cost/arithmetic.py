"""Counts the arithmetic of any code, such as what rules compute in their events."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lit_meta.functional._counting import is_counted

# Moving, creating and viewing numbers is not arithmetic.
# fmt: off
_MOVES = frozenset((
    "clone", "copy_", "_to_copy", "cat", "stack", "index", "index_select", "gather", "scatter", "scatter_",
    "index_put_", "fill_", "zero_", "detach", "_local_scalar_dense", "empty", "empty_like", "empty_strided",
    "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full", "zeros", "zeros_like", "ones", "ones_like",
    "full", "full_like", "arange", "scalar_tensor", "lift_fresh", "eye", "repeat", "resize_", "set_",
    "_foreach_copy_", "_foreach_zero_", "normal_", "uniform_", "bernoulli_", "rand", "randn", "randint", "randperm",
    "rand_like", "randn_like", "sort", "argsort", "constant_pad_nd", "constant_pad", "embedding",
))
# fmt: on


class ArithmeticCounter(TorchDispatchMode):
    """Counts the arithmetic inside a ``with`` block: one operation per element, one per multiply-accumulate.

    An elementwise operation counts once per element of its largest operand or result (a fused multiply-add is one), a
    reduction once per element it reads; matrix products and convolutions count their MACs; moving and drawing numbers is
    free.

    Example:
        >>> import torch
        >>> with ArithmeticCounter() as counter:
        ...     _ = torch.ones(3, 4) * 2 + 1
        ...     _ = torch.ones(3, 4) @ torch.ones(4, 5)
        >>> counter.operations
        84
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _is_free(func) or not is_counted():
            return result
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.operations += int(formula(*args, **(kwargs or {}), out_val=result)) // 2
        else:
            self.operations += max((_elements(value) for value in (*args, result)), default=0)
        return result


@cache
def _is_free(func: Any) -> bool:
    return func.overloadpacket not in flop_registry and (func.is_view or func.overloadpacket.__name__ in _MOVES)


def _elements(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, (list, tuple)):
        return sum(_elements(item) for item in value)
    return 0
