"""Small networks of the kinds that people bring along; libraries are imported where a network is built."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 4
WORDS, LENGTH = 20, 6


def resnet18() -> nn.Module:
    """ResNet-18 at an eighth of its width, since some rules keep a matrix for each layer."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        def _make_layer(self, block: Any, planes: int, *arguments: Any, **options: Any) -> nn.Sequential:
            return super()._make_layer(block, planes // 8, *arguments, **options)

    network = Narrow(BasicBlock, [2, 2, 2, 2])
    network.fc = nn.Linear(64, CLASSES)
    return network


def mobilenet_v3() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=CLASSES, width_mult=0.25)


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES
    )


def from_timm(name: str) -> nn.Module:
    from timm import create_model

    return create_model(name, pretrained=False, num_classes=CLASSES)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS,
            n_positions=LENGTH,
            n_embd=16,
            n_layer=2,
            n_head=2,
            bos_token_id=WORDS - 1,
            eos_token_id=WORDS - 1,
        )
    )


def with_lora(network: nn.Module, task: str, targets: list[str]) -> nn.Module:
    """The network frozen, with low-rank adapters that train."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type=task, r=4, target_modules=targets, fan_in_fan_out=task == "CAUSAL_LM")
    adapted = get_peft_model(network, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # Zeros to begin with, which would keep the other factor's gradient at zero for a step.
            nn.init.normal_(parameter, std=0.1)
    return adapted


class Logits(nn.Module):
    """A Hugging Face model as a function of tokens alone; of a language model, the next token after the last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        return logits[:, -1] if logits.dim() == 3 else logits


class LSTM(nn.Module):
    """An LSTM over a sequence, and a head at its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(5, 8, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class TransformerEncoder(nn.Module):
    """An encoder over a sequence, and a head on its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(dim=1))


class UNet(nn.Module):
    """A segmentation network: down, up, and a connection across."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = self.down(x)
        return self.head(torch.cat([across, self.up(self.bottom(across))], dim=1))


def snntorch_network() -> nn.Module:
    import snntorch

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(8, 16)
            self.first = snntorch.Leaky(beta=0.9)
            self.output = nn.Linear(16, CLASSES)
            self.last = snntorch.Leaky(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            first, last = self.first.init_leaky(), self.last.init_leaky()
            potentials = []
            for _ in range(4):
                spikes, first = self.first(self.hidden(3 * x), first)
                spikes, last = self.last(self.output(spikes), last)
                potentials.append(last)
            return torch.stack(potentials).mean(dim=0)

    return Network()


def spikingjelly_network(mode: str) -> nn.Module:
    """In multi-step mode it resets itself; in single-step mode the loop resets it, as in the guides of SpikingJelly."""
    from spikingjelly.activation_based import functional, layer, neuron

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers: Any = nn.Sequential(
                layer.Linear(8, 16), neuron.LIFNode(tau=1.5), layer.Linear(16, CLASSES), neuron.LIFNode(tau=1.5)
            )
            functional.set_step_mode(self, mode)
            with torch.no_grad():  # So that every layer fires: silent neurons have no importance.
                for parameter in self.parameters():
                    parameter.mul_(4)

        def reset_state(self) -> None:
            functional.reset_net(self)

        def forward(self, x: Tensor) -> Tensor:
            if mode == "m":
                self.reset_state()
                return self.layers((3 * x).repeat(5, 1, 1)).mean(dim=0)
            return torch.stack([self.layers(3 * x) for _ in range(5)]).mean(dim=0)

    return Network()


def reset(network: nn.Module) -> None:
    """What a training loop does after each batch, for networks whose state it resets."""
    if callable(own := getattr(network, "reset_state", None)):
        own()


class GAN(nn.Module):
    """A generator, and a discriminator of its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)
