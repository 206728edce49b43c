"""Streaming discriminant analysis against scikit-learn, which sees all samples at once."""

from __future__ import annotations

import pytest
import torch
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from lit_meta.rules import StreamingLDA
from tests.rules.test_recursive_readout import features_of, learn, network_of, samples


@pytest.mark.parametrize("prior", ("empirical", "uniform"))
def test_differences_of_outputs_are_those_of_scikit_learn(prior):
    x, y = samples()
    network = network_of()
    # One class at a time.
    learn(network, StreamingLDA(shrinkage=0.1, prior=prior), [(x[y == c], y[y == c]) for c in (2, 0, 4, 1, 3)])
    h = features_of(network, x)
    within = h - torch.stack([h[y == c].mean(0) for c in range(5)])[y]
    covariance = within.T @ within / len(h)
    trace = covariance.diagonal().mean()
    shrunk = 0.9 * covariance + 0.1 * trace * torch.eye(20, dtype=torch.float64)

    class Fixed:
        def fit(self, _):
            self.covariance_ = shrunk.numpy()

    reference = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=Fixed(), priors=None if prior == "empirical" else [0.2] * 5
    )

    class Shared(Fixed):
        """scikit-learn averages one estimate a class; all are the shared one."""

    reference.covariance_estimator = Shared()
    expected = torch.from_numpy(reference.fit(h.numpy(), y.numpy()).decision_function(h.numpy()))
    found = network.eval()(x).double()
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True), atol=2e-4, rtol=2e-4
    )


def test_the_automatic_shrinkage_is_oracle_approximating():
    x, y = samples(60)
    network = network_of()
    learn(network, StreamingLDA(), [(x, y)])
    h = features_of(network, x)
    within = h - torch.stack([h[y == c].mean(0) for c in range(5)])[y]
    _, shrinkage = oas(within.numpy(), assume_centered=True)
    fixed = network_of()
    learn(fixed, StreamingLDA(shrinkage=float(shrinkage)), [(x, y)])
    torch.testing.assert_close(network.eval()(x), fixed.eval()(x), atol=1e-4, rtol=1e-4)


def test_blocks_are_taken_as_independent():
    x, y = samples()
    network, half = network_of(), network_of()
    learn(network, StreamingLDA(shrinkage=0.1, block=10, prior="uniform"), [(x, y)])
    outputs = torch.zeros(300, 5)
    for first in range(2):
        part = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(10, 5))
        learn(part, StreamingLDA(shrinkage=0.1), [(features_of(half, x).float()[:, first::2], y)])
        outputs += part.eval()(features_of(half, x).float()[:, first::2]) - (y.bincount() / 300).log()
    torch.testing.assert_close(network.eval()(x).softmax(1), outputs.detach().softmax(1), atol=1e-4, rtol=1e-4)


def test_a_head_without_a_bias_is_refused():
    x, y = samples(10)
    with pytest.raises(ValueError, match="bias=True"):
        learn(network_of(bias=False), StreamingLDA(), [(x, y)])
