"""The estimator: scikit-learn's own checks, new classes at any time, unlearning, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from lit_meta import ContinualClassifier

X, Y = load_digits(return_X_y=True)


# A check that is expected to fail would be named here: there is none.
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:sklearn")
@parametrize_with_checks([ContinualClassifier(), ContinualClassifier(ridge=0.1)])
def test_scikit_learns_own_checks(estimator, check) -> None:
    check(estimator)


def by_class(model: ContinualClassifier, labels: np.ndarray = Y) -> ContinualClassifier:
    for label in np.random.default_rng(0).permutation(np.unique(labels)):
        model.partial_fit(X[labels == label], labels[labels == label])
    return model


def test_one_class_at_a_time_ends_where_all_at_once_ends() -> None:
    piecewise, whole = by_class(ContinualClassifier(ridge=1e-3)), ContinualClassifier(ridge=1e-3).fit(X, Y)
    assert piecewise.classes_.tolist() == list(range(10))
    assert piecewise.class_counts_.tolist() == np.bincount(Y).tolist()
    np.testing.assert_allclose(piecewise.decision_function(X), whole.decision_function(X), atol=1e-9)
    # The same regression by scikit-learn; its penalty is that of ours times the mean eigenvalue of the scatter.
    scatter = ((X - X.mean(0)) ** 2).sum(0).mean()
    reference = Ridge(alpha=1e-3 * scatter).fit(X, np.eye(10)[Y])
    np.testing.assert_allclose(whole.decision_function(X), reference.predict(X), atol=1e-8)


def test_labels_of_text_that_come_out_of_order() -> None:
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[Y]
    model = by_class(ContinualClassifier(), names)
    assert model.classes_.tolist() == sorted(set(names))
    assert model.score(X, names) == ContinualClassifier().fit(X, Y).score(X, Y)


def test_what_is_unlearned_was_never_seen() -> None:
    model = by_class(ContinualClassifier(ridge=1e-3))
    out = (np.arange(len(Y)) % 3 == 0) | (Y == 7)
    model.unlearn(X[out], Y[out])
    never = ContinualClassifier(ridge=1e-3).fit(X[~out], Y[~out])
    assert model.classes_.tolist() == never.classes_.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    np.testing.assert_allclose(model.decision_function(X), never.decision_function(X), atol=1e-8)
    assert 7 not in model.predict(X)
    with pytest.raises(ValueError, match="samples of class 7 cannot be unlearned: 0 were learned"):
        model.unlearn(X[Y == 7], Y[Y == 7])
    with pytest.raises(ValueError, match="all samples that were learned"):
        model.unlearn(X[~out], Y[~out])
    np.testing.assert_allclose(model.decision_function(X), never.decision_function(X), atol=1e-8)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_a_backbone_is_left_as_it_is() -> None:
    images = torch.from_numpy(X).float().reshape(-1, 1, 8, 8) / 16
    backbone = Backbone().train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    model = ContinualClassifier(backbone, batch_size=100)
    for label in range(10):
        model.partial_fit(images[label == Y], torch.from_numpy(Y)[label == Y])
    assert model.score(images, Y) > 0.97
    assert model.score(images.numpy(), Y) > 0.97
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    one_by_one = np.concatenate([model.predict(images[i : i + 1]) for i in range(20)])
    assert np.array_equal(one_by_one, model.predict(images[:20]))


def test_files_bring_it_back_ready_to_learn_on(tmp_path) -> None:
    first = Y < 5
    names = np.array([f"digit {label}" for label in Y])
    images = X.reshape(-1, 1, 8, 8) / 16
    model = ContinualClassifier(Backbone(), ridge=0.01).partial_fit(images[first], names[first])
    folder = model.save(tmp_path / "model")
    back = ContinualClassifier.load(folder, Backbone())
    assert back.get_params()["ridge"] == 0.01
    for of_two in (model, back):
        of_two.partial_fit(images[~first], names[~first])
    np.testing.assert_array_equal(back.decision_function(images), model.decision_function(images))
    assert back.predict(images[:1])[0] == model.predict(images[:1])[0]
    with pytest.raises(ValueError, match="was learned on another backbone"):
        ContinualClassifier.load(folder)
    other = Backbone()
    with torch.no_grad():
        other.layers[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match="was learned on another backbone"):
        ContinualClassifier.load(folder, other)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    (
        ('"format": 1', '"format": 2', "its format is 2"),
        ('"ridge": null', '"ridge": -1', "ridge must be above 0"),
        ('"classes"', '"klasses"', "classes"),
        (" 9\n", " 9,\n  10\n", "class_sums must be finite float64 numbers"),
    ),
)
def test_damaged_files_are_refused(old: str, new: str, message: str, tmp_path) -> None:
    ContinualClassifier().fit(X, Y).save(tmp_path)
    file = tmp_path / "config.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=f"does not hold a ContinualClassifier: .*{message}"):
        ContinualClassifier.load(tmp_path)


def test_it_works_in_scikit_learns_tools() -> None:
    pipeline = make_pipeline(StandardScaler(), ContinualClassifier(ridge=0.1))
    assert cross_val_score(pipeline, X, Y, cv=3).mean() > 0.88
    model = clone(ContinualClassifier(Backbone(), ridge=0.5))
    assert model.get_params()["ridge"] == 0.5
    assert isinstance(model.backbone, Backbone)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"ridge": 0.0}, "ridge must be above 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"backbone": "resnet"}, "backbone must be a torch.nn.Module"),
    ),
)
def test_parameters_out_of_range_are_refused_when_it_learns(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinualClassifier(**options).fit(X, Y)


@pytest.mark.parametrize(
    ("later", "classes", "message"),
    (
        (["a", "b"], None, "all numbers or all text"),
        ([1, 2], ["a"], "all numbers or all text"),
        ([1, 2], [0.0, float("nan")], "a label is NaN"),
    ),
)
def test_labels_of_another_kind_are_refused_and_nothing_is_learned(later, classes, message) -> None:
    one = ContinualClassifier().fit(np.eye(2), [0, 1])
    before = one.class_counts_.tolist()
    with pytest.raises(ValueError, match=message):
        one.partial_fit(np.eye(2), later, classes=classes)
    assert one.class_counts_.tolist() == before
    assert one.classes_.tolist() == [0, 1]
