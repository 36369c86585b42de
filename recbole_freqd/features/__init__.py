"""RecBole model -> (user features, item features): one adapter per model family."""

from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features import closed_form, encoders, histories, propagated, tables  # noqa: F401
from recbole_freqd.features.base import ADAPTERS, FeatureAdapter, adapts
from recbole_freqd.features.extract import check_teacher, extract_features
from recbole_freqd.features.find import adapter_of, registered_adapter
from recbole_freqd.features.propagated import PropagatedEmbeddings
from recbole_freqd.features.student import (
    StudentRanker,
    closed_form_error,
    shared_features,
    student_adapter,
)
from recbole_freqd.features.tables import EmbeddingTables

__all__ = [
    "ADAPTERS",
    "EmbeddingTables",
    "FeatureAdapter",
    "FeatureRows",
    "PropagatedEmbeddings",
    "StudentRanker",
    "adapter_of",
    "adapts",
    "check_teacher",
    "closed_form_error",
    "extract_features",
    "registered_adapter",
    "shared_features",
    "student_adapter",
]
