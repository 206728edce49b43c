"""Training on a stream of experiences: one Trainer, checkpoints, and learners made from scratch to compare with."""

from lit_meta.streams.first_session import adapt_backbone
from lit_meta.streams.fit import StreamResult, fit_stream
from lit_meta.streams.shards import learn_shards

__all__ = ["StreamResult", "adapt_backbone", "fit_stream", "learn_shards"]
