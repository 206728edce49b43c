"""Predictions for images and recordings of one's own, by an entry or by a network loaded from one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

from torch import nn

from lit_meta.evaluation.accuracy import class_scores
from lit_meta.zoo.entries import load
from lit_meta.zoo.golden import outputs_of


@dataclass(frozen=True)
class Prediction:
    """What a network takes a sample for.

    Attributes:
        class_name: of the largest output.
        label: index of that output.
        outputs: of every class: logits, rates or regression values, as the network was trained; they are no probabilities.
        second: the name of the class with the second largest output.
        margin: by how much the first output exceeds the second.
    """

    class_name: str
    label: int
    outputs: tuple[float, ...]
    second: str
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@overload
def predict(source: str | Path | nn.Module, sample: Sequence[Any]) -> list[Prediction]: ...
@overload
def predict(source: str | Path | nn.Module, sample: Any) -> Prediction: ...
def predict(source: str | Path | nn.Module, sample: Any) -> Prediction | list[Prediction]:
    """The class of a sample of one's own, or of several.

    Args:
        source: a network from `lit_meta.zoo.load`, or what that takes.
        sample: the path of an image or a recording, a PIL image, an array or a tensor, as `Transform` takes it; or a list of
            them.

    Returns:
        One prediction, or one for each sample of a list. Samples are predicted one by one, so that none depends on another.

    Raises:
        KeyError, FileNotFoundError, ValueError: as of `lit_meta.zoo.load` and `Transform`; or the entry does not state its
            preprocessing.

    Example:
        >>> from lit_meta.data import load_source
        >>> digits = load_source("digits")
        >>> predict("patch-net.recursive-readout_split-digits", digits.test_x[0]).class_name, int(digits.test_y[0])
        ('0', 0)
    """
    network = source if isinstance(source, nn.Module) else load(source)
    transform, names = getattr(network, "transform", None), getattr(network, "class_names", None)
    if transform is None or names is None:
        raise ValueError(
            "the network does not state its preprocessing and class names: load it from a zoo entry of the present format"
        )
    samples = list(sample) if isinstance(sample, (list, tuple)) else [sample]
    network.eval()
    predictions = []
    for one in samples:
        outputs = class_scores(outputs_of(network, transform(one)), 1)[0]
        values, order = outputs.topk(2)
        first, second = (names[i] if i < len(names) else f"class {i}" for i in order.tolist())
        predictions.append(
            Prediction(first, int(order[0]), tuple(outputs.tolist()), second, float(values[0] - values[1]))
        )
    return predictions if isinstance(sample, (list, tuple)) else predictions[0]
