"""The fastest way to run a frozen backbone on this machine, found by a short measurement; the features are the same."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_meta.networks.backbones.network import Backbone
from lit_meta.utils.modes import modes_kept

FORMS = ("eager", "channels_last", "frozen", "openvino")
BATCHES = (4, 16, 32)
# Largest difference to the eager network, as a fraction of the largest feature.
TOLERANCE = 1e-4


class Form(NamedTuple):
    """One way to run a network.

    Attributes:
        name: ``"eager"``; ``"channels_last"``, with channels last in memory; ``"frozen"``, that with batch normalisation folded
            into the convolutions; ``"openvino"``, compiled by that library, where it is installed.
        batch: images at once.
        run: from prepared images (batch, channels, size, size) to features (batch, width).
        images_per_second: measured; 0 if it was not.
    """

    name: str
    batch: int
    run: Callable[[Tensor], Tensor]
    images_per_second: float = 0.0


class _Features(nn.Module):
    """Prepared images to features, for tracing."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, prepared: Tensor) -> Tensor:
        return self.network.features_of(prepared)


def make_form(network: Backbone, name: str, batch: int) -> Form:
    """A network in one form.

    Raises:
        ValueError: an unknown form.
        RuntimeError: the network cannot be brought into it.
    """
    if name not in FORMS:
        raise ValueError(f"a form is one of {', '.join(FORMS)}, got {name!r}")
    example = network.preparation.blank(batch, network.device)
    if name == "eager":
        return Form(name, batch, network.features_of)
    if name == "channels_last":
        network.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Form(name, batch, lambda x: network.features_of(x.contiguous(memory_format=torch.channels_last)))
    # OpenVINO leaves the network in evaluation mode, head and all.
    with warnings.catch_warnings(), modes_kept(network):
        warnings.simplefilter("ignore")  # Tracing warns of shapes that it takes as constant, and that it is deprecated.
        return _openvino(network, example) if name == "openvino" else _frozen(network, example)


def _frozen(network: Backbone, example: Tensor) -> Form:
    network.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    example = example.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(_Features(network), example, check_trace=False).eval())
    return Form("frozen", len(example), lambda x: traced(x.contiguous(memory_format=torch.channels_last)))


def _openvino(network: Backbone, example: Tensor) -> Form:
    import openvino

    network.features.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = openvino.convert_model(_Features(network), example_input=example)
    model.reshape(list(example.shape))
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return Form("openvino", len(example), lambda x: torch.from_numpy(compiled(x.contiguous().numpy())[0].copy()))


def available_forms(network: Backbone) -> tuple[str, ...]:
    """The forms that can be had here: `"openvino"` where it is installed and the network is on the CPU."""
    on_cpu = network.device.type == "cpu"
    installed = importlib.util.find_spec("openvino") is not None
    return tuple(name for name in FORMS if name != "openvino" or (on_cpu and installed))


def fastest_form(
    network: Backbone, images: Tensor, *, forms: Sequence[str] | None = None, batches: Sequence[int] = BATCHES
) -> tuple[Form, list[dict[str, Any]]]:
    """Measures the forms of a network, and returns the fastest whose features are those of the network as it is.

    Args:
        network: on the device that will run it.
        images: at least one, as `Backbone.extract` takes them.
        forms: names of `FORMS`; None for all that can be had here.
        batches: sizes of batches to try.

    Returns:
        The fastest form, and what was measured: for each ``form``, ``batch``, ``images_per_second`` and ``difference`` (to the
        eager network, as a fraction of the largest feature), or ``error``.

    Raises:
        ValueError: no image, or an unknown form.

    Example:
        >>> network = Backbone("torchvision:resnet18", classes=10, size=32, pretrained=False)
        >>> form, measured = fastest_form(network, torch.rand(2, 3, 32, 32), forms=["eager"], batches=[2])
        >>> form.name, measured[0]["difference"]
        ('eager', 0.0)
    """
    if len(images) == 0:
        raise ValueError("a measurement needs at least one image")
    prepared = network.prepared(images[: max(batches)].to(network.device))
    prepared = prepared.repeat(-(-max(batches) // len(prepared)), 1, 1, 1)[: max(batches)]
    best: Form | None = None
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        reference = network.features_of(prepared)
        for name in available_forms(network) if forms is None else forms:
            for batch in batches:
                row: dict[str, Any] = {"form": name, "batch": batch}
                rows.append(row)
                try:
                    form = make_form(network, name, batch)
                    row |= _measured(form, prepared, reference)
                except (RuntimeError, NotImplementedError, ImportError, TypeError) as error:
                    row["error"] = " ".join(str(error).split())[:200] or type(error).__name__
                    continue
                form = form._replace(images_per_second=row["images_per_second"])
                if row["difference"] <= TOLERANCE and (best is None or best.images_per_second < form.images_per_second):
                    best = form
    if best is None:
        raise ValueError(f"no form of the network gives its features: {rows}")
    return make_form(network, best.name, best.batch)._replace(images_per_second=best.images_per_second), rows


def _measured(form: Form, prepared: Tensor, reference: Tensor) -> dict[str, float]:
    """The faster of two passes after one to warm up, over as many images as the largest batch has."""
    batches = prepared.split(form.batch)
    batches = batches if len(batches[-1]) == form.batch else batches[:-1]
    features = torch.cat([form.run(x) for x in batches])
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        for x in batches:
            form.run(x)
        if prepared.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    largest = float(reference.abs().max()) or 1.0
    return {
        "images_per_second": round(form.batch * len(batches) / min(seconds), 2),
        "difference": float((features - reference[: len(features)]).abs().max()) / largest,
    }
