"""Streams that are killed again and again, each attempt in a process forked from this one, which has imported everything.

``python -m tests.streams.kills [KILLS] [RULE ...]`` kills streams of every rule, of the joint bound and of plain training.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lit_meta import CostLedger, MetaplasticModule, fit_stream, scenario
from lit_meta.callbacks import ContinualEvaluation, StopAtAccuracy, WeightChange
from lit_meta.core.session import Session
from lit_meta.data import from_tensors, joint
from lit_meta.data.benchmark import Benchmark
from lit_meta.integrations._experience_data import LightningData
from lit_meta.networks import build_network
from lit_meta.rules.registry import RULES
from lit_meta.streams.learner import StreamLearner
from lit_meta.utils.io import load_yaml
from lit_meta.utils.paths import config_file

_NOT_REPEATED = ("seconds", "peak_memory_bytes")  # Of the machine.


class Scheduled(MetaplasticModule):
    """With a schedule, a metric that is averaged over epochs, and random numbers of all three kinds in its training."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.003)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": StepLR(optimizer, 4, gamma=0.8), "interval": "step"},
        }

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        noise = random.random() + float(torch.rand(()))
        loss = super().training_step((batch[0] + 0.01 * noise, batch[1]), batch_idx)
        self.log("epoch_loss", loss, on_step=False, on_epoch=True)
        return loss


def short_stream() -> Benchmark:
    """Two experiences of two classes, 100 images each: most kills fall where something is learned or written."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(240) % 4
    images = torch.rand(240, 1, 8, 8, generator=generator) + torch.rand(4, 1, 8, 8, generator=generator)[labels]
    source = from_tensors(images[:200], labels[:200], images[200:], labels[200:])
    return scenario("split", source=source, experiences=2, seed=3)


def module_of(rule: str | None) -> MetaplasticModule:
    """A small module with the rule's default settings; ``"joint"`` and ``None`` have no rule."""
    spec = None if rule in (None, "joint") else load_yaml(config_file("rule", str(rule)))
    if rule == "binary-metaplasticity":
        return MetaplasticModule(build_network("binary-mlp", inputs=64, hidden=[12], classes=10, seed=1), rule=spec)
    if rule == "continual-backprop":  # It takes noise in the training step for another way to the output.
        return MetaplasticModule(build_network("mlp", inputs=64, hidden=[12], classes=10, seed=1), rule=spec)
    if rule == "naca":
        network = build_network("mlp", inputs=64, hidden=[12], classes=10, seed=1)
        return MetaplasticModule(network, rule=spec, loss="mse")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 10)]
    if rule in ("owm", "hlop", "xdg", "recursive-readout", "streaming-lda", "critical-period"):
        del layers[3]  # They need to see what the network is.
    return Scheduled(nn.Sequential(*layers), rule=spec)


def run(rule: str | None, **options: Any) -> dict[str, Any]:
    """A whole stream, and everything that must be the same after any number of kills."""
    stream: Any = short_stream() if rule != "joint" else joint(short_stream())
    module = module_of(rule)
    callbacks: list[L.Callback] = [CostLedger(), WeightChange()]
    if rule != "xdg":
        callbacks += [ContinualEvaluation(stream.test_stream, every_n_steps=3), StopAtAccuracy(0.999)]
    if isinstance(module, Scheduled):
        callbacks.append(EarlyStopping("epoch_loss", min_delta=1e-3, check_on_train_epoch_end=True))
    result = fit_stream(
        module, stream, seed=5, max_epochs=3, batch_size=32, accelerator="cpu", callbacks=callbacks, **options
    )
    rules = () if module.plasticity is None else module.plasticity.rules
    return {
        "weights": dict(module.state_dict()),
        "memory": [rule.state.state_dict() for rule in rules],
        "metrics": {"matrix": result.accuracy_matrix, "initial": result.initial},
        "cost": {name: value for name, value in result.cost.items() if name not in _NOT_REPEATED},
        "callbacks": [
            *(callbacks[1].records, callbacks[1].maps),  # type: ignore[attr-defined]
            *((callbacks[2].steps, callbacks[2].rows, callbacks[3].epochs) if len(callbacks) > 3 else ()),  # type: ignore[attr-defined]
        ],
    }


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The paths at which two nested results are not the same to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{path}: keys"]
        return [found for key in one for found in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{path}: length"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}/{i}")]
    return [] if one == other else [f"{path}: {one} {other}"]


def in_child(work: Callable[[], Any], output: Path) -> int:
    """Runs ``work`` in a forked process; what it returns is saved. Returns the status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 70
        torch.set_num_threads(1)  # Threads do not outlive a fork.
        try:
            torch.save(work(), output)
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sending(number: signal.Signals, at: int) -> None:
    """Sends this process a signal at its n-th event: a step, a write, a part of consolidation, a test."""
    count = 0

    def event(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), number)

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            event()
            result = original(*arguments, **named)
            event()
            return result

        setattr(owner, name, wrapped)

    around(os, "fsync")
    around(Path, "replace")
    around(Session, "end_experience")
    around(StreamLearner, "test")
    register_optimizer_step_pre_hook(event)
    register_optimizer_step_post_hook(event)
    read = LightningData.__iter__

    def batches(self: LightningData) -> Any:
        for batch in read(self):
            event()
            yield batch

    LightningData.__iter__ = batches  # type: ignore[method-assign]


@cache
def _warm() -> None:
    """Runs a stream without a rule here, so that forked processes begin with everything imported but what rules need."""
    run(None)


def torture(rule: str | None, kills: int, *, seed: int = 0, most: int = 60) -> tuple[int, list[str]]:
    """Kills runs of a rule until there were this many kills; returns how many there were, and all differences.

    Args:
        rule: see `module_of`.
        kills: how many.
        seed: of the moments.
        most: the last event at which an attempt may be killed.
    """
    _warm()
    moments = random.Random(f"{rule}/{seed}")
    found: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        output = Path(place, "result.pt")
        if in_child(lambda: run(rule), output):
            return 0, [f"{rule} does not run"]
        expected = torch.load(output, weights_only=False)
        done = runs = 0
        while done < kills:
            runs += 1
            folder = Path(place, f"run-{runs}")
            while True:
                at = moments.randint(1, most) if done < kills else 0

                def attempt(folder: Path = folder, at: int = at) -> Any:
                    sending(signal.SIGKILL, at)
                    return run(rule, run_dir=folder, resume=True, checkpoint_steps=2)

                status = in_child(attempt, output)
                if status != -signal.SIGKILL:
                    break
                done += 1
            if status:
                return done, [*found, f"status {status}"]
            found += differences(expected, torch.load(output, weights_only=False))
        return done, found


def _seconds() -> float:
    """Of a processor, in this process and those that it has forked."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def main(arguments: list[str]) -> int:
    kills = int(arguments[0]) if arguments else 30
    rules = arguments[1:] or [*sorted(RULES), "joint", "plain"]
    total, wrong = 0, 0
    for rule in rules:
        started = _seconds()
        done, found = torture(None if rule == "plain" else rule, kills)
        total, wrong = total + done, wrong + len(found)
        print(
            f"{rule}: {done} kills, {len(found)} differences {found[:3] or ''} ({_seconds() - started:.0f} s)",
            flush=True,
        )
    print(f"{total} kills, {wrong} differences")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
