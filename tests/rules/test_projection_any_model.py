"""OWM and HLOP in networks as people have them: what can be projected is, the rest is treated as told."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import HLOP, OWM, Session
from tests.rules import drivers


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm, self.head = nn.Embedding(20, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.lstm(self.words(x))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.words, self.encoder = nn.Embedding(20, 8), nn.TransformerEncoder(layer, 2)
        self.place, self.head = nn.Parameter(torch.randn(5, 8)), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.encoder(self.words(x) + self.place).mean(1))


class UNet(nn.Module):
    """Segmentation in small: down, up by a transposed convolution, and a skip connection; the mean over pixels as answer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding="same"), nn.GroupNorm(2, 8)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        high = torch.relu(self.norm(self.first(x)))
        return self.head(torch.cat([high, torch.relu(self.up(torch.relu(self.down(high))))], 1)).mean((2, 3))


def resnet18():
    from torchvision.models.resnet import BasicBlock, ResNet

    whole = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
    # The later stages, of 512 channels, hold the same kinds of layers.
    return nn.Sequential(*list(whole.children())[:6], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4))


def mobilenet():
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=4, width_mult=0.25, reduced_tail=True)


def vision_transformer():
    from torchvision.models import VisionTransformer

    network = VisionTransformer(16, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4)
    nn.init.normal_(network.heads.head.weight)  # Zero at first, which would give no layer below anything to learn from.
    return network


def convnext():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=4)


def timm_model(name, **options):
    def build():
        timm = pytest.importorskip("timm")
        return timm.create_model(name, num_classes=4, **options)

    return build


def images(seed, size=16):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def larger_images(seed):
    return images(seed, 32)


def words(seed):
    return torch.randint(10 * seed, 10 * seed + 12 - 4 * seed, (3, 5), generator=torch.Generator().manual_seed(seed))


MODELS = {
    "resnet": (resnet18, images),
    "mobilenet": (mobilenet, images),
    "vit": (vision_transformer, images),
    "convnext": (convnext, images),
    "unet": (UNet, images),
    "lstm": (Recurrent, words),
    "encoder": (Encoder, words),
    "timm vit": (
        timm_model("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2),
        images,
    ),
    "timm resnet": (timm_model("test_resnet"), larger_images),
    "timm convnext": (timm_model("test_convnext", drop_path_rate=0.1), larger_images),
    "timm efficientnet": (timm_model("test_efficientnet"), larger_images),
    "timm efficientnet, group norm": (timm_model("test_efficientnet_gn"), larger_images),
}


def learn(session, x, y, steps=4, lr=0.02):
    optimizer = torch.optim.SGD(session.network.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    session.network.train()
    with session.experience([(x, y)]):
        for _ in range(steps):
            session.network.train()  # As hosts do, after every validation.
            with session.step(x, y, optimizer):
                F.cross_entropy(session.network(x), y).backward()


def answers(network, x):
    network.eval()
    with torch.no_grad():
        answer = network(x)
    network.train()
    return answer


def two_experiences(name, rule):
    """Old answers before and after the second experience, and the parameters that moved in it."""
    build, data = MODELS[name]
    torch.manual_seed(0)
    network = build().double()
    session = Session(network, rule)
    old, new = data(0), data(1)
    # Statistics of few and small batches are far from those of the next, by which training would diverge.
    lr = 1e-4 if name == "timm efficientnet" else 0.02
    learn(session, old, torch.tensor([0, 1, 0]), steps=10, lr=lr)
    before, values = answers(network, old), copy.deepcopy(dict(network.named_parameters()))
    learn(session, new, torch.tensor([2, 3, 2]), lr=lr)
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, values[n])}
    assert all(module.training for module in network.modules())
    return before, answers(network, old), moved, network


@pytest.mark.parametrize("name", MODELS)
def test_old_outputs_do_not_change(name):
    rule = OWM(regularization=1e-12, inputs="samples")
    before, after, moved, network = two_experiences(name, rule)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    coverage = rule.coverage(network)
    assert coverage.keys() == dict(network.named_parameters()).keys()
    projected = {name for name, what in coverage.items() if what == "projected"}
    assert moved <= projected
    assert len(moved) >= 2
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.MultiheadAttention)
    for prefix, module in network.named_modules():
        if isinstance(module, kinds):
            assert {f"{prefix}.{part}".removeprefix(".") for part, _ in module.named_parameters()} <= projected


def test_a_rest_that_trains_changes_old_outputs():
    """The control: what is kept, and statistics that stop, are what old outputs hang on."""
    for name in ("timm resnet", "encoder"):
        before, after, moved, _ = two_experiences(name, OWM(regularization=1e-12, inputs="samples", rest="train"))
        assert (after - before).abs().max() > 1e-3
        assert any("norm" in n or "bn" in n for n in moved)


@pytest.mark.parametrize("name", ("mobilenet", "vit", "encoder", "lstm", "unet"))
def test_hlop_keeps_old_outputs_where_its_neurons_span_the_old_inputs(name):
    """With as many neurons as inputs everything that was seen is protected; what was not seen is not used by old inputs."""
    rule = HLOP(neurons=10_000, neurons_added=0)
    before, after, moved, network = two_experiences(name, rule)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert moved <= {n for n, what in rule.coverage(network).items() if what == "projected"}


def test_hlop_learns_in_directions_that_are_left():
    before, after, moved, _ = two_experiences("encoder", HLOP(neurons=2, neurons_added=2))
    assert {"words.weight", "encoder.layers.0.linear1.weight", "head.weight"} <= moved
    assert not any("norm" in n or "attn" in n or n == "place" for n in moved)
    assert (after - before).abs().max() > 0


@pytest.mark.parametrize("rule", (OWM(regularization=0.5, inputs="samples"), OWM(regularization=0.5), HLOP()))
def test_embeddings_of_words_that_occurred_are_kept(rule):
    network = nn.Sequential(nn.Embedding(6, 2), nn.Flatten(), nn.Linear(4, 2)).double()
    network[2].requires_grad_(False)
    session = Session(network, rule)
    first, second = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[2, 3], [1, 4]])
    learn(session, first, torch.tensor([0, 1]))
    before = network[0].weight.detach().clone()
    plain = copy.deepcopy(network)
    learn(session, second, torch.tensor([1, 0]), steps=1)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    F.cross_entropy(plain(second), torch.tensor([1, 0])).backward()
    optimizer.step()
    step = plain[0].weight.detach() - before
    occurrences = torch.tensor([1.0, 2, 1, 0, 0, 0], dtype=torch.float64)
    if isinstance(rule, HLOP):
        share = (occurrences == 0).double()
    else:
        share = 0.5 / (0.5 + (occurrences if rule.inputs == "samples" else occurrences / 4))
    torch.testing.assert_close(network[0].weight.detach(), before + share.unsqueeze(1) * step, rtol=1e-9, atol=1e-12)
    assert step[[1, 2, 3, 4]].abs().min() > 0


def test_a_depthwise_layers_projectors_are_those_of_its_channels():
    network = nn.Sequential(nn.Conv2d(2, 2, 2, groups=2)).double()
    rule = OWM(regularization=0.3, inputs="samples")
    x = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    session = Session(network, rule)
    session.begin_experience()
    with session.step(x, None, torch.optim.SGD(network.parameters(), lr=0.0)):
        network(x).sum().backward()
    session.end_experience([x])
    for channel in range(2):
        patches = F.unfold(x[:, [channel]], 2).transpose(1, 2).flatten(0, 1)
        rows = torch.cat([patches.new_ones(len(patches), 1), patches], 1)
        expected = 0.3 * torch.linalg.inv(0.3 * torch.eye(5, dtype=torch.float64) + rows.T @ rows)
        torch.testing.assert_close(rule.state["projector"]["0"][channel], expected, rtol=1e-9, atol=1e-12)


class Bypassed(nn.Module):
    """Computes with the weight of a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.unused, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(F.linear(x, self.hidden.weight, self.hidden.bias)))


@pytest.mark.parametrize("rule", (OWM(), HLOP(neurons=2)))
def test_a_layer_whose_inputs_are_never_seen_is_kept_once_it_has_learned(rule):
    torch.manual_seed(0)
    network = Bypassed()
    session = Session(network, rule)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    learn(session, x, y)
    assert list(session.rules[0].state["kept"]) == ["*hidden.weight", "*hidden.bias"]
    before = copy.deepcopy(network)
    learn(session, -x, y)
    assert torch.equal(network.hidden.weight, before.hidden.weight)
    assert not torch.equal(network.head.weight, before.head.weight)
    with pytest.raises(ValueError, match="never saw the inputs of layer 'hidden'"):
        learn(Session(network, type(rule)(rest="refuse")), x, y)


def test_what_learns_for_the_first_time_may_learn_in_a_later_experience():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network[1].requires_grad_(False)
    session, x, y = Session(network, OWM()), torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    learn(session, x, y)
    network[1].requires_grad_(True)
    before = copy.deepcopy(network[1])
    learn(session, x + 1, y)
    assert not torch.equal(network[1].weight, before.weight)
    assert torch.equal(network[1].running_mean, before.running_mean)  # Its statistics had their experience.
    before = copy.deepcopy(network[1])
    learn(session, x + 2, y)
    assert torch.equal(network[1].weight, before.weight)


def test_new_rows_of_a_kept_parameter_learn():
    network = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 2))
    session, x, y = Session(network, OWM()), torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    learn(session, x, y)
    old = network[1].weight.detach().clone()
    for index, layer in ((0, nn.Linear(4, 5)), (1, nn.PReLU(5)), (2, nn.Linear(5, 2))):
        network[index] = drivers.grown(network[index], layer)
    learn(session, x, y)
    assert torch.equal(network[1].weight[:3], old)
    assert (network[1].weight[3:] != 0.25).all()


def test_what_is_kept_goes_on_from_a_checkpoint():
    torch.manual_seed(0)
    network, x, y = Encoder(), words(0), torch.tensor([0, 1, 0])
    session = Session(network, OWM())
    learn(session, x, y)
    session.begin_experience()
    second = Session(copy.deepcopy(network), OWM())
    second.load_state_dict(copy.deepcopy(session.state_dict()))
    before = copy.deepcopy(second.network)
    learn(second, words(1), y)
    assert torch.equal(second.network.place, before.place)
    assert not torch.equal(second.network.head.weight, before.head.weight)


def test_the_share_of_what_is_kept_is_logged():
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    session, x, y = Session(network, OWM()), torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    learn(session, x, y)
    assert "owm/kept" not in session.scalars()
    session.begin_experience()
    assert float(session.scalars()["owm/kept"]) == pytest.approx(6 / 26)
