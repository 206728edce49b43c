"""The benchmarks of backbones do the same work twice."""

from __future__ import annotations

import torch

from lit_meta.bench import backbones
from lit_meta.core.session import Session


def test_a_step_on_kept_features_learns_what_the_step_on_images_does():
    weights = []
    for from_features in (True, False):
        work = backbones.learn(from_features=from_features)
        work()
        session = next(cell.cell_contents for cell in work.__closure__ if isinstance(cell.cell_contents, Session))
        session.end_experience()
        weights.append(session.network.head.weight.detach())
    assert bool(weights[0].any())
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-3)
