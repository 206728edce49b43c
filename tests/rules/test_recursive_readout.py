"""The readout against float64 batch solutions, in any order, through any host, with nothing leaking or kept."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import Session, StreamingLDA
from lit_meta.evaluation.accuracy import predict
from lit_meta.rules import RecursiveReadout, _readout_head
from lit_meta.utils.raw import raw_bytes


def learn(network, rule, batches, boundaries=()):
    """One pass over batches; a new experience begins before each batch whose index is in ``boundaries``."""
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    session.begin_experience()
    for index, (x, y) in enumerate(batches):
        if index in boundaries:
            session.end_experience()
            session.begin_experience()
        with session.step(x, y, optimizer):
            F.cross_entropy(network.train()(x), y).backward()
    return session


def network_of(seed=0, width=20, classes=5, bias=True, inputs=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes, bias=bias))


def samples(n=300, classes=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=generator)
    centers = torch.randn(classes, 6, generator=generator)
    return centers[y] + 0.7 * torch.randn(n, 6, generator=generator), y


def features_of(network, x):
    with torch.no_grad():
        return network[1](network[0](x)).double()


def batch_ridge(h, y, classes, ridge):
    """Ridge regression with an intercept, in float64 and from the definition: min ‖Y − Hw − b‖² + λ‖w‖²."""
    design = torch.cat([h, torch.ones(len(h), 1, dtype=h.dtype)], 1)
    penalty = torch.diag(torch.cat([torch.full((h.shape[1],), ridge), torch.zeros(1)]).double())
    return torch.linalg.solve(design.T @ design + penalty, design.T @ F.one_hot(y, classes).double())


def absolute_ridge(h, fraction):
    return fraction * float((h - h.mean(0)).square().sum(0).mean())


def test_the_weights_are_those_of_ridge_regression_on_all_samples():
    network, (x, y) = network_of(), samples()
    before = copy.deepcopy(network[0])
    learn(network, RecursiveReadout(ridge=1e-3), zip(x.split(17), y.split(17), strict=True))
    network.eval()(x)
    h = features_of(network, x)
    expected = batch_ridge(h, y, 5, absolute_ridge(h, 1e-3))
    torch.testing.assert_close(network[2].weight.double(), expected[:-1].T, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(network[2].bias.double(), expected[-1], atol=2e-6, rtol=1e-5)
    assert all(torch.equal(p, q) for p, q in zip(network[0].parameters(), before.parameters(), strict=True))


def test_it_is_recursive_least_squares_sample_by_sample():
    network, (x, y) = network_of(bias=False, classes=3), samples(40, classes=3)
    h = features_of(network, x)
    ridge = 0.01 * float(h.square().sum(0).mean())
    inverse, weight = torch.eye(20, dtype=torch.float64) / ridge, torch.zeros(3, 20, dtype=torch.float64)
    for one, label in zip(h, y, strict=True):
        gain = inverse @ one / (1 + one @ inverse @ one)
        weight += torch.outer(F.one_hot(label, 3).double() - weight @ one, gain)
        inverse -= torch.outer(gain, inverse @ one)
    learn(network, RecursiveReadout(ridge=0.01), [(x, y)])
    network.eval()(x)
    torch.testing.assert_close(network[2].weight.double(), weight, atol=1e-5, rtol=1e-4)


def test_the_order_of_classes_makes_no_difference():
    x, y = samples()
    outputs = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        network = network_of()
        learn(network, RecursiveReadout(), [(x[y == label], y[y == label]) for label in order], boundaries=range(1, 5))
        outputs.append(network.eval()(x))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", (RecursiveReadout(), StreamingLDA()))
def test_boundaries_make_no_difference(rule):
    x, y = samples()
    batches = list(zip(x.split(25), y.split(25), strict=True))
    weights = []
    for boundaries in ((), (1, 2, 7)):
        network = network_of()
        learn(network, rule.clone(), batches, boundaries)
        network.eval()(x[:1])
        weights.append(network[2].weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("rule", (RecursiveReadout(), StreamingLDA()))
def test_a_boundary_that_is_never_announced_changes_no_prediction(rule):
    """Evaluated in the middle of an experience, the head knows every class that came so far, and no other."""
    x, y = samples()
    network, known = network_of(), []
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    session.begin_experience()
    for label in (3, 1, 4):
        known.append(label)
        with session.step(x[y == label], y[y == label], optimizer):
            F.cross_entropy(network.train()(x[y == label]), y[y == label]).backward()
        assert set(predict(network, x).tolist()) <= set(known)
        seen = torch.isin(y, torch.tensor(known))
        fresh = network_of()
        learn(fresh, rule.clone(), [(x[seen], y[seen])])
        torch.testing.assert_close(network.eval()(x), fresh.eval()(x), atol=1e-4, rtol=1e-4)


def test_the_memory_holds_no_samples_and_does_not_grow():
    x, y = samples()
    sizes = set()
    for count in (10, 100, 300):
        rule = RecursiveReadout()
        learn(network_of(), rule, [(x[:count], y[:count])])
        sizes.add(rule.state.bytes)
    digest = 32
    assert sizes == {8 * (20 * 21 // 2 + 5 * 20 + 5 + 20) + digest}


@pytest.mark.parametrize("rule", (RecursiveReadout(), StreamingLDA()))
def test_a_prediction_depends_on_its_own_sample_only(rule):
    network, (x, y) = network_of(), samples()
    learn(network, rule, [(x, y)])
    together, alone = predict(network, x, batch_size=300), predict(network, x, batch_size=1)
    assert torch.equal(together, alone)


def test_a_million_samples_in_float32_match_a_float64_batch_solution():
    """Features far from zero and nearly collinear: what single-precision recursions lose."""
    width, classes, batch = 24, 4, 10_000
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -3, width)
    network = nn.Sequential(nn.Linear(width, classes))
    session = Session(network, RecursiveReadout(ridge=1e-7))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    gram, cross = torch.zeros(width + 1, width + 1).double(), torch.zeros(width + 1, classes).double()
    session.begin_experience()
    for _ in range(100):
        z = torch.randn(batch, width, generator=generator)
        x, y = z @ mixing + 30.0, z[:, :classes].argmax(1)
        with session.step(x, y, optimizer):
            network.train()(x).sum().backward()
        design = torch.cat([x.double(), torch.ones(batch, 1).double()], 1)
        gram += design.T @ design
        cross += design.T @ F.one_hot(y, classes).double()
    centered = gram[:-1, :-1] - torch.outer(gram[-1, :-1], gram[-1, :-1]) / gram[-1, -1]
    ridge = torch.full((width + 1,), 1e-7 * float(centered.diagonal().mean())).double()
    ridge[-1] = 0.0
    expected = torch.linalg.solve(gram + ridge.diag(), cross)
    session.end_experience()
    fresh = torch.randn(2000, width, generator=generator) @ mixing + 30.0
    found = session.rules[0]
    assert int(found.state.overall["class_counts"].sum()) == 1_000_000
    outputs = fresh.double() @ network[0].weight.detach().double().T + network[0].bias.detach().double()
    reference = fresh.double() @ expected[:-1] + expected[-1]
    torch.testing.assert_close(outputs, reference, atol=2e-3, rtol=0)


def test_blocks_bound_the_memory_and_average_their_own_solutions():
    network, (x, y) = network_of(), samples()
    rule = RecursiveReadout(ridge=1e-2, block=7)
    learn(network, rule, [(x, y)])
    network.eval()(x)
    assert sum(t.numel() for t in rule.state["second_moment"].values()) <= 20 * 7
    h = features_of(network, x)
    expected = torch.zeros(300, 5).double()
    for first in range(3):
        part = h[:, first::3]
        solution = batch_ridge(part, y, 5, absolute_ridge(part, 1e-2))
        expected += (part @ solution[:-1] + solution[-1]) / 3
    torch.testing.assert_close(network(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_head_that_grows_keeps_what_it_knew():
    x, y = samples()
    network, rule = network_of(classes=2), RecursiveReadout(ridge=1e-3)
    session = learn(network, rule, [(x[y < 2], y[y < 2])])
    session.end_experience()
    wider = nn.Linear(20, 5)
    network[2] = wider
    assert set(predict(network, x).tolist()) <= set(range(5))
    session.begin_experience()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with session.step(x[y >= 2], y[y >= 2], optimizer):
        F.cross_entropy(network.train()(x[y >= 2]), y[y >= 2]).backward()
    h = features_of(network, x)
    expected = batch_ridge(h, y, 5, absolute_ridge(h, 1e-3))
    network.eval()(x)
    torch.testing.assert_close(wider.weight.double(), expected[:-1].T, atol=5e-5, rtol=1e-3)


def test_with_freeze_off_only_the_head_is_left_alone_by_the_optimizer():
    x, y = samples()
    network = network_of()
    before = network[0].weight.detach().clone()
    learn(network, RecursiveReadout(freeze=False), [(x, y)])
    assert not torch.equal(network[0].weight, before)


def test_an_abandoned_step_leaves_no_trace():
    x, y = samples()
    network, rule = network_of(), RecursiveReadout()
    session = Session(network, rule)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    session.begin_experience()

    def lost(gradient):
        raise RuntimeError("lost in the backward pass")

    with pytest.raises(RuntimeError, match="lost"), session.step(x, y, optimizer):  # noqa: PT012
        outputs = network(x)
        outputs.register_hook(lost)
        outputs.sum().backward()
    assert len(rule.state) == 0


def test_a_copied_or_saved_network_has_no_tie_to_the_rule():
    x, y = samples()
    network = network_of()
    session = learn(network, RecursiveReadout(), [(x, y)])
    session.end_experience()
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for other in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        other[2].weight.data.zero_()
        other.eval()(x)
        assert not other[2].weight.any()


def test_cross_validation_chooses_a_ridge_near_the_best_for_new_samples():
    """Few noisy samples in many features: far too small or large a ridge costs a lot."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4000, 6, generator=generator)
    y = ((x[:, 0] + 1.5 * torch.randn(4000, generator=generator)) > 0).long()
    errors = {}
    for ridge in (None, 1e-8, 1e-4, 1e-2, 1e-1, 1.0, 1e2):
        network = network_of(width=100, classes=2)
        learn(network, RecursiveReadout(ridge=ridge), [(x[:150], y[:150])])
        outputs = network.eval()(x[150:]).detach()
        errors[ridge] = float((outputs - F.one_hot(y[150:], 2)).square().mean())
    chosen = errors.pop(None)
    assert chosen < 1.1 * min(errors.values())
    assert max(errors.values()) > 1.5 * min(errors.values())


@pytest.mark.parametrize(
    ("make", "network", "message"),
    (
        (lambda: RecursiveReadout(ridge=0.0), network_of, "ridge must be in"),
        (lambda: RecursiveReadout(block=0), network_of, "block must be a whole number"),
        (lambda: RecursiveReadout(head="1"), network_of, "none named '1'; its Linear layers: 0, 2"),
        (RecursiveReadout, lambda: nn.Sequential(nn.Conv1d(1, 5, 6), nn.Flatten()), "has none"),
    ),
)
def test_what_cannot_work_says_so(make, network, message):
    x, y = samples(4)
    with pytest.raises(ValueError, match=message):
        learn(network(), make(), [(x, y)])


def test_labels_and_heads_that_do_not_fit_are_refused():
    x, y = samples(10)
    with pytest.raises(ValueError, match="got the label 9"):
        learn(network_of(), RecursiveReadout(), [(x, torch.full((10,), 9))])
    with pytest.raises(TypeError, match="integer class labels"):
        learn(network_of(), RecursiveReadout(), [(x, F.one_hot(y, 5).float())])

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 5)

        def forward(self, inputs):
            return self.head(inputs) + self.head(inputs)

    with pytest.raises(ValueError, match="to run once a batch"):
        learn(Twice(), RecursiveReadout(), [(x, y)])


@pytest.mark.parametrize("bias", (True, False))
def test_blocks_that_are_silent_in_a_batch_count_as_what_they_are(bias):
    """Features of context c stand in every second column, and are 0 in the other context's batches."""
    generator = torch.Generator().manual_seed(0)
    h, y = torch.rand(120, 6, generator=generator) + 0.5, torch.randint(3, (120,), generator=generator)
    context = torch.arange(120).div(20, rounding_mode="floor") % 2
    x = torch.zeros(120, 6, 2).scatter_(2, context.view(-1, 1, 1).expand(120, 6, 1), h.unsqueeze(2)).flatten(1)
    heads = {}
    for batch in (20, 120):  # By batches of one context, and all at once: then no block is silent.
        network = nn.Sequential(nn.Linear(12, 3, bias=bias))
        rule = RecursiveReadout(ridge=0.1, block=6)
        learn(network, rule, zip(x.split(batch), y.split(batch), strict=True))
        network.eval()(x)
        heads[batch] = torch.cat([p.detach().flatten() for p in network.parameters()])
        if batch == 20:
            assert rule.state.overall["silent"].tolist() == [60.0, 60.0]
        else:
            assert "silent" not in rule.state
    torch.testing.assert_close(heads[20], heads[120], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rule", (RecursiveReadout(), StreamingLDA()))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("value", (1e30, -1e30, 1e18, float("nan"), float("inf")))
def test_features_whose_products_overflow_are_refused_and_leave_no_trace(rule, dtype, value):
    """Added up, one such sample would spoil all that is remembered for good."""
    head, (x, y), rule = nn.Linear(6, 5).to(dtype), samples(40), rule.clone()
    network, x = nn.Sequential(nn.Identity(), head), x.to(dtype)
    bad = x.clone()
    bad[3, 2] = value
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    session = learn(network, rule, [(x, y)])
    before = copy.deepcopy(rule.state.state_dict())
    allowed = dtype == torch.float64 and abs(value) < 1e60
    if allowed:
        with session.step(bad, y, optimizer):
            network(bad).sum().backward()
        assert all(v.isfinite().all() for v in rule.state.state_dict().values())
        network.eval()(x)
        assert head.weight.isfinite().all()
        return
    with (
        pytest.raises(ValueError, match=r"overflow|not finite|NaN or infinite"),
        session.step(bad, y, optimizer),
    ):
        network(bad).sum().backward()
    after = rule.state.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    network.eval()(x)
    assert head.weight.isfinite().all()


def test_features_as_large_as_are_allowed_are_learned_exactly():
    """In float32 up to 7e16: then also sums over a whole stream, and what is worked out from them, stay finite."""
    x, y = samples(400)
    x = x / x.abs().max()
    networks = [nn.Sequential(nn.Identity(), nn.Linear(6, 5)) for _ in range(2)]
    for network, scale in zip(networks, (1.0, 2.0**55), strict=True):  # 3.6e16
        learn(network, RecursiveReadout(), [(x * scale, y)])
    expected = networks[0].eval()(x)
    torch.testing.assert_close(networks[1].eval()(x * 2.0**55), expected, atol=1e-5, rtol=1e-5)


class Reversed(nn.Module):
    """The head is registered before the body."""

    def __init__(self, wide=5):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.body = nn.Linear(20, 5), nn.Linear(6, 20)
        self.after = nn.Linear(wide, 4) if wide != 5 else None

    def forward(self, x):
        scores = self.head(torch.relu(self.body(x)))
        return scores if self.after is None else torch.cat([scores, self.after(x)], 1)


def test_a_head_that_is_not_registered_last_has_to_be_named():
    network, (x, y) = Reversed(), samples()
    rule = RecursiveReadout(ridge=1e-3)
    with pytest.raises(
        ValueError, match=r"the layer 'head' runs after the one registered last: name the right one \(head"
    ):
        learn(network, rule, [(x, y)])
    assert list(rule.state) == []
    learn(network, RecursiveReadout(ridge=1e-3, head="head"), [(x, y)])
    with torch.no_grad():
        h = torch.relu(network.body(x)).double()
    network.eval()(x)
    expected = batch_ridge(h, y, 5, absolute_ridge(h, 1e-3))
    torch.testing.assert_close(network.head.weight.double(), expected[:-1].T, atol=5e-5, rtol=1e-4)


def test_a_named_head_whose_output_goes_on_through_a_layer_is_refused():
    network, (x, y) = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 5), nn.Linear(5, 5)), samples()
    rule = RecursiveReadout(head="2")
    with pytest.raises(ValueError, match="the layer '3' runs after the one named"):
        learn(network, rule, [(x, y)])
    assert list(rule.state) == []


def test_a_branch_beside_a_named_head_is_no_error():
    network, (x, y) = Reversed(wide=6), samples()
    learn(network, RecursiveReadout(head="head"), [(x, y)])


@pytest.mark.parametrize(
    "rule", (RecursiveReadout(), RecursiveReadout(ridge=1e-3), StreamingLDA(), StreamingLDA(shrinkage=0.1))
)
@pytest.mark.parametrize("value", (0.0, 3.5))
def test_constant_features_give_the_commonest_class(rule, value):
    network = nn.Sequential(nn.Identity(), nn.Linear(4, 3))
    y = torch.tensor([0, 1, 1, 2, 1, 0])
    learn(network, rule.clone(), [(torch.full((6, 4), value), y)])
    outputs = network.eval()(torch.full((6, 4), value))
    assert outputs.isfinite().all()
    assert outputs.argmax(1).tolist() == [1] * 6


@pytest.mark.parametrize("rule", (RecursiveReadout, StreamingLDA))
def test_a_network_that_runs_step_by_step_is_not_told_to_name_another_head(rule):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(6, 20), nn.Linear(20, 5)

        def forward(self, x):
            return sum(self.head(torch.relu(self.body(x))) for _ in range(3)) / 3

    readout, (x, y) = rule(), samples()
    with pytest.raises(
        ValueError, match="the layer 'body' runs again after the head: a head that runs at several time"
    ):
        learn(Steps(), readout, [(x, y)])
    assert list(readout.state) == []


def test_features_that_only_double_precision_can_hold_are_learned() -> None:
    network = nn.Sequential(nn.Linear(4, 2)).double()
    rule = RecursiveReadout(ridge=1e-3)
    inputs = 1e50 * torch.eye(4).double()
    rule.learn(network, [(inputs, torch.tensor([0, 0, 1, 1]))])
    rule.write(network)
    assert network(inputs).argmax(1).tolist() == [0, 0, 1, 1]


def step(session: Session, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    with session.step(x, y, torch.optim.SGD(network.parameters(), lr=0.1)):
        F.cross_entropy(network.train()(x), y).backward()


def test_the_parameters_below_the_head_are_read_once_an_experience(monkeypatch) -> None:
    x, y = samples()
    read: list[int] = []
    monkeypatch.setattr(_readout_head, "raw_bytes", lambda tensor: read.append(1) or raw_bytes(tensor))
    network, rule = network_of(), RecursiveReadout(ridge=1e-3)
    session = learn(network, rule, [])
    for experience in range(3):
        for part in (slice(0, 50), slice(50, 100)):
            step(session, network, x[part], y[part])
        session.end_experience()
        # A weight and a bias each time; the first experience reads them when it begins to count, too.
        assert len(read) == 2 * (experience + 2)
        session.begin_experience()


@pytest.mark.parametrize("between", (False, True))
def test_features_that_move_are_warned_of_once(between: bool) -> None:
    x, y = samples()
    network, rule = network_of(), RecursiveReadout(ridge=1e-3)
    session = learn(network, rule, [(x, y)])
    if between:
        session.end_experience()
    with torch.no_grad():
        network[0].weight[0, 0] += 1
    if between:
        session.begin_experience()
        step(session, network, x, y)
    with pytest.warns(UserWarning, match="weights below the head changed after RecursiveReadout had counted samples"):
        session.end_experience()
    session.begin_experience()
    step(session, network, x, y)
    session.end_experience()


def test_a_memory_that_is_loaded_with_its_network_is_no_change_of_the_features() -> None:
    x, y = samples()
    network, rule = network_of(), RecursiveReadout(ridge=1e-3)
    learn(network, rule, [(x, y)]).end_experience()
    other = network_of(seed=5)
    memory = learn(other, RecursiveReadout(ridge=1e-3), [(x, y)])
    network.load_state_dict(other.state_dict())
    rule.state.load_state_dict(memory.rules[0].state.state_dict())
    learn(network, rule, [(x, y)]).end_experience()


def test_parameters_that_come_below_the_head_are_no_change_of_the_features() -> None:
    x, y = samples()
    network, rule = network_of(), RecursiveReadout(ridge=1e-3, head="2")
    session = learn(network, rule, [(x, y)])
    session.end_experience()
    network.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    session.begin_experience()
    step(session, network, x, y)
    session.end_experience()
