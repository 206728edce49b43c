"""A continual learner by scikit-learn's conventions: a frozen backbone, and a readout that learns in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from lit_meta.functional.readout import Readout, centered_moments, cross_validated_ridge, ridge_readout
from lit_meta.functional.scatter import Scatter
from lit_meta.integrations._estimator_checks import check_labels, check_products, rows, united
from lit_meta.integrations._estimator_files import digest_of, saved_classes, saved_columns, saved_sums
from lit_meta.rules._readout_residual import check_counted
from lit_meta.utils.arguments import require_count, require_in
from lit_meta.utils.io import load_json, load_tensors, save_json, save_tensors
from lit_meta.utils.modes import modes_kept

_FORMAT = 1
_NO_LABELS = object()  # None would be labels that were forgotten.


class ContinualClassifier(ClassifierMixin, BaseEstimator):
    """Learns new classes at any time, in any order, and ends where learning all at once would end.

    It keeps sums over the features of the samples, never a sample: after every `partial_fit` it is the ridge regression on all
    samples so far. Because they are sums, samples can be taken out again as if they had never been seen (`unlearn`).

    Args:
        backbone: a network whose output are the features; it does not learn, and is run in evaluation mode. None takes the
            samples as they are.
        ridge: λ as a fraction of the mean eigenvalue of the features' scatter, above 0; None chooses it by generalised
            cross-validation from the same sums.
        batch_size: samples that the backbone sees at once.
        device: of the backbone.

    Attributes:
        classes_: the labels seen so far, in order.
        class_counts_: samples of each.
        n_features_in_: columns of X, where X is a table.
        feature_names_in_: their names, where X is a data frame with names of text.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> model = ContinualClassifier()
        >>> for digit in range(10):  # one class after the other
        ...     model = model.partial_fit(X[y == digit], y[y == digit])
        >>> bool(model.score(X, y) > 0.93)
        True
    """

    _sums: dict[str, Tensor]
    _solved: dict[str, Readout]

    def __init__(
        self,
        backbone: nn.Module | None = None,
        *,
        ridge: float | None = None,
        batch_size: int = 256,
        device: str = "cpu",
    ) -> None:
        self.backbone = backbone
        self.ridge = ridge
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any) -> ContinualClassifier:
        """Learns from these samples alone; everything before is forgotten.

        Args:
            X: samples ``(samples, features)``, or what the backbone takes.
            y: labels ``(samples,)``, numbers or text.
        """
        for attribute in ("classes_", "class_counts_", "n_features_in_", "feature_names_in_", "_sums", "_solved"):
            self.__dict__.pop(attribute, None)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> ContinualClassifier:
        """Learns these samples as well; labels may be new.

        Args:
            X: samples ``(samples, features)``, or what the backbone takes.
            y: labels ``(samples,)``, numbers or text.
            classes: labels that are to be known besides; need not be given.

        Raises:
            TypeError: a backbone that gives no tensor.
            ValueError: parameters out of range, NaN, samples of another shape than before or too large for their products to be
                summed, or numbers and text as labels; nothing is learned.
        """
        self._check_parameters()
        check_labels([getattr(self, "classes_", ()), y, () if classes is None else classes])
        X, y = self._checked(X, y, reset=not hasattr(self, "_sums"))
        named = [] if classes is None else [np.asarray(classes)]
        labels = united([getattr(self, "classes_", y[:0]), y, *named])
        features = self._features(X)
        shift = self._sums["shift"] if hasattr(self, "_sums") else features.mean(0)
        check_products(features, shift)
        if not hasattr(self, "_sums"):
            width = features.shape[1]
            self.classes_ = np.unique(y)[:0]
            # Sums about a constant near the mean keep the digits that a large mean would take.
            self._sums = {
                "second_moment": torch.zeros(width, width, dtype=torch.float64),
                "class_sums": torch.zeros(0, width, dtype=torch.float64),
                "class_counts": torch.zeros(0, dtype=torch.float64),
                "shift": shift,
            }
        self._know(labels)
        self._add(features, y, 1)
        return self

    def unlearn(self, X: Any, y: Any) -> ContinualClassifier:
        """Takes samples out again, as if they had never been seen; a class without samples is no longer known.

        Args:
            X: samples that were learned before.
            y: their labels.

        Raises:
            ValueError: more samples of a class than were learned, all there are, or samples that cannot have been learned, as
                far as sums can tell; nothing is changed.
        """
        check_is_fitted(self)
        check_labels([self.classes_, y])
        X, y = self._checked(X, y, reset=False)
        labels, counts = np.unique(y, return_counts=True)
        known = dict(zip(self.classes_.tolist(), self.class_counts_.tolist(), strict=True))
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            if count > known.get(label, 0):
                raise ValueError(
                    f"{count} samples of class {label!r} cannot be unlearned: {known.get(label, 0)} were learned"
                )
        if counts.sum() == self.class_counts_.sum():
            raise ValueError("these are all samples that were learned: make a new ContinualClassifier")
        features = self._features(X)
        self._check_learned(features, y)
        self._add(features, y, -1)
        self._recenter()
        kept = self._sums["class_counts"] > 0
        self.classes_ = self.classes_[kept.numpy()]
        for name in ("class_sums", "class_counts"):
            self._sums[name] = self._sums[name][kept]
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """The readout's outputs ``(samples, classes)``; of two classes the difference, ``(samples,)``."""
        check_is_fitted(self)
        X = self._checked(X, _NO_LABELS, reset=False)
        readout = self._readout
        outputs = ((self._features(X) - self._sums["shift"]) @ readout.weight.T + readout.bias).numpy()
        if not np.isfinite(outputs).all():
            raise ValueError("X is so large that the outputs are not finite: scale it as the samples that were learned")
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: Any) -> np.ndarray:
        """The label of each sample, ``(samples,)``; it depends on that sample only."""
        outputs = self.decision_function(X)
        chosen = (outputs > 0).astype(int) if outputs.ndim == 1 else outputs.argmax(1)
        return self.classes_[chosen]

    @property
    def class_counts_(self) -> np.ndarray:
        """Samples of each class."""
        return self._sums["class_counts"].numpy().astype(int)

    def save(self, folder: str | Path) -> Path:
        """Writes the sums, the labels and the parameters into a folder; the weights of the backbone are not written.

        Returns:
            The folder.

        Raises:
            ValueError: labels that are neither text nor numbers.
        """
        check_is_fitted(self)
        if self.classes_.dtype.kind not in "biufUO" or not all(
            isinstance(c, (str, int, float)) for c in self.classes_.tolist()
        ):
            raise ValueError(f"labels must be text or numbers to be saved, got {self.classes_.dtype}")
        target = Path(folder)
        save_tensors(target / "sums.safetensors", self._sums)
        content = {
            "format": _FORMAT,
            "ridge": None if self.ridge is None else float(self.ridge),
            "batch_size": self.batch_size,
            "classes": self.classes_.tolist(),
            "dtype": "object" if self.classes_.dtype.kind == "O" else self.classes_.dtype.str,
            "features_in": getattr(self, "n_features_in_", None),
            "feature_names": list(getattr(self, "feature_names_in_", ())) or None,
            "backbone": digest_of(self.backbone),
        }
        save_json(target / "config.json", content)
        return target

    @classmethod
    def load(cls, folder: str | Path, backbone: nn.Module | None = None, *, device: str = "cpu") -> ContinualClassifier:
        """What `save` wrote, ready to learn on; nothing that is in the files is run.

        Args:
            folder: as given to `save`.
            backbone: the network that was used; another one is refused.
            device: of the backbone.

        Raises:
            FileNotFoundError: there are no such files.
            ValueError: a file is damaged, or the backbone is another.
        """
        source = Path(folder)
        content, sums = load_json(source / "config.json"), load_tensors(source / "sums.safetensors")
        try:
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}, expected {_FORMAT}")
            model = cls(backbone, ridge=content["ridge"], batch_size=content["batch_size"], device=device)
            model._check_parameters()
            model.classes_ = saved_classes(content["classes"], content["dtype"])
            model._sums = saved_sums(sums, len(model.classes_))
            columns = saved_columns(content, len(sums["shift"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{source} does not hold a ContinualClassifier: {error}") from None
        if content["backbone"] != digest_of(backbone):
            raise ValueError(
                f"{source} was learned on {'another' if content['backbone'] else 'no'} backbone: pass the same one"
            )
        model.__dict__.update(columns)
        model._solved = {}
        return model

    @property
    def _readout(self) -> Readout:
        # Solved when it is needed: many small steps of learning then cost no more than their sums.
        if "readout" not in self._solved:
            counts = self._sums["class_counts"]
            moments = centered_moments(self._sums["second_moment"], self._sums["class_sums"], counts)
            mean = float(moments.scatter.diagonal().mean())
            ridge = cross_validated_ridge(moments, counts) if self.ridge is None else self.ridge * mean
            self._solved["readout"] = ridge_readout(moments, counts, ridge if ridge > 0 else 1.0)
        return self._solved["readout"]

    def _know(self, classes: np.ndarray) -> None:
        """Makes room for new labels, in the order of `classes_`."""
        positions = torch.from_numpy(np.searchsorted(classes, self.classes_))
        for name in ("class_sums", "class_counts"):
            old = self._sums[name]
            new = torch.zeros(len(classes), *old.shape[1:], dtype=old.dtype)
            new[positions] = old
            self._sums[name] = new
        self.classes_ = classes

    def _add(self, features: Tensor, y: np.ndarray, sign: int) -> None:
        labels = torch.from_numpy(np.searchsorted(self.classes_, y))
        centred = features - self._sums["shift"]
        self._sums["second_moment"] += sign * centred.T @ centred
        self._sums["class_sums"].index_add_(0, labels, sign * centred)
        self._sums["class_counts"].index_add_(0, labels, torch.full((len(labels),), float(sign), dtype=torch.float64))
        self._solved = {}

    def _recenter(self) -> None:
        """Takes the sums about the mean of the samples left: nothing may remain of the first ones, whose mean the shift was."""
        counts = self._sums["class_counts"]
        total = self._sums["class_sums"].sum(0)
        mean = total / counts.sum()
        self._sums["second_moment"] -= torch.outer(total, mean)
        self._sums["class_sums"] -= torch.outer(counts, mean)
        self._sums["shift"] = self._sums["shift"] + mean

    def _check_learned(self, features: Tensor, y: np.ndarray) -> None:
        labels = torch.from_numpy(np.searchsorted(self.classes_, y))
        counts = self._sums["class_counts"]
        check_counted(
            [(torch.arange(features.shape[1]), Scatter.of(self._sums["second_moment"]))],
            self._sums["class_sums"],
            counts,
            features - self._sums["shift"],
            labels,
            counts - torch.bincount(labels, minlength=len(counts)),
            # A backbone rounds in float32, and another way in batches of another size.
            tolerance=1e-9 if self.backbone is None else 1e-5,
        )

    def _checked(self, X: Any, y: Any, *, reset: bool) -> Any:
        table = self.backbone is None
        given = X.detach().cpu().numpy() if isinstance(X, Tensor) else X
        labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else y
        options = {"dtype": "numeric"} if table else {"dtype": "numeric", "allow_nd": True}
        if y is _NO_LABELS:
            return validate_data(self, given, reset=reset, **options)
        X, labels = validate_data(self, given, labels, reset=reset, **options)
        check_classification_targets(labels)
        return X, labels

    def _features(self, X: np.ndarray) -> Tensor:
        """Features in float64, ``(samples, features)``."""
        if self.backbone is None:
            return torch.from_numpy(np.array(X, dtype=np.float64))
        network = self.backbone.to(self.device)
        with modes_kept(network), torch.no_grad():
            network.eval()
            # A backbone of ours tells its features apart from the outputs of a head.
            extract = getattr(network, "extract", network)
            parts = [rows(extract(part), part, network) for part in self._batches(X)]
        features = torch.cat(parts)
        expected = self._sums["shift"].shape[0] if hasattr(self, "_sums") else features.shape[1]
        if features.shape[1] != expected:
            raise ValueError(f"the backbone gives {features.shape[1]} features, before it gave {expected}")
        if not features.isfinite().all():
            raise ValueError("the backbone gives features that are not finite")
        return features

    def _batches(self, X: np.ndarray) -> Iterator[Tensor]:
        for start in range(0, len(X), self.batch_size):
            yield torch.from_numpy(np.array(X[start : start + self.batch_size], dtype=np.float32)).to(self.device)

    def _check_parameters(self) -> None:
        if self.backbone is not None and not isinstance(self.backbone, nn.Module):
            raise ValueError(f"backbone must be a torch.nn.Module or None, got {type(self.backbone).__name__}")
        if self.ridge is not None:
            require_in("ridge", self.ridge, 0.0, float("inf"), open_low=True)
            if self.ridge == float("inf"):
                raise ValueError("ridge must be finite, or None, got inf")
        require_count("batch_size", self.batch_size)
