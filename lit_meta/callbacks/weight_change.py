"""The weights that every experience has changed, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from lit_meta.core.layers import weight_layers
from lit_meta.core.memory_codec import decode_numbered, encode_numbered
from lit_meta.data.module import experience_index
from lit_meta.functional.weight_change import change_map, changed_fraction, relative_change
from lit_meta.utils.io import load_tensors, save_json, save_tensors


class WeightChange(L.Callback):
    """Records, for every experience and weight layer, how many synapses changed, by how much, and where.

    Weights at the start of an experience are compared with those at its end, after the rule has consolidated. Training is
    not affected; the cost is one copy of the weights.

    Args:
        threshold: a synapse counts as changed when it moved by more than this share of the layer's typical (root mean
            square) weight; 0 counts every change.
        map_size: maximum rows and columns of the recorded maps.
        folder: the folder of ``weight_change.json`` and ``weight_change.safetensors``, written after every experience and
            extended on resume; None keeps them in memory only.

    Attributes:
        records: for each experience, by name of the layer, ``{"changed": share of synapses, "mean": mean relative change}``.
        maps: for each experience, by name of the layer, the map of relative change, (rows, columns).

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from lit_meta import MetaplasticModule, fit_stream, scenario
        >>> from lit_meta.networks import build_network
        >>> module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[8], classes=10, seed=0))
        >>> change = WeightChange(threshold=0.01)
        >>> _ = fit_stream(module, scenario("split-digits", experiences=2), callbacks=[change], accelerator="cpu")
        >>> len(change.records), sorted(change.records[0])
        (2, ['network.layers.0', 'network.layers.1'])
    """

    def __init__(
        self, *, threshold: float = 0.01, map_size: tuple[int, int] = (48, 48), folder: str | Path | None = None
    ) -> None:
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0, got {threshold}")
        if min(map_size) < 1:
            raise ValueError(f"a map needs at least one row and one column, got map_size={map_size}")
        self.threshold = threshold
        self.map_size = map_size
        self.folder = None if folder is None else Path(folder)
        self.records: list[dict[str, dict[str, float]]] = []
        self.maps: list[dict[str, Tensor]] = []
        self._before: dict[str, Tensor] = {}
        self._fits = self._goes_on = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._fits, goes_on, self._goes_on = True, self._goes_on, False
        if goes_on:
            return
        index = experience_index(trainer, len(self.records))
        if index != len(self.records):
            self._resume(index)
        self._before = {layer.name: _weight(layer.module).clone() for layer in weight_layers(pl_module)}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        record, maps = {}, {}
        for layer in weight_layers(pl_module):
            after = _weight(layer.module)
            before = self._before.pop(layer.name).to(after.device)
            changed = changed_fraction(before, after, threshold=self.threshold)
            record[layer.name] = {"changed": float(changed), "mean": float(relative_change(before, after).mean())}
            maps[layer.name] = change_map(before, after, size=self.map_size).cpu()
        self.records.append(record)
        self.maps.append(maps)
        self._fits = False
        if self.folder is not None and trainer.is_global_zero:
            save_json(self.folder / "weight_change.json", {"threshold": self.threshold, "experiences": self.records})
            save_tensors(self.folder / "weight_change.safetensors", encode_numbered(self.maps))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._fits = False

    def state_dict(self) -> dict[str, Any]:
        return {
            "records": list(self.records),
            "maps": list(self.maps),
            "before": dict(self._before) if self._fits else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.records, self.maps = list(state_dict["records"]), list(state_dict["maps"])
        self._goes_on = state_dict["before"] is not None
        self._before = dict(state_dict["before"] or {})

    def _resume(self, index: int) -> None:
        """Loads the records of the experiences before ``index``."""
        known = read_weight_change(self.folder) if self.folder is not None and index > 0 else None
        if index > 0 and (known is None or len(known[0]) < index):
            raise ValueError(
                f"the stream resumes at experience {index}, but the weight changes of previous ones were not recorded"
                + (f" in {self.folder}" if self.folder is not None else "; pass a folder to store them in")
            )
        self.records, self.maps = (known[0][:index], known[1][:index]) if known is not None else ([], [])


def read_weight_change(folder: Path) -> tuple[list[dict[str, dict[str, float]]], list[dict[str, Tensor]]] | None:
    """The records and maps that a `WeightChange` has written to a folder; None if there are none."""
    if not (folder / "weight_change.json").is_file():
        return None
    records = json.loads((folder / "weight_change.json").read_text())["experiences"]
    return records, decode_numbered(load_tensors(folder / "weight_change.safetensors"), len(records))


def _weight(module: Any) -> Tensor:
    return module.weight.detach()
