"""Golden outputs: inputs kept beside the weights, and the outputs that the network must give for them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.core.spiking_state import SpikingState
from lit_meta.utils.modes import evaluating, matmul_precision

TOLERANCE = 1e-5
_MOST_VALUES = 50_000  # Of all inputs together.
_MOST_SAMPLES = 8


def golden_tensors(network: nn.Module, samples: Tensor) -> dict[str, Tensor]:
    """Inputs, spread evenly over some samples, and the network's outputs.

    Args:
        network: in any mode.
        samples: (samples, *shape).
    """
    count = max(1, min(_MOST_SAMPLES, len(samples), _MOST_VALUES // max(1, samples[0].numel())))
    inputs = samples[torch.linspace(0, len(samples) - 1, count).long()].contiguous()
    return {"inputs": inputs, "outputs": outputs_of(network, inputs)}


def outputs_of(network: nn.Module, inputs: Tensor) -> Tensor:
    """A network's outputs in evaluation mode, by one thread, which adds in one order."""
    threads = torch.get_num_threads()
    spiking = SpikingState(network)
    try:
        torch.set_num_threads(1)
        with evaluating(network), matmul_precision("highest"):
            spiking.reset()
            outputs = network(inputs)
            spiking.reset()
    finally:
        torch.set_num_threads(threads)
    return outputs.detach().clone()


def golden_problem(network: nn.Module, golden: Mapping[str, Tensor], versions: Mapping[str, str]) -> str:
    """What is wrong with a network's outputs; empty if they are the golden ones.

    They may differ by 1e-5 of the largest, and by no bit on the processor, and with the version of PyTorch, that made them.

    Raises:
        ValueError: the file holds something else than golden inputs and outputs.
    """
    if set(golden) != {"inputs", "outputs"} or not len(golden["inputs"]):
        raise ValueError("golden.safetensors must hold inputs and outputs")
    expected = golden["outputs"]
    try:
        outputs = outputs_of(network, golden["inputs"])
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"the network does not take the golden inputs: {str(error).splitlines()[0]}") from None
    if not isinstance(outputs, Tensor) or outputs.shape != expected.shape:
        return f"golden outputs have the shape {tuple(expected.shape)}, the network's {tuple(outputs.shape)}"
    difference = float((outputs - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        return f"outputs differ from the golden ones by {difference:.2g}, more than {allowed:.2g}"
    same_machine = versions.get("processor") == processor() and versions.get("torch") == torch.__version__
    if same_machine and not torch.equal(outputs, expected):
        return f"outputs differ from the golden ones by {difference:.2g} on the processor that made them"
    return ""


def processor() -> str:
    """The model of this machine's processor."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def described(versions: Mapping[str, Any]) -> dict[str, str]:
    """Versions of a card, with the processor that computed its golden outputs."""
    return {
        **{name: str(version) for name, version in versions.items()},
        "torch": torch.__version__,
        "processor": processor(),
    }
