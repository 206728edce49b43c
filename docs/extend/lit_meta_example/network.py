"""A network: any nn.Module whose arguments a YAML file can hold."""

import torch
from torch import nn


class ResidualMLP(nn.Module):
    """Two hidden layers with a connection around the second.

    Args:
        inputs: values in a sample.
        width: units in each hidden layer.
        classes: outputs.
    """

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x.flatten(1)))
        return self.head(hidden + torch.relu(self.second(hidden)))
