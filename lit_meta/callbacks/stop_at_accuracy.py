"""Training on each experience to a criterion instead of for a number of epochs."""

from __future__ import annotations

from typing import Any

import lightning as L

from lit_meta.evaluation.accuracy import accuracy_of
from lit_meta.utils.validation import require_in


class StopAtAccuracy(L.Callback):
    """Ends an experience after the first epoch that leaves an accuracy of at least ``accuracy`` on its own training samples.

    The code published with NACA trains this way, with 0.95 on streams of one class per experience, where training and
    validation samples are the same: a rule that learns a class faster is trained on it for fewer epochs, and overwrites
    less of the others. Needs the data module of `lit_meta.fit_stream`; ``max_epochs`` is the maximum for an experience.

    Args:
        accuracy: the accuracy at which to stop, above 0 and up to 1.

    Attributes:
        epochs: number of epochs of each experience fitted since the callback was created.

    Raises:
        ValueError: an accuracy out of range.
        TypeError: at the start of training, a Trainer without such a data module.

    Source: Zhang et al., Science Advances 9(34) eadi2947, 2023, and the code published with it.

    Example:
        >>> from lit_meta import MetaplasticModule, fit_stream, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> stop = StopAtAccuracy(0.95)
        >>> _ = fit_stream(module, scenario("split-digits"), max_epochs=5, callbacks=[stop], accelerator="cpu")
        >>> len(stop.epochs), max(stop.epochs) <= 5
        (10, True)
    """

    def __init__(self, accuracy: float) -> None:
        require_in("accuracy", accuracy, 0.0, 1.0, open_low=True)
        self.accuracy = accuracy
        self.epochs: list[int] = []
        self._fits = self._goes_on = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not hasattr(getattr(trainer, "datamodule", None), "train_experience"):
            raise TypeError("StopAtAccuracy needs the experience that is learned: fit an ExperienceDataModule")
        if not self._goes_on:
            self.epochs.append(0)
        self._fits, self._goes_on = True, False

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._fits = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._fits = False

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": list(self.epochs), "inside": self._fits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self._goes_on = list(state_dict["epochs"]), state_dict["inside"]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from lit_meta.data import experience_tensors

        self.epochs[-1] += 1
        samples = experience_tensors(trainer.datamodule.train_experience)  # type: ignore[attr-defined]
        if float(accuracy_of(pl_module, [samples], device=pl_module.device)[0]) >= self.accuracy:
            trainer.should_stop = True
