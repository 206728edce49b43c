"""Checkpoints of a stream, between its experiences and inside them: tensors as safetensors, the rest as JSON."""

from __future__ import annotations

import json
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_meta.streams.cost import StreamCost
from lit_meta.streams.identity import difference
from lit_meta.utils.encoding import decode, encode
from lit_meta.utils.files import Content, read_folder, remove_partial, write_folder
from lit_meta.utils.tensor_file import tensor_file

FORMAT = 3
KEPT = 2
# A larger state (in bytes) is written from where it lies.
_MOST_COPIED = 2**26
_NAME = re.compile(r"experience-(\d+)-step-(\d+)")


@dataclass
class StreamState:
    """How far a stream has come, and all that it goes on with.

    Attributes:
        rows: of the accuracy matrix, of the experiences that have been learned.
        initial: accuracies before any learning.
        cost: so far, without the experience that is being learned.
        host: the state of the module, its rules, the Trainer and its callbacks; None before the first step.
        inside: what is particular to an experience that is being learned; None between experiences.
        steps: optimizer steps taken in that experience.
    """

    initial: Tensor
    rows: list[Tensor] = field(default_factory=list)
    cost: StreamCost = field(default_factory=StreamCost)
    host: dict[str, Any] | None = None
    inside: dict[str, Any] | None = None
    steps: int = 0

    @property
    def place(self) -> str:
        """Where in the stream this is, for a message."""
        learned = len(self.rows)
        if self.inside is not None:
            return f"after {self.steps} steps of experience {learned + 1}"
        return f"after experience {learned}" if learned else "before the first experience"


class Checkpoints:
    """The checkpoints of one run, of which the last two are kept.

    Args:
        run_dir: the run's folder; checkpoints are in its ``checkpoints/``. Its owner alone may use them, see
            `lit_meta.utils.locks`.
        identity: of the run, see `lit_meta.streams.identity`.
        writes: whether this process writes; of several, one does.

    Attributes:
        seconds: how long the last `save` has kept its caller from going on.
    """

    def __init__(self, run_dir: Path, identity: dict[str, Any], *, writes: bool = True) -> None:
        self.run_dir = run_dir
        self.writes = writes
        self.folder = run_dir / "checkpoints"
        self.identity = json.loads(json.dumps(identity))  # As it comes back from a file.
        self.seconds = 0.0
        self._kept: list[Path] = []
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    @property
    def present(self) -> list[Path]:
        """Everything in the folder that is not the rest of a killed write, the furthest first."""
        return _present(self.folder)

    def begin(self, *, resume: bool, overwrite: bool) -> StreamState | None:
        """What the run goes on from; None if it starts afresh.

        Raises:
            FileExistsError: there is a run already, and neither ``resume`` nor ``overwrite`` is set.
            ValueError: see `newest`.
        """
        if self.writes:
            remove_partial(self.folder)
        if resume:
            return self.newest()
        if self.writes and self.present:
            if not overwrite:
                raise FileExistsError(
                    f"{self.run_dir} holds a run already: go on with it by resume=True, start afresh by overwrite=True, or use "
                    "another run_dir"
                )
            shutil.rmtree(self.folder)
        return None

    def save(self, state: StreamState) -> None:
        """Copies a state, and begins to write it as a checkpoint, after which all but the last two are removed.

        The caller goes on while the disk works: its state may change. `wait` says when all is on the disk. A large state is not
        copied, and is on the disk when the call returns.

        Raises:
            TypeError: something in the state of a callback, an optimizer or a schedule cannot be saved.
            OSError: it, or the one before, could not be written; the former ones are intact.
        """
        started = time.perf_counter()
        if not self.writes:
            return
        if state.host is not None and _not_a_number(state.host) is not None:
            return  # Training has diverged, and to go on from here would be of no use.
        tensors: dict[str, Tensor] = {}
        content = {
            "format": FORMAT,
            "identity": self.identity,
            **{name: getattr(state, name) for name in ("initial", "rows", "host", "inside", "steps")},
            "cost": state.cost.to_dict(),
        }
        text = json.dumps(encode(content, tensors))
        path = self.folder / f"experience-{len(state.rows):06d}-step-{state.steps:09d}"
        self.wait()
        copied = sum(t.nbytes for t in tensors.values()) <= _MOST_COPIED
        if copied:
            tensors = {name: t.clone() for name, t in tensors.items()}
        files: dict[str, Content] = {"state.json": text.encode(), "state.safetensors": tensor_file(tensors)}
        self._writing = self._writer.submit(self._write, path, files)
        if not copied:
            self.wait()
        self.seconds = time.perf_counter() - started

    def _write(self, path: Path, files: dict[str, Content]) -> None:
        write_folder(path, files)
        self._kept = [path, *(p for p in self._kept if p != path)][:KEPT]
        for other in self.present:
            if other not in self._kept:
                _remove(other)

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk.

        Raises:
            OSError: it cannot be written; the former ones are intact.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    @contextmanager
    def written(self) -> Iterator[None]:
        """At the end of the block, however it ends, everything is on the disk.

        Raises:
            OSError: as of `wait`; where the block ends by an error of its own, that is a warning.
        """
        try:
            yield
            self.wait()
        except BaseException:
            try:
                self.wait()
            except OSError as error:
                warnings.warn(f"the last checkpoint could not be written: {error}", stacklevel=2)
            raise
        finally:
            self._writer.shutdown()

    def newest(self) -> StreamState | None:
        """The furthest checkpoint that is whole, or None if there are none at all; a warning says what is passed over.

        Raises:
            ValueError: it is of another run, or there are some and none is whole.
        """
        reasons: list[str] = []
        for path in self.present:
            try:
                content = _read(path)
            except (ValueError, OSError) as error:
                reasons.append(str(error))
                continue
            self._check_run(content["identity"])
            self._kept = [path]
            if reasons:
                warnings.warn(f"{'; '.join(reasons)}: going on from {path} instead", stacklevel=3)
            return StreamState(
                initial=content["initial"],
                rows=content["rows"],
                cost=StreamCost.from_dict(content["cost"]),
                host=content["host"],
                inside=content["inside"],
                steps=content["steps"],
            )
        if reasons:
            raise ValueError(
                f"no checkpoint in {self.folder} can be used ({'; '.join(reasons)}): use another run_dir, or start afresh with "
                "overwrite=True"
            )
        return None

    def _check_run(self, identity: Any) -> None:
        found = difference(identity, self.identity)
        if found is not None:
            raise ValueError(
                f"{self.run_dir} holds another run: {found}; use another run_dir, or start afresh with overwrite=True"
            )


def last_weights(run_dir: Path) -> dict[str, Tensor] | None:
    """The weights of the furthest checkpoint of any run; None if there is none.

    Raises:
        ValueError: it is damaged.
    """
    present = _present(run_dir / "checkpoints")
    if not present or (host := _read(present[0])["host"]) is None:
        return None
    return dict(host["state_dict"])


def learned_experiences(run_dir: Path) -> int:
    """How many experiences the furthest checkpoint of a run has learned, whether it is damaged or not; 0 if there is none."""
    present = _present(run_dir / "checkpoints")
    return max(0, _position(present[0])[0]) if present else 0


def _present(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("*") if not path.name.startswith(".")]
    return sorted(paths, key=_position, reverse=True)


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        ValueError: it is damaged, of another release, or holds numbers that are none.
    """
    from safetensors.torch import load

    if not _NAME.fullmatch(path.name):
        raise ValueError(f"{path} is no checkpoint of this release")
    files = read_folder(path)
    try:
        content: dict[str, Any] = decode(json.loads(files["state.json"]), load(files["state.safetensors"]))
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of this release: {error}") from None
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this release: its format is {content.get('format')!r}")
    if content["host"] is not None and (name := _not_a_number(content["host"])):
        raise ValueError(f"{path} holds {name}, which is not a number")
    return content


def _not_a_number(host: dict[str, Any]) -> str | None:
    """The name of a weight, or of a rule's memory, with a value that is NaN."""
    memories = [
        (f"the memory {key}", tensor)
        for state in host["callbacks"].values()
        if isinstance(state, dict)
        for rule in state.get("rules", ())
        for key, tensor in rule["state"].items()
    ]
    for name, tensor in (*((f"the weight {n}", t) for n, t in host["state_dict"].items()), *memories):
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            return name
    return None


def _position(path: Path) -> tuple[int, int, str]:
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2]), path.name) if match else (-1, -1, path.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
