"""The registry of optimizers: those of `torch.optim`, and those of other packages through ``lit_meta.optimizers``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from lit_meta.utils.registry import Registry
from lit_meta.utils.specs import Spec, Specification, check_arguments

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable["nn.Parameter"]], "Optimizer"]

_CLASSES = [
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "NAdam", "RAdam", "RMSprop"),
    *("Rprop", "SGD", "SparseAdam"),
]

OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optimizer", {name.lower(): f"torch.optim:{name}" for name in _CLASSES}, group="lit_meta.optimizers"
)


def optimizer_factory(spec: Specification | OptimizerFactory, *, trusted: bool = True) -> OptimizerFactory:
    """A function that builds an optimizer for given parameters; its arguments are checked at once.

    Args:
        spec: ``"sgd"``, ``{"name": "sgd", "lr": 0.1}``, ``{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}``, or a
            function of the parameters, which is returned as it is.
        trusted: whether a class path outside `torch.optim` and the registry may be imported.

    Raises:
        KeyError: no optimizer of that name.
        TypeError: another form, an argument that the optimizer does not take, or a class that is no optimizer.
        ValueError: a class path does not exist or must not be imported.

    Example:
        >>> from torch import nn
        >>> optimizer_factory({"name": "sgd", "lr": 0.5})(nn.Linear(2, 1).parameters()).defaults["lr"]
        0.5
        >>> optimizer_factory({"class_path": "os.system", "init_args": {}}, trusted=False)
        Traceback (most recent call last):
        ...
        ValueError: optimizer 'os.system' is not a registered optimizer, and what a file names is not imported: install ...
    """
    from torch.optim import Optimizer

    if callable(spec) and not isinstance(spec, (str, Mapping)):
        return spec
    parsed = Spec.parse(spec, OPTIMIZERS.kind)
    target: Any = parsed.resolve(OPTIMIZERS, trusted=trusted)
    what = f"optimizer {parsed.name or parsed.class_path!r}"
    if isinstance(target, type) and not issubclass(target, Optimizer):
        raise TypeError(f"{what} is not a torch.optim.Optimizer")
    check_arguments(target, parsed.arguments, what, positional=1)
    return partial(_optimizer, target, dict(parsed.arguments), what)


def _optimizer(
    target: Callable[..., Any], arguments: dict[str, Any], what: str, parameters: Iterable[nn.Parameter]
) -> Optimizer:
    from torch.optim import Optimizer

    optimizer = target(parameters, **arguments)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{what} returned a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    return optimizer
