"""The data of a ``trainer.fit`` as its training steps got them, and those steps' loss on its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lit_meta.core.experience_data import (
    ExperienceData,
    in_order,
    loader_in_order,
    loader_of,
    order_of,
    reads_all,
    reads_in_order,
    rebuildable,
)
from lit_meta.core.rule import Rule
from lit_meta.core.task import Form, NoOneLoss
from lit_meta.integrations import _lightning
from lit_meta.integrations.losses import LOSSES

_NAMED = "say loss='cross_entropy' or 'mse'"


class _Watched:
    """A sampler that remembers, epoch by epoch, what it has given."""

    def __init__(self, watched: Any) -> None:
        self.watched = watched
        self.epochs: list[list[Any]] = []

    def __iter__(self) -> Iterator[Any]:
        given: list[Any] = []
        self.epochs.append(given)
        for item in self.watched:
            given.append(item)
            yield item

    def __len__(self) -> int:
        return len(self.watched)

    def __getattr__(self, name: str) -> Any:
        if name == "watched":  # Not there yet while a copy is being made.
            raise AttributeError(name)
        return getattr(self.watched, name)


class LightningData(ExperienceData):
    """The training data of one ``trainer.fit``, through its limits, precision plugin, hooks and transfer to the device.

    Samplers that draw are watched while training reads them, so that exactly the samples that were learned are read again.

    Args:
        trainer: that fits.
        module: the LightningModule.
        readers: the rules that will read the data; where there are none, nothing is watched.

    Attributes:
        batches_of_epochs: how many batches training steps got in each epoch, after a 0.
    """

    def __init__(self, trainer: L.Trainer, module: L.LightningModule, readers: list[Rule]) -> None:
        self._trainer = trainer
        self._module = module
        self._readers = readers
        self._samplers: list[tuple[DataLoader[Any], str, _Watched]] = []
        self.batches_of_epochs = [0]
        self._continued = False
        self._end_watch = _lightning.watch_loaders(trainer, self._watch) if readers else _nothing

    def close(self) -> None:
        """Gives the Trainer's loaders their own samplers back."""
        self._end_watch()
        for loader, name, sampler in self._samplers:
            object.__setattr__(loader, name, sampler.watched)

    def continue_from(self, batches_of_epochs: list[int]) -> None:
        """Takes over the counts of a fit that goes on from inside."""
        self.batches_of_epochs, self._continued = list(batches_of_epochs), True

    def begin_epoch(self) -> None:
        self.batches_of_epochs.append(0)

    def count(self) -> None:
        """Counts a batch that a training step gets."""
        self.batches_of_epochs[-1] += 1

    def check_end(self) -> None:
        """Checks, before anything is learned, that rules can read the data once more when training ends.

        Raises:
            ValueError: they cannot.
        """
        every = _lightning.epochs_of_a_loader(self._trainer)
        for rule in self._readers:
            name = type(rule).__name__
            if every is not None:
                raise ValueError(
                    f"{name} reads the training data once more when the experience ends, and "
                    f"reload_dataloaders_every_n_epochs={every} has put others in their place by then: leave it out, or give "
                    "each of them a trainer.fit, and so an experience, of its own"
                )
            for loader in self._loaders:
                if isinstance(loader, Iterator):
                    raise ValueError(
                        f"{name} reads the training data once more when the experience ends, and a {type(loader).__name__} can "
                        "be read only once: give a loader or a list"
                    )
                iterable = not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset)
                if iterable and self._trainer.world_size > 1:
                    raise ValueError(
                        f"{name} cannot read the training data of all processes where these come from an iterable: use a data "
                        "set that can be indexed, or one device"
                    )
            cut_short = self._trainer.max_steps not in (None, -1) or self._trainer.fit_loop.max_epochs in (None, -1)
            if self._trainer.num_training_batches == float("inf") and cut_short and rule.samples_read is None:
                hint = f"say {name}(samples=...), or " if hasattr(rule, "samples") else ""
                raise ValueError(
                    f"{name} reads all training data of an experience when it ends, and these have no end that is known: "
                    f"{hint}Trainer(limit_train_batches=...)"
                )

    @property
    def batches_per_step(self) -> int:  # type: ignore[override]
        """As many as there are processes, unless each of them reads all samples in order."""
        own = all(rebuildable(loader) and reads_in_order(loader) for loader in self._loaders)
        return 1 if own else int(self._trainer.world_size)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._raw():
            yield _lightning.through_transfer(self._trainer, self._module, batch)

    @property
    def _loaders(self) -> list[Any]:
        return _lightning.training_loaders(self._trainer).flattened

    @property
    def _batches(self) -> int | None:
        """How many batches the fullest epoch had; a training that was cut short has not seen the rest."""
        seen, limit = max(self.batches_of_epochs), self._trainer.num_training_batches
        # An epoch that a checkpoint of an older release cut in two began before these counts did.
        if seen == 0 or (not self._continued and _lightning.resumed_inside_epoch(self._trainer)):
            return None if limit == float("inf") else int(limit)
        return seen

    def _raw(self) -> Iterable[Any]:
        """The batches as they come from the loaders."""
        combined = _lightning.training_loaders(self._trainer)
        if len(combined.flattened) == 1 and not isinstance(combined.iterables, (Mapping, list, tuple)):
            loader = combined.flattened[0]
            again = self._learned(loader)
            return islice(in_order(loader), self._batches) if again is None else again
        # Which samples met in a batch is the loaders' own business; each of them is read in order.
        parts = [self._learned(loader) for loader in combined.flattened]
        loaders = [in_order(x) if part is None else part for x, part in zip(combined.flattened, parts, strict=True)]
        return islice(_lightning.recombined(combined, loaders), self._batches)

    def _learned(self, loader: Any) -> Iterable[Any] | None:
        """A loader of exactly the samples that were learned; None where these are the first batches that it gives in order."""
        if not rebuildable(loader) or reads_in_order(loader):
            return None
        alone = len(self._loaders) == 1
        cut = alone and self._batches is not None and self._batches < len(loader)
        if reads_all(loader) and not cut and not self._limits_of(loader) < len(loader):
            return loader_in_order(loader, drop_last=False)
        counts = [count for count in self.batches_of_epochs if count]
        order = order_of(loader)
        if alone and order is not None:  # Drawn again, since a fit may have gone on from inside of it.
            epochs = [k - 1 for k, count in enumerate(self.batches_of_epochs) if count]
            return loader_of(loader, [order(k)[:count] for k, count in zip(epochs, counts, strict=True)])
        drawn = [epoch for other, _, sampler in self._samplers if other is loader for epoch in sampler.epochs]
        if alone:  # What was drawn ahead, and not learned, does not count.
            known = min(len(drawn), len(counts))
            drawn = [epoch[:count] for epoch, count in zip(drawn[-known:], counts[-known:], strict=True)]
        drawn = [epoch for epoch in drawn if epoch]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, drawn)
            drawn = [[batch for part in parts for batch in part] for parts in zip(*everyone, strict=True)]
        return loader_of(loader, drawn) if drawn else None

    def _limits_of(self, loader: Any) -> float:
        position = next(i for i, other in enumerate(self._loaders) if other is loader)
        limits = _lightning.training_loaders(self._trainer).limits
        return float("inf") if limits is None else float(limits[position])

    def _watch(self, loader: Any) -> None:
        if rebuildable(loader) and not reads_in_order(loader):
            name = "sampler" if loader.batch_sampler is None else "batch_sampler"
            sampler = _Watched(getattr(loader, name))
            # A loader refuses to have its sampler replaced, since it would not notice once it is being read.
            object.__setattr__(loader, name, sampler)
            self._samplers.append((loader, name, sampler))


class LightningTask:
    """The loss of a LightningModule's own ``training_step``.

    Args:
        trainer: that fits.
        module: the LightningModule.
        network: the part of it, or the module itself, that a rule protects.
    """

    plain = False

    def __init__(self, trainer: L.Trainer, module: L.LightningModule, network: nn.Module) -> None:
        self.owner: nn.Module = module
        self.form: Form | None = _known_form(module, network)
        self._trainer = trainer
        self._module = module
        self._network = network
        self._losses: list[Tensor] | None = None

    @property
    def inseparable(self) -> NoOneLoss | None:
        if len(_lightning.training_loaders(self._trainer).flattened) < 2:
            return None
        together = "put the data sets together (ConcatDataset)"
        return NoOneLoss(
            "a batch comes from several loaders at once, so that a row of each is not one sample",
            named=f"{_NAMED} and give a function unpack= that joins inputs and labels, or {together}",
            otherwise=together,
        )

    def loss(self, batch: Any) -> Tensor:
        module = self._module
        if not module.automatic_optimization and len(self._trainer.optimizers) > 1:
            raise NoOneLoss(
                "training_step steps several optimizers, each with a loss of its own, so that there is no one loss to "
                "differentiate",
                named=_NAMED,
                otherwise="use a rule that reads no data when an experience ends, such as SI",
            )
        parameters = inspect.signature(module.training_step).parameters
        arguments = [batch, 0][: max(1, min(2, len(parameters)))]
        if "dataloader_iter" in parameters:
            raise ValueError(
                "training_step reads its batches itself (dataloader_iter), so that it cannot be run on one again"
            )
        if self._losses is not None:
            self._losses = []  # a step that failed may have left some
        with self._precision():
            output = module.training_step(*arguments)
        if not module.automatic_optimization:
            losses, self._losses = self._losses or [], []
            output = torch.stack([loss.float().sum() for loss in losses]).sum() if losses else None
        if isinstance(output, Mapping):
            output = output.get("loss")
        if not isinstance(output, Tensor):
            raise ValueError(f"training_step gives no loss for a batch (but {type(output).__name__})")
        if output.numel() != 1:
            raise ValueError(f"training_step gives a loss of shape {tuple(output.shape)}, not a scalar")
        return output.reshape(())

    @contextmanager
    def alone(self) -> Iterator[None]:
        module, trainer = self._module, self._trainer
        loggers = trainer.loggers
        inert: dict[str, Any] = {"log": _nothing, "log_dict": _nothing}
        backward = Tensor.backward
        if not module.automatic_optimization:
            self._losses = []
            inert |= dict.fromkeys(("clip_gradients", "toggle_optimizer", "untoggle_optimizer"), _nothing)
            inert |= {"manual_backward": self._collect, "optimizers": _Inert, "lr_schedulers": _Inert}
            Tensor.backward = self._collect_from()  # type: ignore[method-assign]
        if loggers:
            trainer.loggers = [DummyLogger()]
        vars(module).update(inert)
        try:
            yield
        finally:
            Tensor.backward = backward  # type: ignore[method-assign]
            for name in inert:
                vars(module).pop(name, None)
            if loggers:
                trainer.loggers = loggers
            self._losses = None

    def _collect(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        if self._losses is not None:
            self._losses.append(loss)

    def _collect_from(self) -> Callable[..., None]:
        def backward(loss: Tensor, *arguments: Any, **options: Any) -> None:
            self._collect(loss)

        return backward

    @contextmanager
    def _precision(self) -> Iterator[None]:
        # Gradients of single samples are too small for mixed precision, whose parameters are wide anyway.
        plugin = self._trainer.precision_plugin
        if isinstance(plugin, MixedPrecision):
            yield
            return
        with plugin.train_step_context():
            yield


class _Inert:
    """In the place of an optimizer or a schedule: everything can be called, and nothing happens."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.param_groups: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*arguments: Any, **options: Any) -> None:
    return None


def _known_form(module: L.LightningModule, network: nn.Module) -> Form | None:
    """The loss where a `MetaplasticModule` computes it by its own training step."""
    from lit_meta.integrations.module import MetaplasticModule  # Which knows the callback, which knows this file.

    own = isinstance(module, MetaplasticModule) and type(module).training_step is MetaplasticModule.training_step
    if not isinstance(module, MetaplasticModule) or not own or module.network is not network:
        return None
    if module.loss is LOSSES["cross_entropy"]:
        return "cross_entropy"
    return "mse" if module.loss in (LOSSES["mse"], LOSSES["summed_mse"]) else None
