"""The rows of the matrix: networks, the LightningModules they are trained by, and two small experiences of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from tests.interop import networks
from tests.interop.networks import CLASSES, GAN, LENGTH, WORDS, Logits

BATCH, BATCHES = 4, 2
SAMPLES = BATCH * BATCHES
LEARNING_RATE = 0.05
HOSTS = ("callback", "plugin", "fit_stream", "fabric")


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE)


class Classifier(L.LightningModule):
    """A LightningModule as users write it: it knows nothing of metaplasticity."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(self(inputs), targets)

    def on_train_batch_end(self, *arguments: Any) -> None:
        networks.reset(self.network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self)


class HuggingFace(L.LightningModule):
    """As in Hugging Face's and Lightning's guides: batches are dicts, and the model computes the loss itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Any:
        return self.model(**inputs)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self(**batch).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self)


class Adversarial(L.LightningModule):
    """A GAN with two optimizers and three backward passes a batch."""

    def __init__(self, network: GAN) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network

    def forward(self, noise: Tensor) -> Tensor:
        return self.network(noise)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real, generate = batch[0], self.optimizers()[0]
        discriminate = self.optimizers()[1]
        judge = self.network.discriminator
        fake = self.network.generator(torch.randn(len(real), 3, device=self.device))
        discriminate.zero_grad()
        self.manual_backward(F.softplus(-judge(real)).mean())
        self.manual_backward(F.softplus(judge(fake.detach())).mean())
        discriminate.step()
        generate.zero_grad()
        self.manual_backward(F.softplus(-judge(fake)).mean())
        generate.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer_of(self.network.generator), optimizer_of(self.network.discriminator)]


class Rows(Dataset):
    """Samples that are dicts, as Hugging Face's data sets give them."""

    def __init__(self, columns: dict[str, Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


Experiences = list[tuple[Tensor, Tensor]]


def _labels(generator: torch.Generator, classes: int = CLASSES) -> list[Tensor]:
    """Of two experiences, each with its own half of the classes."""
    half = classes // 2
    return [torch.randint(k * half, (k + 1) * half, (SAMPLES,), generator=generator) for k in (0, 1)]


def images() -> Experiences:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(SAMPLES, 3, 32, 32, generator=generator), labels) for labels in _labels(generator)]


def vectors() -> Experiences:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(SAMPLES, 8, generator=generator), labels) for labels in _labels(generator)]


def sequences() -> Experiences:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(SAMPLES, 7, 5, generator=generator), labels) for labels in _labels(generator)]


def masks() -> Experiences:
    """Images with a label for each pixel."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, SAMPLES, 3, 8, 8, generator=generator)
    return [(x[k], torch.randint(2 * k, 2 * k + 2, (SAMPLES, 8, 8), generator=generator)) for k in (0, 1)]


def samples() -> Experiences:
    """Without labels that mean anything."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(SAMPLES, 6, generator=generator) + k, torch.zeros(SAMPLES).long()) for k in (0, 1)]


def texts() -> Experiences:
    generator = torch.Generator().manual_seed(0)
    labels = _labels(generator)
    return [(torch.randint(0, WORDS, (SAMPLES, LENGTH), generator=generator), y) for y in labels]


def continued_texts() -> Experiences:
    """The label of a text is its next word."""
    generator = torch.Generator().manual_seed(0)
    labels = _labels(generator, WORDS)
    return [(torch.randint(0, WORDS, (SAMPLES, LENGTH), generator=generator), y) for y in labels]


def rows(tokens: Tensor, labels: Tensor) -> Dataset:
    """Of a text classifier."""
    return Rows({"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels})


def language_rows(tokens: Tensor, labels: Tensor) -> Dataset:
    """Of a language model, where every token is the label of those before it."""
    return Rows({"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens})


def of_text(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch of texts, for rules that need to know them."""
    return batch["input_ids"], batch["labels"]


@dataclass(frozen=True)
class Model:
    """A row of the matrix.

    Attributes:
        title: what the page calls it.
        build: the network, a new one each time.
        experiences: inputs and labels of two.
        packages: those that must be there, beside torch; between spaces.
        module: the LightningModule around it, for the callback.
        rows: the data set that the callback's module trains on.
        unpack: of its batches, where they are not of a common form.
        alone: makes of the network a function of inputs, for hosts that call it so.
        hosts: those whose form of training such a network has.
        classes: the number of labels.
        penalty: the strength of EWC and MAS. Untrained networks of images have huge gradients, under which a penalty of the
            usual strength diverges; under those of low-rank adapters a weak one would be rounded away.
    """

    title: str
    build: Callable[[], nn.Module]
    experiences: Callable[[], Experiences]
    packages: str = "torch"
    module: Callable[[nn.Module], L.LightningModule] = Classifier
    rows: Callable[[Tensor, Tensor], Dataset] = TensorDataset
    unpack: Callable[[Any], tuple[Tensor, Tensor]] | None = None
    alone: Callable[[nn.Module], nn.Module] = lambda network: network
    hosts: tuple[str, ...] = HOSTS
    classes: int = CLASSES
    penalty: float = 0.01

    @property
    def missing(self) -> bool:
        return any(importlib.util.find_spec(name) is None for name in self.packages.split())


def _language(build: Callable[[], nn.Module], title: str, **options: Any) -> Model:
    return Model(
        title, build, continued_texts, module=HuggingFace, rows=language_rows, unpack=of_text, alone=Logits,
        classes=WORDS, penalty=1.0, **options,
    )  # fmt: skip


def _text(build: Callable[[], nn.Module], title: str, **options: Any) -> Model:
    return Model(
        title, build, texts, module=HuggingFace, rows=rows, unpack=of_text, alone=Logits, penalty=1.0, **options
    )


MODELS: dict[str, Model] = {
    "resnet18": Model("torchvision ResNet-18", networks.resnet18, images, "torchvision"),
    "mobilenet-v3": Model("torchvision MobileNetV3 (small)", networks.mobilenet_v3, images, "torchvision"),
    "vit": Model("torchvision ViT", networks.vision_transformer, images, "torchvision"),
    "timm-resnet": Model("timm ResNet", lambda: networks.from_timm("test_resnet"), images, "timm"),
    "timm-convnext": Model("timm ConvNeXt", lambda: networks.from_timm("test_convnext"), images, "timm"),
    "timm-efficientnet": Model(
        "timm EfficientNet, BatchNorm", lambda: networks.from_timm("test_efficientnet"), images, "timm"
    ),
    "timm-efficientnet-gn": Model(
        "timm EfficientNet, GroupNorm", lambda: networks.from_timm("test_efficientnet_gn"), images, "timm"
    ),
    "bert": _text(networks.bert, "Hugging Face BERT", packages="transformers"),
    "bert-lora": _text(
        lambda: networks.with_lora(networks.bert(), "SEQ_CLS", ["query", "value"]),
        "Hugging Face BERT with LoRA",
        packages="transformers peft",
    ),
    "gpt2": _language(networks.gpt2, "Hugging Face GPT-2", packages="transformers"),
    "gpt2-lora": _language(
        lambda: networks.with_lora(networks.gpt2(), "CAUSAL_LM", ["c_attn"]),
        "Hugging Face GPT-2 with LoRA",
        packages="transformers peft",
    ),
    "lstm": Model("torch LSTM", networks.LSTM, sequences),
    "transformer-encoder": Model("torch TransformerEncoder", networks.TransformerEncoder, sequences),
    "snntorch": Model("snnTorch", networks.snntorch_network, vectors, "snntorch"),
    "spikingjelly-single-step": Model(
        "SpikingJelly, single-step", lambda: networks.spikingjelly_network("s"), vectors, "spikingjelly"
    ),
    "spikingjelly-multi-step": Model(
        "SpikingJelly, multi-step", lambda: networks.spikingjelly_network("m"), vectors, "spikingjelly"
    ),
    "gan": Model("GAN, two optimizers", GAN, samples, module=Adversarial, hosts=("callback",)),  # type: ignore[arg-type]
    "u-net": Model("U-Net, a label for each pixel", networks.UNet, masks, hosts=("callback", "fabric")),
}
