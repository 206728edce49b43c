"""Every touch of Lightning's private parts: what each is for, and what happens where it is missing.

``tests/integrations/test_lightning_contract.py`` says which of them a new release of Lightning has moved.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.wrappers import is_wrapped
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DistributedSampler

# The parts of a checkpoint that hold the module's weights: Lightning's own, and where weight averaging puts the current ones.
WEIGHTS = ("state_dict", "current_model_state")
# Callbacks that put averaged weights into the module when training ends; not all are in every release.
_AVERAGING = ("StochasticWeightAveraging", "WeightAveraging")
# The package by its two names, see `package_of`.
_PACKAGES = ("lightning.pytorch.", "pytorch_lightning.")
# What callbacks of Lightning remember of a fit, by class. A checkpoint kept as the last one stays the one to be overwritten,
# and steps are counted over all fits.
_MEMORY: dict[str, tuple[str, ...]] = {
    "EarlyStopping": ("wait_count", "stopped_epoch", "best_score", "stopping_reason", "stopping_reason_message"),
    "ModelCheckpoint": (
        "current_score",
        "best_k_models",
        "kth_best_model_path",
        "kth_value",
        "best_model_score",
        "best_model_path",
    ),
    "StochasticWeightAveraging": (
        "n_averaged",
        "_swa_epoch_start",
        "_swa_lrs",
        "_average_model",
        "_initialized",
        "_swa_scheduler",
        "_scheduler_state",
        "_init_n_averaged",
        "_latest_update_epoch",
        "momenta",
    ),
    "WeightAveraging": ("_average_model", "_latest_update_epoch"),
    "BaseFinetuning": ("_internal_optimizer_metadata", "_restarting"),
    "BackboneFinetuning": ("previous_backbone_lr",),
}


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """The Trainer's callbacks, in the order in which they run. The attribute is documented, but not typed."""
    return list(getattr(trainer, "callbacks", ()))


def is_a(callback: object, *names: str) -> bool:
    """Whether a callback is one of Lightning's own classes, by name, since not all are in every release."""
    return any(base.__name__ in names and base.__module__.startswith(_PACKAGES) for base in type(callback).__mro__)


def trainer_of(module: L.LightningModule) -> L.Trainer | None:
    """The Trainer that a module is in, if any; the public property raises where there is none."""
    return getattr(module, "_trainer", None)


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


def splits_parameters(strategy: Any) -> bool:
    """Whether a strategy gives every process a part of the parameters only; by name, since not all are in every release."""
    names = {base.__name__ for base in type(strategy).__mro__}
    return bool(names & {"FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"})


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


def memory_of(callback: L.Callback) -> dict[str, Any]:
    """What one of Lightning's callbacks remembers of its fits, to be put back with `restore_memory`; empty for others'."""
    names = [name for kind, attributes in _MEMORY.items() if is_a(callback, kind) for name in attributes]
    return {name: copy.deepcopy(vars(callback)[name]) for name in names if name in vars(callback)}


def restore_memory(callback: L.Callback, memory: dict[str, Any]) -> None:
    """Puts back what `memory_of` gave."""
    vars(callback).update(copy.deepcopy(memory))


def expected_steps(trainer: L.Trainer, module: L.LightningModule, epochs: int) -> int | None:
    """The optimizer steps of a fit of some epochs; None where they are not known beforehand.

    They are not under manual optimization, where the module may skip the rest of an epoch, and where averaged weights get an
    epoch more.
    """
    may_skip = not str(type(module).on_train_batch_start.__module__).startswith(_PACKAGES)
    if not module.automatic_optimization or may_skip or averaging_callbacks(trainer):
        return None
    schedules: list[Any] = [c for c in callbacks_of(trainer) if is_a(c, "GradientAccumulationScheduler")]
    accumulated = [
        schedules[0].get_accumulate_grad_batches(epoch) if schedules else trainer.accumulate_grad_batches
        for epoch in range(epochs)
    ]
    return sum(math.ceil(int(trainer.num_training_batches) / batches) for batches in accumulated)


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


def averaging_callbacks(trainer: L.Trainer) -> list[L.Callback]:
    """The Trainer's callbacks that put averaged weights into the module when training ends."""
    return [callback for callback in callbacks_of(trainer) if is_a(callback, *_AVERAGING)]


def run_after_averaging(trainer: L.Trainer, callback: L.Callback) -> None:
    """Moves a callback behind those that average weights, so that at the end of training it sees the weights that stay."""
    order, averaging = callbacks_of(trainer), averaging_callbacks(trainer)
    if averaging and order.index(averaging[-1]) > order.index(callback):
        order.remove(callback)
        order.insert(order.index(averaging[-1]) + 1, callback)
        setattr(trainer, "callbacks", order)  # noqa: B010 - not typed.


def clips_by_value(trainer: L.Trainer) -> bool:
    """Whether the Trainer clips each entry of a gradient, which PyTorch refuses where there is no gradient at all."""
    algorithm = getattr(trainer, "gradient_clip_algorithm", None)
    return bool(getattr(trainer, "gradient_clip_val", None)) and getattr(algorithm, "value", algorithm) == "value"


def save_last_again(trainer: L.Trainer) -> None:
    """Saves anew the checkpoints that were written after the last step, and those that are kept as the last one.

    `ModelCheckpoint` writes them when the last epoch ends, which is before ``on_train_end``.
    """
    for callback in callbacks_of(trainer):
        if not is_a(callback, "ModelCheckpoint") or getattr(callback, "save_weights_only", True):
            continue
        paths = trainer.strategy.broadcast(_last_checkpoints(trainer, callback) if trainer.is_global_zero else [])
        for path in paths:
            trainer.save_checkpoint(path)


def _last_checkpoints(trainer: L.Trainer, callback: Any) -> list[str]:
    """Files of a `ModelCheckpoint` that stand for the end of the fit, each once."""
    saved = [str(path) for path in (callback.best_model_path, *callback.best_k_models) if path]
    paths = [path for path in saved if _step_of(path) == trainer.global_step]
    if callback.save_last and (callback.save_last != "link" or not Path(callback.last_model_path).is_symlink()):
        paths.append(callback.last_model_path)
    return list({Path(path).resolve(): path for path in paths if path and Path(path).is_file()}.values())


def _step_of(path: str) -> int | None:
    """The step at which a checkpoint was saved; None where that cannot be read, as of one that is not a local file."""
    try:
        return int(torch.load(path, map_location="cpu", mmap=True, weights_only=False)["global_step"])
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def fabric_network(module: nn.Module) -> nn.Module:
    """The network in what ``fabric.setup`` returned; a module that Fabric has not wrapped is returned as it is."""
    if not is_wrapped(module):
        return module
    network = getattr(module, "module", None)
    if not isinstance(network, nn.Module):
        raise RuntimeError(
            f"lightning {L.__version__} wraps modules in a way that lit_meta does not know: give the network"
        )
    return network


def fabric_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer in what ``fabric.setup`` returned."""
    return getattr(optimizer, "optimizer", optimizer) if is_wrapped(optimizer) else optimizer


def fabric_loader(loader: Any) -> Any:
    """The loader in what ``fabric.setup_dataloaders`` returned; where it cannot be had, the wrapper reads its batches too."""
    return getattr(loader, "_dataloader", loader) if is_wrapped(loader) else loader


def package_of(module: object) -> ModuleType | None:
    """The package whose LightningModule an object is: ``lightning.pytorch``, or ``pytorch_lightning``, its older name.

    The two are installed apart, and neither takes modules of the other. None for what is no LightningModule.
    """
    for base in type(module).__mro__:
        for package in ("lightning.pytorch", "pytorch_lightning"):
            if base.__name__ == "LightningModule" and base.__module__.startswith(f"{package}."):
                return sys.modules[package]
    return None


def is_lightning_module(module: object) -> bool:
    """Whether an object is a LightningModule, by whichever of its two names the package was imported."""
    return package_of(module) is not None


def new_trainer(module: object, **options: Any) -> L.Trainer:
    """A Trainer of the package that a module is of.

    Raises:
        ValueError: Lightning refuses the options, such as a device that is not there.
    """
    try:
        trainer: L.Trainer = (package_of(module) or L).Trainer(**options)
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":  # Each of the packages has a class of its own.
            raise
        raise ValueError(f"Lightning's Trainer refuses its arguments: {error}") from None
    return trainer


def datamodule_for(module: object, data: L.LightningDataModule) -> L.LightningDataModule:
    """A data module of the package that a module is of; its Trainer looks for its own class among the bases."""
    package = package_of(module)
    if package is not None and not isinstance(data, package.LightningDataModule):
        data.__class__ = type(type(data).__name__, (type(data), package.LightningDataModule), {})
    return data


def training_loaders(trainer: L.Trainer) -> CombinedLoader:
    """The loaders that a fit reads, once Lightning has put its samplers and limits in; often of one loader alone.

    Raises:
        RuntimeError: the Trainer has not read its training data yet.
    """
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    if combined is None:
        raise RuntimeError("the Trainer has not read its training data yet")
    return cast("CombinedLoader", combined)


def epochs_of_a_loader(trainer: L.Trainer) -> int | None:
    """After how many epochs the present fit makes its training loaders anew; None where it keeps them to its end."""
    every = int(getattr(trainer, "reload_dataloaders_every_n_epochs", 0))
    last = trainer.fit_loop.max_epochs
    kept = not every or (last not in (None, -1) and last - trainer.current_epoch <= every)
    return None if kept else every


def recombined(combined: CombinedLoader, loaders: list[Any]) -> Iterator[Any]:
    """The batches of other loaders, put together as those of a fit are."""
    together = CombinedLoader(combined.iterables, combined._mode)
    together.flattened = loaders
    together.limits = combined.limits
    for batch, _, _ in iter(together):
        yield batch


def genuine_samples(loaders: Any, position: int, batch_index: int, size: int) -> int | None:
    """How many samples of a batch are not repetitions of others; None where the processes do not share samples out.

    A `DistributedSampler` gives every process as many samples, and repeats the first ones for that; they come last.

    Args:
        loaders: a loader, or a sequence or mapping of them.
        position: of the loader among them.
        batch_index: of the batch in this process.
        size: samples in the batch.
    """
    many = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    loader = many[position] if isinstance(many, (list, tuple)) else many
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or not getattr(loader, "batch_size", None):
        return None
    if sampler.drop_last:
        return size
    own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]
    return max(0, min(size, own - batch_index * loader.batch_size))


def through_transfer(trainer: L.Trainer, module: L.LightningModule, batch: Any) -> Any:
    """A batch of a loader as the training step gets it: converted, through the hooks of its transfer, on the device."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def resumed_inside_epoch(trainer: L.Trainer) -> bool:
    """Whether the present fit goes on from a checkpoint that was saved inside an epoch."""
    return bool(getattr(trainer.fit_loop, "restarted_mid_epoch", False))


def watch_loaders(trainer: L.Trainer, watch: Callable[[Any], None]) -> Callable[[], None]:
    """Shows each training loader once Lightning has put its own sampler in, and before anyone reads it.

    Returns:
        Ends it.
    """
    strategy: Any = trainer.strategy
    process = strategy.process_dataloader

    def processed(loader: Any) -> Any:
        loader = process(loader)
        if trainer.training:  # And not a loader to validate with.
            watch(loader)
        return loader

    strategy.process_dataloader = processed
    return lambda: vars(strategy).pop("process_dataloader", None)
