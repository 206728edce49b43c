"""A source: labelled samples with a fixed test split. `split-rings` and `permuted-rings` are scenarios of it at once."""

import math

import torch

from lit_meta.data import Source


def rings(samples: int = 400, classes: int = 4) -> Source:
    """Points on noisy rings around the centre of a plane, one ring a class.

    Args:
        samples: of each class; a quarter is for testing.
        classes: number of rings.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(samples)
    angles = 2 * math.pi * torch.rand(len(labels), generator=generator)
    radii = (labels + 0.5) / classes / 2 + 0.02 * torch.randn(len(labels), generator=generator)
    points = 0.5 + radii[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
    test = torch.arange(len(labels)) % 4 == 0
    names = tuple(f"ring {i + 1}" for i in range(classes))
    return Source("rings", points[~test], labels[~test], points[test], labels[test], names)
