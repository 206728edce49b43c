"""Per-sample gradients of other packages' networks against a plain loop over the samples."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lit_meta.functional._path_choice as choice
from lit_meta.functional import diagonal_fisher, gradient_power_sums
from tests.functional.per_sample_networks import CLASSES, assert_close, inputs, looped, rows_of


def spikingjelly_network(multi_step, resets, learns=False):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            node = neuron.ParametricLIFNode if learns else neuron.LIFNode
            self.layers = nn.Sequential(layer.Linear(4, 8), node(), layer.Linear(8, CLASSES), node())
            functional.set_step_mode(self, "m" if multi_step else "s")

        def forward(self, x):
            if resets:
                functional.reset_net(self)
            x = 3 * x[:, 0]
            if multi_step:
                return self.layers(x.repeat(3, 1, 1)).mean(dim=0)
            return sum(self.layers(x) for _ in range(3)) / 3

    return Network(), functional.reset_net


def spikingjelly_convolution():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                layer.Conv2d(1, 3, 3, bias=False), layer.BatchNorm2d(3), neuron.IFNode(), layer.MaxPool2d(2, 1)
            )
            self.head = nn.Sequential(layer.Flatten(), layer.Linear(6, CLASSES))
            functional.set_step_mode(self, "m")

        def forward(self, x):
            functional.reset_net(self)
            return self.head(self.layers(3 * x.unsqueeze(1).repeat(4, 1, 1, 1, 1))).mean(dim=0)

    return Network(), functional.reset_net


def snntorch_network(hidden, resets, learns=False):
    snntorch = pytest.importorskip("snntorch")
    from snntorch import utils

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, CLASSES)
            options = {"beta": 0.9, "init_hidden": hidden, "learn_beta": learns}
            self.middle, self.out = snntorch.Leaky(**options), snntorch.Leaky(**options, output=True)

        def forward(self, x):
            x, total, a, b = 3 * x[:, 0], 0.0, None, None
            if resets:
                utils.reset(self)
            if not hidden:
                a, b = self.middle.init_leaky(), self.out.init_leaky()
            for _ in range(3):
                if hidden:
                    _, mem = self.out(self.last(self.middle(self.first(x))))
                else:
                    spikes, a = self.middle(self.first(x), a)
                    _, mem = _, b = self.out(self.last(spikes), b)
                total = total + mem
            return total

    return Network(), utils.reset


SPIKING = {
    "SpikingJelly, single-step, reset outside": lambda: spikingjelly_network(False, False),
    "SpikingJelly, single-step": lambda: spikingjelly_network(False, True),
    "SpikingJelly, multi-step, reset outside": lambda: spikingjelly_network(True, False),
    "SpikingJelly, multi-step": lambda: spikingjelly_network(True, True),
    "SpikingJelly, learned decay": lambda: spikingjelly_network(True, True, learns=True),
    "SpikingJelly, convolution": spikingjelly_convolution,
    "snnTorch": lambda: snntorch_network(False, False),
    "snnTorch, hidden state": lambda: snntorch_network(True, True),
    "snnTorch, hidden state, reset outside": lambda: snntorch_network(True, False),
    "snnTorch, learned decay": lambda: snntorch_network(True, True, learns=True),
}


@pytest.mark.parametrize("kind", ("random", "blank"))
@pytest.mark.parametrize("name", SPIKING)
def test_spiking_networks(name, kind):
    torch.manual_seed(0)
    network, reset = SPIKING[name]()
    x, y = inputs(kind).float(), torch.tensor([0, 1, 2, 0, 1, 2])
    network(x)  # an earlier batch, as in training
    reset(network)

    def alone(row):
        reset(network)
        return F.cross_entropy(network(row[0]), row[1])

    right = looped(alone, rows_of((x, y)), network)
    reset(network)
    for _ in range(2):  # the second time from memory
        fisher = diagonal_fisher(network, x, y)
        assert_close({name: len(x) * value for name, value in fisher.items()}, right)
        assert_close(gradient_power_sums(lambda b: F.cross_entropy(network(b[0]), b[1]), (x, y), network), right)
    for each in network.modules():
        for value in vars(each).values():
            assert not isinstance(value, torch.Tensor) or not torch._C._functorch.is_functorch_wrapped_tensor(value)
    network.train()
    F.cross_entropy(network(x), y).backward()  # the network still trains
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("name", [name for name in SPIKING if "reset outside" in name])
def test_potentials_of_an_earlier_batch_are_refused(name):
    torch.manual_seed(0)
    network, reset = SPIKING[name]()
    x, y = inputs("random").float(), torch.tensor([0, 1, 2, 0, 1, 2])
    network(x)
    with pytest.raises(ValueError, match="state"):
        diagonal_fisher(network, x, y)
    reset(network)
    fisher = diagonal_fisher(network, x, y)
    network(x)
    with pytest.raises(ValueError, match="state"):  # as well where the way is known already
        diagonal_fisher(network, x, y)
    reset(network)
    again = diagonal_fisher(network, x, y)
    assert all(torch.equal(again[name], value) for name, value in fisher.items())


def tokens(count=6, length=8):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (count, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[::2, 5:] = 0
    return ids, mask


def bert(**options):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=16, max_position_embeddings=16, num_labels=3, **options)
    ids, mask = tokens()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    return transformers.BertForSequenceClassification(config), batch


def gpt2(ignores):
    transformers = pytest.importorskip("transformers")
    special = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=8, n_layer=2, n_head=2, **special)
    ids, mask = tokens()
    labels = torch.where(mask == 0, -100, ids) if ignores else ids
    return transformers.GPT2LMHeadModel(config), {"input_ids": ids, "attention_mask": mask, "labels": labels}


LANGUAGE = {
    "BERT": (bert, choice.LayerPath),
    "BERT, eager attention": (lambda: bert(attn_implementation="eager"), choice.LayerPath),
    "GPT-2, tied head": (lambda: gpt2(False), choice.LayerPath),
    "GPT-2, padding ignored": (lambda: gpt2(True), type(choice.loop_sums)),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models(name):
    torch.manual_seed(0)
    make, way = LANGUAGE[name]
    network, batch = make()
    network = network.double()

    def loss(batch):
        return network(**batch).loss

    right = looped(loss, rows_of(batch), network)
    assert_close(gradient_power_sums(loss, batch, network), right)
    assert_close(gradient_power_sums(loss, batch, network, chunk_size=4), right)
    assert [type(each.path) for each in choice._ways[network].values()] == [way]


def test_language_model_of_padding_that_the_first_samples_do_not_have():
    """The two samples that the choice is made on have equally many tokens, others have fewer."""
    torch.manual_seed(0)
    network, batch = gpt2(False)
    network = network.double()

    def loss(batch):
        return network(**batch).loss

    gradient_power_sums(loss, batch, network)
    padded = {**batch, "labels": torch.where(batch["attention_mask"] == 0, -100, batch["input_ids"])}
    assert_close(gradient_power_sums(loss, padded, network), looped(loss, rows_of(padded), network))


@pytest.mark.parametrize("name", ("resnet18", "mobilenet_v3_small"))
def test_vision_models(name):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = getattr(models, name)(num_classes=CLASSES).double()
    x, y = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2])
    right = looped(lambda row: F.cross_entropy(network(row[0]), row[1]), rows_of((x, y)), network)
    assert_close({name: 3 * value for name, value in diagonal_fisher(network, x, y).items()}, right)


def test_vision_transformer():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = models.VisionTransformer(16, 8, 2, 2, 8, 16, num_classes=CLASSES).double()
    nn.init.normal_(network.heads.head.weight)  # zero as it comes
    x, y = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    right = looped(lambda row: F.cross_entropy(network(row[0]), row[1]), rows_of((x, y)), network)
    assert_close({name: 4 * value for name, value in diagonal_fisher(network, x, y).items()}, right)
    assert [way.path for way in choice._ways[network].values()] == [choice.vmap_sums]
