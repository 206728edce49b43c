"""Saving a stream inside its experiences, and going on from there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L

from lit_meta.integrations import _fit_state
from lit_meta.streams.checkpoints import Checkpoints, StreamState
from lit_meta.streams.interrupts import Interrupts, Stop
from lit_meta.streams.random_state import random_state, set_random_state

# Saving takes at most this share of the time of a run.
_SHARE = 0.03


class InsideSaver:
    """Saves the state of a fit now and then, and lets a fit go on from what was saved.

    Args:
        trainer: of the stream.
        module: that learns.
        checkpoints: where to; None saves nothing, and signals still end the stream between two steps.
        interrupts: signals that end the stream.
        minutes: between two saves inside an experience, or more if a save takes long.
        steps: optimizer steps between two saves; None for minutes alone.

    Attributes:
        saved: whether the last pause that was asked to end the stream has saved it.
        reached: where that was.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        checkpoints: Checkpoints | None,
        interrupts: Interrupts,
        *,
        minutes: float,
        steps: int | None,
    ) -> None:
        self.trainer = trainer
        self.module = module
        self.checkpoints = checkpoints
        self.interrupts = interrupts
        self.minutes = minutes
        self.every = steps
        self.saved = False
        self.reached: StreamState
        self._usable = checkpoints is not None and _fit_state.may_pause(trainer)

    @contextmanager
    def experience(self, state: StreamState) -> Iterator[str | None]:
        """Within the block, the Trainer fits one experience with the yielded ``ckpt_path``.

        Args:
            state: of the stream when the experience began, or inside of it, from where the fit goes on.
        """
        inside, host = state.inside or {}, state.host if state.inside else None
        before = self.trainer.global_step if host is None else int(inside["first_step"])
        earlier = float(inside.get("seconds", 0.0))
        logged = dict(inside.get("logged", {}))
        started = time.perf_counter()
        saved_at, saved_steps = started, state.steps

        def go_on() -> None:
            if host is not None:
                _fit_state.load_metric_states(self.module, inside["metrics"])
                _fit_state.load_gradients(self.module, inside["gradients"])
                _fit_state.show_again(self.trainer, inside["shown"])
                set_random_state(inside["random"])

        def batches_end(all_of_them: bool) -> None:
            if logged:
                _fit_state.add_logged(self.trainer, logged)
                if all_of_them:
                    _fit_state.log_again(self.trainer, self.module, logged)

        def pause() -> None:
            nonlocal saved_at, saved_steps
            steps, now = self.trainer.global_step - before, time.perf_counter()
            stopping = self.interrupts.received is not None
            if self._usable and (stopping or self._is_due(now - saved_at, steps - saved_steps)):
                self.saved = self._save(state, before, steps, earlier + now - started, logged)
                saved_at, saved_steps = time.perf_counter(), steps
            if stopping:
                self.reached = StreamState(initial=state.initial, rows=state.rows, inside={}, steps=steps)
                raise Stop

        with (
            _fit_state.going_on_from(self.trainer, host) as path,
            _fit_state.pauses(
                self.trainer,
                go_on=go_on,
                batches_end=batches_end,
                pause=pause,
                is_stopping=lambda: self.interrupts.received is not None,
            ),
        ):
            yield path

    def _is_due(self, seconds: float, steps: int) -> bool:
        if self.every is not None and steps >= self.every:
            return True
        assert self.checkpoints is not None
        return seconds >= max(60 * self.minutes, self.checkpoints.seconds / _SHARE)

    def _save(
        self, state: StreamState, first_step: int, steps: int, seconds: float, logged: dict[str, dict[str, Any]]
    ) -> bool:
        assert self.checkpoints is not None
        inside: dict[str, Any] = {
            "first_step": first_step,
            "seconds": seconds,
            "logged": {**logged, **_fit_state.logged(self.trainer)},
            "shown": _fit_state.shown(self.trainer),
            "metrics": _fit_state.metric_states(self.module),
            "gradients": _fit_state.gradients(self.module),
            "random": random_state(),
        }
        now = StreamState(
            initial=state.initial,
            rows=state.rows,
            cost=state.cost,
            host=_fit_state.dumped(self.trainer),
            inside=inside,
            steps=steps,
        )
        try:
            self.checkpoints.save(now)
        except TypeError as error:
            self._usable = False
            warnings.warn(
                f"there will be no checkpoints inside experiences, but after each of them: {error}", stacklevel=2
            )
            return False
        return True
