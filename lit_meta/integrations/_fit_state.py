"""A fit of Lightning's Trainer in the middle: where its state is whole, what belongs to it, and how a fit goes on from it.

As in `_lightning`, every touch of Lightning's private parts is here, and ``tests/integrations/test_lightning_contract.py`` says
which of them a new release has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import Metric

_HYPERPARAMETERS = (
    "hparams_name",
    "hyper_parameters",
    "hparams_type",
    "datamodule_hparams_name",
    "datamodule_hyper_parameters",
)
_NAME = "a checkpoint of the stream"
# How a value was logged, as far as one process cares.
_HOW = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "metric_attribute")
_SHOWN = ("callback", "logged", "progress_bar")


def dumped(trainer: L.Trainer, *, between: bool = False) -> dict[str, Any]:
    """The state of a fit as Lightning's own checkpoints have it, with all hooks for saving, without hyperparameters.

    Args:
        trainer: that fits.
        between: whether it is between two fits, so that its optimizers have had their time.
    """
    content: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    left_out = (*_HYPERPARAMETERS, *(("optimizer_states", "lr_schedulers") if between else ()))
    return {key: value for key, value in content.items() if key not in left_out}


def restore_finished(
    trainer: L.Trainer, module: L.LightningModule, content: dict[str, Any], callbacks: list[L.Callback]
) -> None:
    """Brings a Trainer that has not fitted yet, and its module, to where a finished fit had left them.

    Args:
        trainer: the Trainer.
        module: the module that it fits.
        content: of `dumped`.
        callbacks: the Trainer's, and those that the module brings.
    """
    for callback in callbacks:
        callback.on_load_checkpoint(trainer, module, content)
        if callback.state_key in content.get("callbacks", {}):
            callback.load_state_dict(content["callbacks"][callback.state_key])
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"], strict=module.strict_loading)
    trainer.precision_plugin.on_load_checkpoint(content)
    if (name := type(trainer.precision_plugin).__qualname__) in content:
        trainer.precision_plugin.load_state_dict(content[name])
    loop = trainer.fit_loop
    loop.load_state_dict(content["loops"]["fit_loop"])
    for part in (loop, *vars(loop).values(), *vars(loop.epoch_loop).values()):
        if hasattr(part, "_resuming_from_checkpoint"):  # The next fit is one of its own.
            part._restarting = part._loaded_from_state_dict = part._resuming_from_checkpoint = False


@contextmanager
def going_on_from(trainer: L.Trainer, content: dict[str, Any] | None) -> Iterator[str | None]:
    """Within the block, the Trainer's ``fit`` with the yielded ``ckpt_path`` goes on from what `dumped` gave."""
    if content is None:
        yield None
        return
    strategy: Any = trainer.strategy
    strategy.load_checkpoint = lambda *_, **__: dict(content)
    try:
        yield _NAME
    finally:
        vars(strategy).pop("load_checkpoint", None)


@contextmanager
def pauses(
    trainer: L.Trainer,
    *,
    go_on: Callable[[], None],
    batches_end: Callable[[bool], None],
    pause: Callable[[], None],
    is_stopping: Callable[[], bool],
) -> Iterator[None]:
    """Within the block, a fit reports every point at which its state is whole and more training follows.

    Args:
        trainer: fits inside the block.
        go_on: called once, when everything has been set up and before the first batch is read.
        batches_end: called with False after each batch, and with True when an epoch has no more, before its metrics are known.
        pause: called after each batch that ended with an optimizer step, and after each epoch.
        is_stopping: whether the next pause will end the fit; Lightning's own reaction to SIGTERM then waits for it.
    """
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    fit_starts, epoch_starts = fit.on_run_start, epoch.on_run_start
    batch_ends, epoch_ends = epoch.on_advance_end, fit.on_advance_end
    started = False

    def start() -> None:
        nonlocal started
        if not started:
            started = True
            go_on()

    def on_fit_start() -> None:
        fit_starts()
        if not fit.restarted_mid_epoch:
            start()

    def on_epoch_start(fetcher: Any) -> None:
        epoch_starts(fetcher)
        if not started:
            _skip(fetcher, epoch.batch_progress.current.ready)
            start()

    def on_batch_end(fetcher: Any) -> None:
        _unless_stopping(lambda: batch_ends(fetcher), trainer, is_stopping)
        # Only what follows the first batch of a fit that goes on tells Lightning that it is a fit like any other.
        fit._restarting = fit._restarting and trainer.max_steps != -1
        batches_end(False)
        whole = not epoch._should_accumulate() and not epoch._num_ready_batches_reached()
        if whole and not trainer.should_stop and not epoch._should_check_val_fx(fetcher):
            pause()

    def on_epoch_end() -> None:
        batches_end(True)
        _unless_stopping(epoch_ends, trainer, is_stopping)
        if fit.epoch_progress.current.completed != fit.max_epochs and not trainer.should_stop:
            pause()

    vars(fit).update(on_run_start=on_fit_start, on_advance_end=on_epoch_end)
    vars(epoch).update(on_run_start=on_epoch_start, on_advance_end=on_batch_end)
    try:
        yield
    finally:
        for loop in (fit, epoch):
            for name in ("on_run_start", "on_advance_end"):
                vars(loop).pop(name, None)


def logged(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """What the module has logged in the present epoch and is reduced when the epoch ends, by Lightning's name of it.

    Of each there is how it was logged, and its reduction so far; a torchmetrics.Metric has that itself, see `metric_states`.
    """
    return {
        key: {
            "how": {
                **{name: getattr(metric.meta, name) for name in _HOW},
                "reduce_fx": metric.meta.reduce_fx.__name__,
            },
            "state": {name: getattr(metric, name).clone() for name in metric._defaults},
        }
        for key, metric in trainer.fit_loop.epoch_loop._results.items()
        if metric.meta.on_epoch and not metric.has_reset and (metric.is_tensor or metric.meta.metric_attribute)
    }


def add_logged(trainer: L.Trainer, before: dict[str, dict[str, Any]]) -> None:
    """Puts what `logged` gave under what has been logged since; takes from it what there is a place for already."""
    for key, metric in trainer.fit_loop.epoch_loop._results.items():
        if key not in before or metric.has_reset:
            continue
        for name, value in before.pop(key)["state"].items():
            now = getattr(metric, name)
            value = value.to(now.device)
            extreme = metric.meta.is_max_reduction or metric.meta.is_min_reduction
            setattr(metric, name, metric.meta.reduce_fx(value, now) if extreme else value + now)
        metric._computed = None


def log_again(trainer: L.Trainer, module: L.LightningModule, before: dict[str, dict[str, Any]]) -> None:
    """Logs, at the end of an epoch, what `add_logged` has left since the rest of the epoch had nothing to add to it."""
    results = trainer.fit_loop.epoch_loop._results
    for key, saved in before.items():
        how = dict(saved["how"])
        metric: Any = how["metric_attribute"]
        value = module.get_submodule(metric) if metric else torch.zeros((), device=module.device)
        fx, name = how.pop("fx"), how.pop("name")
        results.log(fx, name, value, sync_dist_fn=trainer.strategy.reduce, batch_size=0, **how)
        for part, content in saved["state"].items():
            setattr(results[key], part, content.to(module.device))
        results[key]._computed = None
    before.clear()


def shown(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """The metrics that a Trainer shows to callbacks, schedules and the progress bar until they are logged again."""
    connector = trainer._logger_connector
    return {name: dict(getattr(connector, f"_{name}_metrics")) for name in _SHOWN}


def show_again(trainer: L.Trainer, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts back what `shown` gave."""
    for name in _SHOWN:
        getattr(trainer._logger_connector, f"_{name}_metrics").update(before[name])


def metric_states(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The states of the torchmetrics in a module, which its own state leaves out."""
    return {
        name: {"updates": metric._update_count, **{state: getattr(metric, state) for state in metric._defaults}}
        for name, metric in module.named_modules()
        if isinstance(metric, Metric)
    }


def load_metric_states(module: nn.Module, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts back what `metric_states` gave."""
    for name, state in states.items():
        metric: Any = module.get_submodule(name)
        metric._update_count, metric._computed = state["updates"], None
        for part in metric._defaults:
            setattr(metric, part, state[part])
        metric.to(metric.device)


def may_pause(trainer: L.Trainer) -> bool:
    """Whether the state of this Trainer's fits is known well enough to go on from inside of one.

    It is not with several processes, each of which has a random state of its own, nor with a limit of steps, which Lightning
    counts over all fits.
    """
    return trainer.world_size == 1 and trainer.max_steps == -1


def _unless_stopping(call: Callable[[], None], trainer: L.Trainer, is_stopping: Callable[[], bool]) -> None:
    try:
        call()
    except SystemExit:  # Lightning's own reaction to SIGTERM, which saves nothing.
        if not trainer.received_sigterm or not is_stopping():
            raise


def _skip(fetcher: Any, batches: int) -> None:
    """Takes the batches that have been learned off a loader; their samples are not even read where that is possible."""
    for iterator in fetcher.combined_loader._iterator.iterators:
        if type(iterator).__name__ == "_SingleProcessDataLoaderIter":
            for _ in range(batches):
                iterator._next_index()
                iterator._num_yielded += 1
        else:
            for _ in range(batches):
                next(iterator)


def gradients(module: L.LightningModule) -> dict[str, Tensor]:
    """The gradients that a module with manual optimization may be accumulating; empty for others."""
    if module.automatic_optimization:
        return {}
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def load_gradients(module: L.LightningModule, saved: Mapping[str, Tensor]) -> None:
    """Puts back what `gradients` gave."""
    parameters = dict(module.named_parameters())
    for name, gradient in saved.items():
        parameters[name].grad = gradient.to(parameters[name])


def optimizers_of(module: L.LightningModule) -> list[torch.optim.Optimizer]:
    """What ``configure_optimizers`` returns, without schedules; it may be called outside a fit.

    Raises:
        Exception: the module's code cannot run outside a fit.
    """
    configured: Any = module.configure_optimizers()
    found: list[torch.optim.Optimizer] = []

    def collect(item: Any) -> None:
        if isinstance(item, torch.optim.Optimizer):
            found.append(item)
        elif isinstance(item, Mapping):
            collect(item.get("optimizer"))
        elif isinstance(item, (list, tuple)):
            for part in item:
                collect(part)

    collect(configured)
    return found
