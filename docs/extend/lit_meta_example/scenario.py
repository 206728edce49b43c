"""A scenario: a function that returns a benchmark. It takes a seed where chance plays a part."""

import math

import torch

from lit_meta.data import load_source, tensor_benchmark


def rotating(source: str = "rings", experiences: int = 3, degrees: float = 90.0):
    """The same classes in every experience, in a world that turns (domain-incremental).

    Args:
        source: a source of points in a plane.
        experiences: length of the stream.
        degrees: by which the last experience is turned.
    """
    data = load_source(source)
    train, test = [], []
    for i in range(experiences):
        angle = math.radians(degrees) * i / max(experiences - 1, 1)
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        train.append(((data.train_x - 0.5) @ turn.T + 0.5, data.train_y))
        test.append(((data.test_x - 0.5) @ turn.T + 0.5, data.test_y))
    return tensor_benchmark(train, test, name=f"rotating-{data.name}", form="domain", class_names=data.classes)
