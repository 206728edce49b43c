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
    # Not even the constant that the sums are about tells of them.
    torch.testing.assert_close(model._sums["shift"], torch.from_numpy(X[~out].mean(0)))
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
        ('"ridge": null', '"ridge": -1', "ridge must be in"),
        ('"classes"', '"klasses"', "classes"),
        (" 9\n", " 9,\n  10\n", "class_sums must be finite float64 numbers"),
        (" 9\n", " 8\n", "repeat or are out of order: 8 stands before 8"),
        (" 9\n", " -1\n", "repeat or are out of order: 8 stands before -1"),
        (" 9\n", ' "9"\n', "all numbers or all text"),
        (" 9\n", " 9.5\n", "not labels of dtype '<i8'"),
        ("<i8", "<M8[s]", "dtype must be of text or numbers"),
        ('"features_in": 64', '"features_in": 63', "features_in is 63, and its sums are of 64 features"),
        ('"feature_names": null', '"feature_names": ["a"]', "feature_names must be 64 names"),
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
        ({"ridge": 0.0}, "ridge must be in"),
        ({"ridge": True}, "ridge must be in .* got True"),
        ({"ridge": float("inf")}, "ridge must be finite"),
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
        ([1, "a"], None, "all numbers or all text"),
        (np.array([1, "a"], dtype=object), None, "all numbers or all text"),
        ([True, "a"], None, "all numbers or all text"),
        ([1, None], None, "a label is None"),
        ([1, 2], [0, "a"], "all numbers or all text"),
        ([2**53 + 1, 2], [0.5], "the label 9007199254740993 cannot be kept as float64"),
    ),
)
def test_labels_of_another_kind_are_refused_and_nothing_is_learned(later, classes, message) -> None:
    one = ContinualClassifier().fit(np.eye(2), [0, 1])
    before = one.class_counts_.tolist()
    with pytest.raises(ValueError, match=message):
        one.partial_fit(np.eye(2), later, classes=classes)
    assert one.class_counts_.tolist() == before
    assert one.classes_.tolist() == [0, 1]


def test_a_first_list_of_numbers_and_text_is_refused_as_any_other() -> None:
    with pytest.raises(ValueError, match="all numbers or all text"):
        ContinualClassifier().fit(np.eye(4), [0, 1, "a", "b"])


class Gives(nn.Module):
    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor):
        return self.output(x)


@pytest.mark.parametrize(
    ("output", "error", "message"),
    (
        (lambda x: (x, x), TypeError, "gives a tuple: wrap it"),
        (lambda x: {"features": x}, TypeError, "gives a dict"),
        (lambda x: x.sum(), ValueError, r"gives one of \(\)"),
        (lambda x: x[:1], ValueError, r"gives one of \(1, 2\)"),
        (lambda x: x.sum(1), ValueError, r"gives one of \(2,\)"),
    ),
)
def test_a_backbone_that_gives_no_features_is_told(output, error, message) -> None:
    with pytest.raises(error, match=message):
        ContinualClassifier(Gives(output)).fit(np.eye(2), [0, 1])


@pytest.mark.parametrize(
    ("scale", "message"), ((1e200, "products overflow"), (1e-100, "squares of their products vanish"))
)
def test_features_whose_products_cannot_be_summed_are_refused(scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinualClassifier().fit(X * scale, Y)


def test_a_batch_too_large_leaves_what_was_learned() -> None:
    model = ContinualClassifier().fit(X, Y)
    with pytest.raises(ValueError, match="products overflow"):
        model.partial_fit(X * 1e200, Y)
    assert model.class_counts_.sum() == len(Y)


@pytest.mark.parametrize("scale", (1e-50, 1e50))
def test_the_scale_of_features_does_not_matter_otherwise(scale: float) -> None:
    assert np.array_equal(
        ContinualClassifier().fit(X * scale, Y).predict(X * scale), ContinualClassifier().fit(X, Y).predict(X)
    )


def test_a_sample_whose_outputs_overflow_is_refused() -> None:
    model = ContinualClassifier(ridge=1e-6).fit(X / 16, Y)
    with pytest.raises(ValueError, match="outputs are not finite"):
        model.predict(np.full((1, 64), 1.7e308))


@pytest.mark.parametrize(
    "strangers",
    (X[:5] * 50, X[:5][:, ::-1], np.random.default_rng(0).uniform(0, 1e4, (5, 64)), X[:5] + 1e3),
)
def test_samples_that_were_never_learned_cannot_be_unlearned(strangers: np.ndarray) -> None:
    few = np.arange(len(Y)) < 30
    model = ContinualClassifier(ridge=1e-3).fit(X[few], Y[few])
    before = model.decision_function(X)
    with pytest.raises(ValueError, match=r"these samples were never counted: .* nothing was changed"):
        model.unlearn(strangers, Y[:5])
    np.testing.assert_array_equal(model.decision_function(X), before)


def test_with_a_backbone_learned_samples_are_unlearned_in_other_batches_too() -> None:
    images = X.reshape(-1, 1, 8, 8) / 16
    model = ContinualClassifier(Backbone(), ridge=1e-3, batch_size=100).fit(images, Y)
    model.set_params(batch_size=7).unlearn(images[:900], Y[:900])
    never = ContinualClassifier(Backbone(), ridge=1e-3).fit(images[900:], Y[900:])
    np.testing.assert_allclose(model.decision_function(images), never.decision_function(images), atol=1e-4)


def test_files_keep_the_names_of_columns(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
    back = ContinualClassifier.load(ContinualClassifier().fit(frame, Y).save(tmp_path))
    assert back.feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        back.predict(frame[frame.columns[::-1]])


def test_files_keep_labels_that_are_true_or_false(tmp_path) -> None:
    back = ContinualClassifier.load(ContinualClassifier().fit(X, Y > 4).save(tmp_path))
    assert back.classes_.dtype == bool
    assert back.predict(X).dtype == bool
