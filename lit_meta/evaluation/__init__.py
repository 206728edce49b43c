"""Accuracy that cannot leak: a prediction depends on its own sample only, and `audit` checks this for any model."""

from lit_meta.evaluation.accuracy import PROTOCOLS, Protocol, accuracy_by_batching, accuracy_of, evaluate

__all__ = ["PROTOCOLS", "Protocol", "accuracy_by_batching", "accuracy_of", "evaluate"]
