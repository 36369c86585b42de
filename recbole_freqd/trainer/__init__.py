"""Distillation on top of the student's own RecBole trainer. Names are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_freqd.trainer.distillation import DistillationTrainer, FreqDTrainer, dispatching

__all__ = ["DistillationTrainer", "FreqDTrainer", "dispatching"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'recbole_freqd.trainer' has no attribute {name!r}")
    return getattr(import_module("recbole_freqd.trainer.distillation"), name)
