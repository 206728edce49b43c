"""Checkpoints between the experiences of a stream: tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import decode_numbered, encode_numbered
from lit_meta.streams.cost import StreamCost
from lit_meta.utils.io import load_json, load_tensors, save_json, save_tensors


@dataclass(frozen=True)
class StreamIdentity:
    """What identifies a stream: its scenario's name, the lengths of its two streams, the seed, and the classes.

    Attributes:
        classes: the labels in each training experience; empty if the benchmark does not list them.
    """

    scenario: str
    train: int
    test: int
    seed: int
    classes: list[list[int]] = field(default_factory=list)


@dataclass
class Saved:
    """A checkpoint as read back."""

    path: Path
    module: dict[str, Tensor]
    rules: list[dict[str, Any]]
    rows: list[Tensor]
    initial: Tensor
    cost: StreamCost
    stream: dict[str, Any]

    def check(self, stream: StreamIdentity) -> None:
        """Checks that the checkpoint belongs to this stream.

        Raises:
            ValueError: it belongs to another stream.
        """
        now = asdict(stream)
        # Checkpoints of older releases do not store the classes.
        different = [name for name in now if name in self.stream and self.stream[name] != now[name]]
        if different:
            saved, given = ({name: identity[name] for name in different} for identity in (self.stream, now))
            raise ValueError(f"{self.path} is a checkpoint of a stream of {saved}, not of {given}: use another run_dir")


class Checkpoints:
    """The checkpoints of one run; only the latest is kept.

    Args:
        run_dir: the run's folder; checkpoints are in its ``checkpoints/``.
    """

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / "checkpoints"

    def save(
        self,
        *,
        module: nn.Module,
        rules: list[dict[str, Any]],
        rows: list[Tensor],
        initial: Tensor,
        cost: StreamCost,
        stream: StreamIdentity,
    ) -> None:
        """Writes the checkpoint after the experience of the last row, then removes the previous one.

        ``progress.json`` is written last: a folder without it is not a checkpoint.
        """
        path = self.folder / f"experience-{len(rows) - 1:04d}"
        save_tensors(path / "module.safetensors", module.state_dict())
        described = []
        for number, state in enumerate(rules):
            tensors = encode_numbered(rule["state"] for rule in state.get("rules", []))
            save_tensors(path / f"rules-{number}.safetensors", tensors)
            names = [rule["name"] for rule in state.get("rules", [])]
            described.append({**state, "rules": names})
        progress = {
            "stream": asdict(stream),
            "rows": torch.stack(rows).tolist(),
            "initial": initial.tolist(),
            "cost": cost.to_dict(),
            "rules": described,
        }
        save_json(path / "progress.json", progress)
        for other in self.folder.glob("experience-*"):
            if other != path:
                shutil.rmtree(other)

    def latest(self) -> Saved | None:
        """The last complete checkpoint, or None.

        Raises:
            ValueError: one of its files is damaged.
        """
        complete = sorted(path for path in self.folder.glob("experience-*") if (path / "progress.json").is_file())
        if not complete:
            return None
        path = complete[-1]
        progress = load_json(path / "progress.json")
        absent = {"stream", "rows", "initial", "cost", "rules"} - progress.keys()
        if absent:
            raise ValueError(
                f"{path / 'progress.json'} is not a checkpoint of a stream: it lacks {', '.join(sorted(absent))}"
            )
        rules = []
        for number, state in enumerate(progress["rules"]):
            tensors = load_tensors(path / f"rules-{number}.safetensors")
            memories = decode_numbered(tensors, len(state["rules"]))
            entries = [{"name": name, "state": memory} for name, memory in zip(state["rules"], memories, strict=True)]
            rules.append({**state, "rules": entries} if entries else {})
        return Saved(
            path=path,
            module=load_tensors(path / "module.safetensors"),
            rules=rules,
            rows=list(torch.tensor(progress["rows"])),
            initial=torch.tensor(progress["initial"]),
            cost=StreamCost.from_dict(progress["cost"]),
            stream=progress["stream"],
        )
