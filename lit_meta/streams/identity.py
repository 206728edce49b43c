"""What makes a run the run that it is, so that no other one is taken for it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor, nn

from lit_meta.data.benchmark import Benchmark, benchmark_name, stream_classes
from lit_meta.data.tensors import bulk_view
from lit_meta.integrations import _lightning
from lit_meta.integrations._fit_state import optimizers_of
from lit_meta.integrations.callback import Metaplasticity
from lit_meta.streams.random_state import seeded
from lit_meta.utils.raw import raw_bytes

# What a Trainer prints, writes and runs on; all other options are a part of the run.
_NO_PART = {
    *("accelerator", "devices", "num_nodes", "logger", "enable_progress_bar", "enable_model_summary", "profiler"),
    *("enable_checkpointing", "default_root_dir", "log_every_n_steps", "enable_autolog_hparams", "inference_mode"),
}
# Callbacks that only look on.
_ONLOOKERS = (
    *("ProgressBar", "ModelSummary", "Checkpoint", "Timer", "LearningRateMonitor", "DeviceStatsMonitor"),
    *("ThroughputMonitor", "OnExceptionCheckpoint"),
)
_DIGESTS = {
    "initial weights": "initial weights are others (build the network anew, from the seed that the run began with)",
    "data.train": "training samples are others",
    "data.test": "test samples are others",
}
_LONGEST = 120  # Characters of a value in a message.


def stream_identity(
    module: L.LightningModule,
    benchmark: Benchmark,
    *,
    test: Sequence[tuple[Tensor, Tensor]],
    callbacks: Sequence[L.Callback],
    plasticity: Sequence[Metaplasticity],
    settings: Mapping[str, Any],
    trainer_options: Mapping[str, Any],
) -> dict[str, Any]:
    """What two runs must have in common to be one: plain values, by what they are called in messages.

    Args:
        module: as it is before the stream begins.
        benchmark: of the stream.
        test: samples and labels of each test experience.
        callbacks: given by the user.
        plasticity: all `Metaplasticity` callbacks, also those that the module brings.
        settings: of `fit_stream` itself.
        trainer_options: further options of the Trainer.
    """
    classes = {"train": stream_classes(benchmark.train_stream), "test": stream_classes(benchmark.test_stream)}
    return {
        "scenario": benchmark_name(benchmark),
        "form": str(getattr(benchmark, "form", "")),
        "classes": classes,
        "data": {"train": data_fingerprint(benchmark.train_stream), "test": _digest(t for pair in test for t in pair)},
        **settings,
        "module": _qualified(type(module)),
        "network": _architecture(module),
        "initial weights": _digest(module.state_dict().values()),
        "loss": _name(getattr(module, "loss", None)),
        "optimizer": _optimizers(module),
        "rule": [_rule(rule) for callback in plasticity for rule in callback.rules],
        "callbacks": [_callback(c) for c in callbacks if not _lightning.is_a(c, *_ONLOOKERS) and c not in plasticity],
        "trainer": {name: _name(value) for name, value in sorted(trainer_options.items()) if name not in _NO_PART},
    }


def difference(saved: Mapping[Any, Any], now: Mapping[Any, Any], *, path: str = "") -> str | None:
    """The first difference between two identities, as a part of a sentence; None if they are the same.

    Example:
        >>> difference({"rule": [{"strength": 1.0}]}, {"rule": [{"strength": 2.0}]})
        'its rule.0.strength is 1.0, and not 2.0'
        >>> difference({"initial weights": "a1"}, {"initial weights": "b2"})
        'its initial weights are others (build the network anew, from the seed that the run began with)'
    """
    for key in [*saved, *(key for key in now if key not in saved)]:
        if key not in saved or key not in now:
            return f"only one of the two has {path}{key}"
        old, new = saved[key], now[key]
        if old == new:
            continue
        one, other = (dict(enumerate(value)) if isinstance(value, list) else value for value in (old, new))
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            return difference(one, other, path=f"{path}{key}.")
        if f"{path}{key}" in _DIGESTS:
            return f"its {_DIGESTS[f'{path}{key}']}"
        return f"its {path}{key} is {_short(old)}, and not {_short(new)}"
    return None


def data_fingerprint(stream: Iterable[Any]) -> str:
    """A checksum of the samples and labels of a stream; of data sets that cannot be read at once, of the labels.

    Tensors that several experiences share are read once.
    """
    sums: dict[int, int] = {}
    kept: list[Tensor] = []  # So that no two of them have one identity.

    def checksum(tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        if id(tensor) not in sums:
            kept.append(tensor)
            sums[id(tensor)] = zlib.crc32(raw_bytes(tensor))
        return sums[id(tensor)]

    parts: list[Any] = []
    for experience in stream:
        view = bulk_view(experience)
        if view is not None:
            parts.append([checksum(t) for t in (view.x, view.y, view.index, view.permutations, view.group)])
        else:
            labels = getattr(experience.dataset, "targets", ())
            parts.append([len(experience.dataset), zlib.crc32(repr([int(label) for label in labels]).encode())])
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def _architecture(module: nn.Module) -> dict[str, Any]:
    shapes = {name: f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for name, t in module.state_dict().items()}
    return {"shapes": shapes, "layers": repr(module).splitlines()}


def _optimizers(module: L.LightningModule) -> list[Any] | str:
    try:
        with seeded(0):
            optimizers = optimizers_of(module)
    except Exception:  # It needs to be inside a fit.
        return "known inside a fit"
    return [
        {"class": _qualified(type(o)), **{name: _name(value) for name, value in sorted(o.defaults.items())}}
        for o in optimizers
    ]


def _rule(rule: Any) -> dict[str, Any]:
    memory = rule.state.state_dict()
    return {
        "class": _qualified(type(rule)),
        **{name: _name(value) for name, value in rule.hyperparameters.items()},
        "memory": _digest(memory[key] for key in sorted(memory)) if memory else None,
    }


def _callback(callback: L.Callback) -> dict[str, Any]:
    # Its arguments, where it keeps them under their names; what it counts is no setting, and a path may be another.
    given = {name: vars(callback).get(name) for name in inspect.signature(type(callback)).parameters}
    plain = {n: v for n, v in given.items() if type(v) in (bool, int, float, str) and "/" not in str(v)}
    return {"class": _qualified(type(callback)), **plain}


def _name(value: Any) -> Any:
    """A value as it can be compared in another process."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return _digest([value]) if value.numel() > 1 else repr(value.item())
    if isinstance(value, Mapping):
        return {str(key): _name(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [_name(item) for item in items]
    if isinstance(value, functools.partial):
        return {"function": _name(value.func), "arguments": _name(value.args), "named": _name(value.keywords)}
    if isinstance(value, (type, nn.Module)) or not isinstance(value, Callable):  # type: ignore[arg-type]
        kind = value if isinstance(value, type) else type(value)
        own = type(value).__repr__ is not object.__repr__ and not isinstance(value, type)
        text = repr(value) if own else _qualified(kind)
        return text if " at 0x" not in text else _qualified(kind)
    return _qualified(value) if hasattr(value, "__qualname__") else _qualified(type(value))


def _qualified(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
