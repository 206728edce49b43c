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
    """What tells one stream from another: its scenario's name, the lengths of its two streams, the seed, and the classes.

    Attributes:
        classes: the labels in each training experience, where the benchmark says them; empty where it does not.
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
        """Checks that the checkpoint is of this very stream.

        Raises:
            ValueError: it is not.
        """
        now = asdict(stream)
        # A checkpoint of an older release does not say which classes it has learned.
        different = [name for name in now if name in self.stream and self.stream[name] != now[name]]
        if different:
            was, here = ({name: described[name] for name in different} for described in (self.stream, now))
            raise ValueError(f"{self.path} is a checkpoint of a stream of {was}, not of {here}: use another run_dir")


class Checkpoints:
    """The checkpoints of one run; only the latest is kept.

    Args:
        run_dir: the run's folder; they lie in its ``checkpoints/``.
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
        """Writes the checkpoint after the experience of the last row, then removes the one before.

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
        """The last whole checkpoint, or None.

        Raises:
            ValueError: a file of it is damaged.
        """
        whole = sorted(path for path in self.folder.glob("experience-*") if (path / "progress.json").is_file())
        if not whole:
            return None
        path = whole[-1]
        progress = load_json(path / "progress.json")
        absent = {"stream", "rows", "initial", "cost", "rules"} - progress.keys()
        if absent:
            raise ValueError(
                f"{path / 'progress.json'} is no checkpoint of a stream: it lacks {', '.join(sorted(absent))}"
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
