"""Accuracy within experiences, not only at their end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_meta.data.module import experience_index
from lit_meta.evaluation.accuracy import PROTOCOLS, Protocol, accuracy_of
from lit_meta.functional.stability import average_anytime_accuracy
from lit_meta.utils.io import save_json
from lit_meta.utils.validation import require_count, require_one_of


class ContinualEvaluation(L.Callback):
    """Tests on every experience each ``every_n_steps`` optimizer steps, and at the end of each experience.

    The result is a trace of accuracies, the argument of `lit_meta.functional.stability.stability_gap`. The network is
    tested in evaluation mode and the random state is not touched, so that training is the same as without the callback.

    Args:
        test_stream: experiences to test on.
        every_n_steps: optimizer steps between two evaluations, counted within the experience. The cost is a pass over the
            whole test stream each time.
        protocol: how test batches are composed; see `lit_meta.evaluation.accuracy.accuracy_of`.
        folder: the folder of ``continual_evaluation.json``, written after every experience and extended on resume; None
            keeps the trace in memory only.

    Attributes:
        steps: for each experience, the steps within it at which it was tested.
        rows: for each experience, the accuracies at these steps, (evaluations, test experiences).

    Raises:
        ValueError: an argument out of range, or an empty stream.

    Source: De Lange, van de Ven & Tuytelaars, Continual evaluation for lifelong learning, ICLR 2023.

    Example:
        >>> from lit_meta import MetaplasticModule, fit_stream, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10))
        >>> benchmark = scenario("split-digits", experiences=2)
        >>> evaluation = ContinualEvaluation(benchmark.test_stream, every_n_steps=2)
        >>> _ = fit_stream(module, benchmark, callbacks=[evaluation], accelerator="cpu")
        >>> evaluation.trace.shape
        torch.Size([2, 3, 2])
    """

    def __init__(
        self,
        test_stream: Iterable[Any],
        *,
        every_n_steps: int,
        protocol: Protocol = "standard",
        folder: str | Path | None = None,
    ) -> None:
        from lit_meta.data import experience_tensors

        require_count("every_n_steps", every_n_steps)
        require_one_of("protocol", protocol, PROTOCOLS)
        self._tests = [experience_tensors(experience) for experience in test_stream]
        if not self._tests:
            raise ValueError("expected at least one experience to test on, got an empty stream")
        self.every_n_steps, self.protocol = every_n_steps, protocol
        self.folder = None if folder is None else Path(folder)
        self.steps: list[list[int]] = []
        self.rows: list[Tensor] = []
        self._started = 0
        self._steps_now: list[int] = []
        self._rows_now: list[Tensor] = []
        self._fits = self._goes_on = False

    @property
    def trace(self) -> Tensor:
        """``(experiences learned, evaluations, test experiences)``, NaN after the last evaluation of an experience.

        Raises:
            ValueError: no experience has been learned yet.
        """
        if not self.rows:
            raise ValueError("no experience has been learned yet")
        return torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True, padding_value=float("nan"))

    @property
    def average_anytime_accuracy(self) -> float:
        """AAA: mean accuracy at all evaluations; see `lit_meta.functional.stability.average_anytime_accuracy`.

        Where training and test experiences do not belong together one by one, it is the accuracy on all test experiences.

        Raises:
            ValueError: no experience has been learned yet.
        """
        return float(average_anytime_accuracy(self.trace, of_all=None))

    def check_stream(self, *, tells_tasks: bool) -> None:
        """Checks that samples can be tested without their task.

        Raises:
            ValueError: the stream needs the task of every test sample.
        """
        if tells_tasks:
            raise ValueError("ContinualEvaluation cannot provide the task of a test sample, which this stream needs")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._fits, goes_on, self._goes_on = True, self._goes_on, False
        if goes_on:
            return
        index = experience_index(trainer, len(self.rows))
        if index != len(self.rows):
            self._resume(index)
        self._started = trainer.global_step
        self._steps_now, self._rows_now = [], []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step - self._started
        # With accumulated gradients several batches end at the same step.
        if step % self.every_n_steps == 0 and step > 0 and step not in self._steps_now[-1:]:
            self._test(step, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step - self._started
        if step in self._steps_now[-1:]:
            # A rule may have consolidated since; the experience ends after consolidation.
            self._steps_now.pop()
            self._rows_now.pop()
        self._test(step, pl_module)
        self.steps.append(self._steps_now)
        self.rows.append(torch.stack(self._rows_now))
        self._fits = False
        if self.folder is not None and trainer.is_global_zero:
            rows = [[[round(v, 6) for v in row] for row in accuracies.tolist()] for accuracies in self.rows]
            content = {
                "every_n_steps": self.every_n_steps,
                "protocol": self.protocol,
                "steps": self.steps,
                "rows": rows,
            }
            save_json(self.folder / "continual_evaluation.json", content)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._fits = False

    def state_dict(self) -> dict[str, Any]:
        present = {"started": self._started, "steps": list(self._steps_now), "rows": list(self._rows_now)}
        return {
            "steps": [list(steps) for steps in self.steps],
            "rows": list(self.rows),
            "inside": present if self._fits else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.rows = [list(steps) for steps in state_dict["steps"]], list(state_dict["rows"])
        inside = state_dict["inside"]
        self._goes_on = inside is not None
        if inside is not None:
            self._started = inside["started"]
            self._steps_now, self._rows_now = list(inside["steps"]), list(inside["rows"])

    def _test(self, step: int, network: L.LightningModule) -> None:
        self._steps_now.append(step)
        self._rows_now.append(accuracy_of(network, self._tests, protocol=self.protocol, device=network.device))

    def _resume(self, index: int) -> None:
        """Loads the evaluations within the experiences before ``index``."""
        known = read_continual_evaluation(self.folder) if self.folder is not None and index > 0 else None
        if index > 0 and (known is None or len(known[1]) < index):
            raise ValueError(
                f"the stream resumes at experience {index}, but there are no evaluations within all previous ones"
                + (f": {self.folder} holds too few" if self.folder is not None else "; pass a folder to store them in")
            )
        self.steps, self.rows = (known[0][:index], known[1][:index]) if known is not None else ([], [])


def read_continual_evaluation(folder: Path) -> tuple[list[list[int]], list[Tensor]] | None:
    """The steps and accuracies that a `ContinualEvaluation` has written to a folder; None if there are none."""
    path = folder / "continual_evaluation.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    return content["steps"], [torch.tensor(rows) for rows in content["rows"]]
