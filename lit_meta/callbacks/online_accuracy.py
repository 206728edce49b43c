"""Accuracy on samples as they arrive, before they are learned, and how plastic the network has remained."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_meta.core.batches import BatchFunction, unpack
from lit_meta.data.module import experience_index
from lit_meta.evaluation.activations import hidden_activity
from lit_meta.functional.plasticity import dormant_fraction, effective_rank
from lit_meta.utils.arguments import require_count
from lit_meta.utils.io import save_json

_QUANTITIES = ("accuracy", "dormant", "rank")


class OnlineAccuracy(L.Callback):
    """Records the accuracy of the predictions that training makes before it learns from them, as a mean of each experience.

    It says how fast a network learns what is new, and falls when it loses its plasticity; what was learned before does not
    count. Beside it, at the end of each experience, the share of dormant hidden units and the effective rank of the last
    hidden layer, on the first samples of that experience's test data.

    The predictions are those of the training pass itself: in training mode, and with the weights that a rule has drawn
    for it.

    Args:
        test_stream: experiences whose samples show the hidden units; None records accuracy alone.
        samples: as many of them, at least 2.
        unpack: takes a batch apart into (inputs, targets).
        folder: the folder of ``online_accuracy.json``, written after every experience and extended on resume; None keeps
            the record in memory only.

    Attributes:
        accuracy: of each experience.
        dormant: share of hidden units that are dormant (τ = 0.025) after each experience.
        rank: effective rank of the last hidden layer after each experience.

    Raises:
        ValueError: fewer than 2 samples; in training, outputs that are not (batch, classes) for integer labels, or a
            resumed stream whose earlier experiences were not recorded.

    Source: online accuracy as in Elsayed & Mahmood, ICLR 2024, and Dohare et al., Nature 632, 2024; dormant units: Sokar et
        al., ICML 2023.

    Example:
        >>> from lit_meta import MetaplasticModule, fit_stream, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> online = OnlineAccuracy()
        >>> _ = fit_stream(module, scenario("permuted-digits", experiences=2), callbacks=[online], accelerator="cpu")
        >>> len(online.accuracy)
        2
    """

    def __init__(
        self,
        test_stream: Iterable[Any] | None = None,
        *,
        samples: int = 500,
        unpack: BatchFunction = unpack,
        folder: str | Path | None = None,
    ) -> None:
        from lit_meta.data import experience_tensors

        require_count("samples", samples, 2)
        tests = [] if test_stream is None else [experience_tensors(experience)[0] for experience in test_stream]
        self._probes = [x[:samples] for x in tests]
        self._unpack = unpack
        self.folder = None if folder is None else Path(folder)
        self.accuracy: list[float] = []
        self.dormant: list[float] = []
        self.rank: list[float] = []
        self._right = torch.zeros(())
        self._count = 0
        self._outputs: Any = None
        self._predicted: Any = None
        self._handle: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        index = experience_index(trainer, len(self.accuracy))
        if index != len(self.accuracy):
            self.load(index)
        self._right, self._count = torch.zeros((), device=pl_module.device), 0
        network = getattr(pl_module, "network", pl_module)

        def keep(module: Any, arguments: Any, output: Any) -> None:
            if torch.is_grad_enabled() and module.training:
                self._outputs = output.detach() if isinstance(output, Tensor) else output

        self._handle = network.register_forward_hook(keep)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        # Here, and not after the batch: a rule may run the network again.
        self._predicted = self._outputs

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        predicted, self._predicted, self._outputs = self._predicted, None, None
        _, targets = self._unpack(batch)
        if (
            not isinstance(predicted, Tensor)
            or predicted.dim() != 2
            or targets is None
            or targets.shape != predicted.shape[:1]
        ):
            got = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
            raise ValueError(f"online accuracy needs outputs (batch, classes) and a label for each, got {got}")
        self._right = self._right + (predicted.argmax(1) == targets).sum()
        self._count += len(targets)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()
        index = len(self.accuracy)
        self.accuracy.append(float(self._right) / max(self._count, 1))
        if self._probes:
            activity = hidden_activity(
                getattr(pl_module, "network", pl_module), self._probes[index % len(self._probes)]
            )
            layers = [a.float() for a in activity.values()]
            self.dormant.append(float(dormant_fraction(layers)) if layers else 0.0)
            self.rank.append(float(effective_rank(layers[-1])) if layers else 0.0)
        if self.folder is not None and trainer.is_global_zero:
            content = {q: [round(v, 6) for v in getattr(self, q)] for q in _QUANTITIES}
            save_json(self.folder / "online_accuracy.json", content)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def load(self, index: int) -> None:
        """Loads the record of the experiences before ``index`` from the folder.

        Raises:
            ValueError: there are not that many in it.
        """
        path = None if self.folder is None else self.folder / "online_accuracy.json"
        known = json.loads(path.read_text()) if path is not None and path.is_file() and index else {}
        if index and len(known.get("accuracy", ())) < index:
            raise ValueError(
                f"the stream resumes at experience {index}, but there is no online accuracy of all previous ones"
                + ("; pass a folder to store it in" if path is None else f": {path} holds too few")
            )
        for quantity in _QUANTITIES:
            setattr(self, quantity, list(known.get(quantity, ()))[:index])
