"""Lightning callbacks that record learning, and one that stops it."""

from lit_meta.callbacks.continual_evaluation import ContinualEvaluation
from lit_meta.callbacks.online_accuracy import OnlineAccuracy
from lit_meta.callbacks.stop_at_accuracy import StopAtAccuracy
from lit_meta.callbacks.weight_change import WeightChange

__all__ = ["ContinualEvaluation", "OnlineAccuracy", "StopAtAccuracy", "WeightChange"]
