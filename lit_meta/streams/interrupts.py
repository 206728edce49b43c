"""Signals that end a stream: the present step is finished and saved first."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = ("SIGTERM", "SIGHUP", "SIGINT")


class StreamInterrupted(KeyboardInterrupt):
    """A stream was ended by SIGINT (Ctrl-C), at a point from which it can be resumed."""


class StreamTerminated(SystemExit):
    """A stream was ended by SIGTERM or SIGHUP; uncaught, it ends the process with status 143 or 129."""


class Stop(BaseException):
    """Leaves a fit at a pause; never leaves `lit_meta.fit_stream`."""


class Interrupts:
    """Takes note of signals that should end a stream, for it to end where its state is whole.

    Args:
        waits: whether to wait for that on SIGINT too; without checkpoints it ends a stream at once.

    Attributes:
        received: the first signal that has come.
    """

    def __init__(self, *, waits: bool) -> None:
        self.received: signal.Signals | None = None
        self._names = _ENDING if waits else _ENDING[:-1]

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Within the block, signals are noted. Those that are ignored, or that the user handles himself, are left alone."""
        former: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            usual = (signal.SIG_DFL, signal.default_int_handler)
            for number in (signal.Signals[name] for name in self._names if hasattr(signal, name)):
                if signal.getsignal(number) in usual:
                    former[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt  # Again: at once.
        if self.received is None:
            self.received = signal.Signals(number)

    def end(self, message: str) -> None:
        """Ends the stream, with one line on the error stream.

        Raises:
            StreamInterrupted: on SIGINT.
            StreamTerminated: on SIGTERM or SIGHUP.
        """
        if self.received is None:
            raise RuntimeError("no signal has come")
        line = f"{self.received.name}: {message}"
        sys.stderr.write(f"{line}\n")
        if self.received is signal.SIGINT:
            raise StreamInterrupted(line)
        raise StreamTerminated(128 + self.received.value)
