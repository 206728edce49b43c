"""What a training step may change beside the weights, so that a step that fails can be undone."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core._buffers import Scratch
from lit_meta.core.rule import Rule

# Larger buffers are not copied: they hold tables and masks, not statistics that move with every batch.
_MOST_COPIED = 2**20


class Mark:
    """The memory and the working attributes of rules at one moment.

    Tensors are held by reference: a rule that stages its memory replaces tensors, and changes them in place in
    `Rule.commit` alone, when nothing is undone any more. The tensors of other rules are copied.

    Args:
        rules: the rules.

    Example:
        >>> rule = Rule()
        >>> mark = Mark([rule])
        >>> rule.state["count"] = {"weight": torch.ones(1)}
        >>> mark.restore()
        >>> list(rule.state)
        []
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [(rule, _attributes(rule), rule.state.mark(copies=not rule.stages_memory)) for rule in rules]

    def restore(self) -> None:
        """Puts everything back."""
        for rule, attributes, memory in self._rules:
            vars(rule).update({name: _copy(value) for name, value in attributes.items()})
            changed = rule.state.restore(memory)
            if changed:
                warnings.warn(
                    f"the step that failed has changed {', '.join(changed)} in the memory of {type(rule).__name__} in place, "
                    "which cannot be undone: change memory in Rule.commit alone, or leave stages_memory at False",
                    stacklevel=3,
                )


class Surroundings:
    """The statistics that a network moves in its forward pass, and the generators that it draws from.

    Args:
        network: the network.
    """

    def __init__(self, network: nn.Module) -> None:
        buffers = [(n, b) for n, b in network.named_buffers() if 0 < b.numel() <= _MOST_COPIED and not b.is_inference()]
        self._names, self._buffers = [n for n, _ in buffers], [b for _, b in buffers]
        self._scratch = Scratch()
        self._copies: list[Tensor] = []
        self._random = torch.get_rng_state()
        devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
        self._devices = sorted(devices, key=str)
        self._random_of_devices: list[Tensor] = []

    def mark(self) -> None:
        """Records them."""
        self._random = torch.get_rng_state()
        self._random_of_devices = [torch.cuda.get_rng_state(device) for device in self._devices]
        if self._buffers:
            self._copies = self._scratch.copy(self._names, self._buffers)

    def restore(self) -> None:
        """Puts back what `mark` recorded last."""
        torch.set_rng_state(self._random)
        for device, state in zip(self._devices, self._random_of_devices, strict=False):
            torch.cuda.set_rng_state(state, device)
        with torch.no_grad():
            for buffer, copy in zip(self._buffers, self._copies, strict=False):
                buffer.copy_(copy)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """An interrupt from the keyboard comes when the block is complete, not in the middle of it.

    Handlers of signals are Python's own, or another program's, and can be replaced in the main thread only; elsewhere nothing
    interrupts.

    Example:
        >>> with interrupts_deferred():
        ...     pass
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    if handler is not signal.default_int_handler:
        yield
        return
    interrupted = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if interrupted:
        raise KeyboardInterrupt


def _attributes(rule: Rule) -> dict[str, Any]:
    lasting = rule.lasting
    return {name: _copy(value) for name, value in vars(rule).items() if name != "state" and name not in lasting}


def _copy(value: Any) -> Any:
    """A container of its own with the same contents; anything else as it is."""
    return value.copy() if type(value) in (dict, list, set) else value
