"""Every touch of Lightning's private parts: what each is for, and what happens where it is missing.

``tests/integrations/test_lightning_contract.py`` says which of them a new release of Lightning has moved.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """The Trainer's callbacks, in the order in which they run. The attribute is documented, but not typed."""
    return list(getattr(trainer, "callbacks", ()))


def logs_this_step(trainer: L.Trainer) -> bool:
    """Whether the Trainer logs at this step; also documented and not typed."""
    every = int(getattr(trainer, "log_every_n_steps", 50))
    return bool(trainer.loggers) and every > 0 and trainer.global_step % every == 0


def log(callback: L.Callback, name: str, value: Any) -> None:
    """Logs a value as the module would. Lightning attaches ``log`` to a callback when it attaches the callback."""
    attached = getattr(callback, "log", None)
    if attached is not None:
        attached(name, value)


def state_key(callback: L.Callback, **what: Any) -> str:
    """The key of a callback's state in a checkpoint, which tells callbacks of one class apart."""
    generate = getattr(callback, "_generate_state_key", None)
    return str(generate(**what)) if generate is not None else f"{type(callback).__qualname__}{what!r}"


def misses_unused_parameters(strategy: Any) -> bool:
    """Whether gradients are reduced between processes by a strategy that expects the loss to reach every parameter."""
    if not isinstance(strategy, DDPStrategy):
        return False
    # Where the options cannot be read, DDP itself complains at the second step.
    options = getattr(strategy, "_ddp_kwargs", {"find_unused_parameters": True})
    return not options.get("find_unused_parameters")


def restart_epochs(trainer: L.Trainer, max_epochs: int) -> None:
    """Lets the Trainer's next fit begin at epoch 0.

    A Trainer counts epochs over all its fits and stops at once when it has had ``max_epochs`` of them.

    Raises:
        RuntimeError: this release of Lightning counts epochs in another place.
    """
    progress = getattr(trainer.fit_loop, "epoch_progress", None)
    if progress is None or not hasattr(progress, "reset"):
        raise RuntimeError(
            f"lightning {L.__version__} counts epochs in a place that lit_meta does not know: use a new Trainer for every "
            "experience, or a release of Lightning that lit_meta was tested with (constraints.txt)"
        )
    progress.reset()
    trainer.fit_loop.max_epochs = max_epochs


def completed_epochs(trainer: L.Trainer) -> int:
    """Epochs of the last fit that were completed, since `restart_epochs`."""
    progress = getattr(trainer.fit_loop, "epoch_progress", None)
    return int(trainer.current_epoch if progress is None else progress.current.completed)


@contextmanager
def interrupts_as_usual(trainer: L.Trainer) -> Iterator[None]:
    """Lets an interrupt come out of a fit as KeyboardInterrupt, and keeps it possible to interrupt again.

    Lightning makes an interrupt a SystemExit and ignores all others from then on.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt
