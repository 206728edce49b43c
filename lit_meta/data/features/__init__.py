"""Features of a frozen backbone, computed once and kept on disk; later streams over them cost seconds."""

from __future__ import annotations

from lit_meta.data.features.extract import extract_features as extract_features
from lit_meta.data.features.source import load_features as load_features
from lit_meta.data.features.store import FeatureStore as FeatureStore

__all__ = ["FeatureStore", "extract_features", "load_features"]
