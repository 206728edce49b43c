"""The diagonal Fisher information against loops over single samples and closed forms, in double precision."""

import pytest
import torch
from torch import nn

import lit_meta.functional._path_choice as choice
import lit_meta.functional.per_sample as per_sample
from lit_meta.functional import diagonal_fisher

CLASSES = 4


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def with_norm():
    norm = nn.BatchNorm1d(5)
    return nn.Sequential(nn.Linear(6, 5), norm, nn.ReLU(inplace=True), nn.Linear(5, CLASSES)).double()


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x.view(-1, 1, 2, 3))).flatten(1)[:, :4])


class Twice(nn.Module):
    """One layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Outside(nn.Module):
    """A weight that is used once by its layer and once outside it, where no hook sees it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x)) @ self.layer.weight)


class Mixing(nn.Module):
    """A network whose samples see each other."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(x - x.mean(dim=0))


NETWORKS = {
    "mlp": mlp,
    "norm, in place": with_norm,
    "convolution": lambda: Convolutional().double(),
    "runs twice": lambda: Twice().double(),
    "weight used outside": lambda: Outside().double(),
}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (11,), generator=generator)


def chosen(network, parameters, x):
    """The way that per-sample gradients of these parameters are computed."""
    return choice.choose_way(choice.Problem(network, parameters, network, scalar=False, owner=network), x, 2).path


def looped(network, x, y, labels, loss):
    """E[g²] by autograd of the loss of one sample after another; `exact` sums over the classes."""
    network.eval()
    parameters = dict(network.named_parameters())
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def add(value, weight=1.0):
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, retain_graph=True)
        for total, gradient in zip(totals.values(), gradients, strict=True):
            if gradient is not None:
                total.add_(weight * gradient**2)

    for i in range(len(x)):
        output = network(x[i : i + 1])
        if loss == "cross_entropy" and labels == "true":
            add(nn.functional.cross_entropy(output, y[i : i + 1]))
        elif loss == "cross_entropy":
            probabilities = output.softmax(dim=1)[0].tolist()
            for c, probability in enumerate(probabilities):
                add(nn.functional.cross_entropy(output, torch.tensor([c])), probability)
        elif labels == "true":
            onehot = torch.zeros_like(output)
            onehot[0, y[i]] = 1.0
            add(0.5 * ((output - onehot) ** 2).sum())
        else:
            for c in range(CLASSES):
                add(output[0, c])
    return {name: total / len(x) for name, total in totals.items()}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-6, atol=1e-14, msg=name)


@pytest.mark.parametrize("loss", ("cross_entropy", "mse"))
@pytest.mark.parametrize("labels", ("true", "exact"))
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("general", (False, True), ids=["chosen path", "general path"])
def test_equals_a_loop_over_samples(name, labels, loss, general, data, monkeypatch):
    if general:
        monkeypatch.setattr(per_sample, "choose_way", lambda *_: choice.Way(choice.vmap_sums))
    torch.manual_seed(0)
    network = NETWORKS[name]()
    expected = looped(network, *data, labels, loss)
    assert_same(diagonal_fisher(network, *data, labels=labels, loss=loss), expected)


@pytest.mark.parametrize(
    ("name", "fast"),
    (
        ("mlp", True),
        ("norm, in place", False),
        ("convolution", False),
        ("runs twice", False),
        ("weight used outside", False),
    ),
)
def test_matrix_product_path_is_taken_where_it_holds(name, fast, data):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    path = chosen(network, dict(network.named_parameters()), data[0])
    assert (path is choice.linear_sums) == fast


def test_work_in_place_after_a_layer_does_not_mislead_the_matrix_product_path(data):
    torch.manual_seed(0)
    network = with_norm()
    names = [name for name, _ in network.named_parameters() if not name.startswith("1.")]
    parameters = {name: p for name, p in network.named_parameters() if name in names}
    assert chosen(network.eval(), parameters, data[0]) is choice.linear_sums
    expected = looped(network, *data, "true", "cross_entropy")
    got = diagonal_fisher(network, *data, names=names)
    assert_same(got, {name: expected[name] for name in names})


def test_samples_that_see_each_other_are_taken_alone(data):
    torch.manual_seed(0)
    network = Mixing().double()
    assert_same(diagonal_fisher(network, *data), looped(network, *data, "true", "cross_entropy"))


@pytest.mark.parametrize("name", ("mlp", "convolution"))
@pytest.mark.parametrize("chunk_size", (1, 3, 100))
def test_does_not_depend_on_the_grouping(name, chunk_size, data):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    assert_same(diagonal_fisher(network, *data, chunk_size=chunk_size), diagonal_fisher(network, *data))


def test_closed_form_of_softmax_regression(data):
    x, y = data
    torch.manual_seed(0)
    network = nn.Linear(6, CLASSES).double()
    with torch.no_grad():
        p = network(x).softmax(dim=1)
    # ∂(−log p_y)/∂W = (p − e_y) xᵀ, and E over y of (p_k − [y = k])² is p_k (1 − p_k).
    error = p - torch.eye(CLASSES, dtype=torch.float64)[y]
    true = diagonal_fisher(network, x, y)
    exact = diagonal_fisher(network, x, labels="exact")
    torch.testing.assert_close(true["weight"], torch.einsum("bk,bi->ki", error**2, x**2) / 11)
    torch.testing.assert_close(true["bias"], (error**2).mean(dim=0))
    torch.testing.assert_close(exact["weight"], torch.einsum("bk,bi->ki", p * (1 - p), x**2) / 11)
    torch.testing.assert_close(exact["bias"], (p * (1 - p)).mean(dim=0))


@pytest.mark.parametrize("loss", ("cross_entropy", "mse"))
def test_sampled_labels_agree_with_the_expectation(loss, data):
    torch.manual_seed(0)
    network = nn.Linear(6, CLASSES).double()
    x = data[0][:2].repeat(20_000, 1)
    generator = torch.Generator().manual_seed(1)
    sampled = diagonal_fisher(network, x, labels="sample", loss=loss, generator=generator)
    exact = diagonal_fisher(network, data[0][:2], labels="exact", loss=loss)
    for name in exact:
        torch.testing.assert_close(sampled[name], exact[name], rtol=0.05, atol=1e-4)


def test_soft_targets_equal_indices_where_they_are_one_hot(data):
    x, y = data
    torch.manual_seed(0)
    network = mlp()
    onehot = torch.eye(CLASSES, dtype=torch.float64)[y]
    for loss in ("cross_entropy", "mse"):
        assert_same(diagonal_fisher(network, x, onehot, loss=loss), diagonal_fisher(network, x, y, loss=loss))


def test_network_is_left_as_it_was(data):
    network = with_norm().train()
    network[1].eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        diagonal_fisher(network, *data)
    assert [module.training for module in network.modules()] == [True, True, False, True, True]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert all(not module._forward_hooks for module in network.modules())


def test_only_the_wanted_parameters(data):
    network = mlp()
    network[1].bias.requires_grad_(False)
    assert set(diagonal_fisher(network, *data)) == {"1.weight", "3.weight", "3.bias"}
    expected = looped(network.requires_grad_(), *data, "true", "cross_entropy")
    assert_same(diagonal_fisher(network, *data, names=["3.weight"]), {"3.weight": expected["3.weight"]})


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"targets": None}, "needs targets"),
        ({"labels": "model"}, "got 'model'"),
        ({"loss": "nll"}, "got 'nll'"),
        ({"names": ["head"]}, "no trainable parameter named head; there are: 1.weight"),
        ({"names": "1.weight"}, r"write \['1.weight'\]"),
        ({"names": []}, "none requires a gradient"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"generator": torch.Generator()}, "no effect"),
        ({"inputs": torch.zeros(0, 6, dtype=torch.float64)}, "0 samples and 11 targets"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "11 samples and 3 targets"),
        ({"targets": torch.zeros(11, 2)}, "4 numbers a sample"),
        ({"targets": torch.zeros(11, 1, dtype=torch.int64)}, "class indices must be"),
    ),
)
def test_wrong_use_is_refused(change, message, data):
    arguments = {"inputs": data[0], "targets": data[1], **change}
    with pytest.raises(ValueError, match=message):
        diagonal_fisher(mlp(), arguments.pop("inputs"), arguments.pop("targets"), **arguments)


def test_an_output_that_is_not_a_matrix_is_refused(data):
    network = nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (2, 2))).double()
    with pytest.raises(ValueError, match=r"must give \(batch, classes\)"):
        diagonal_fisher(network, *data)


def test_no_method_is_chosen_while_every_gradient_is_zero(data):
    x, y = data
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, CLASSES, bias=False)).double()
    with torch.no_grad():
        network[0].bias.fill_(-100.0)  # type: ignore[union-attr]
    assert not any(value.any() for value in diagonal_fisher(network, x, y).values())
    assert not choice._ways[network]
    with torch.no_grad():
        network[0].bias.zero_()  # type: ignore[union-attr]
    diagonal_fisher(network, x, y)
    assert [way.path for way in choice._ways[network].values()] != [choice.loop_sums]
    assert choice._ways[network]
