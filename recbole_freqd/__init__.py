"""recbole_freqd: knowledge distillation for RecBole, from big recommenders into small ones.

Importing this package patches nothing and loads neither torch nor RecBole; names are loaded when
they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "register": "recbole_freqd.trainer.register",
    "unregister": "recbole_freqd.trainer.register",
    "run_recbole_freqd": "recbole_freqd.jobs.quick_start",
    "compare": "recbole_freqd.jobs.comparison.compare",
    "FreqDTrainer": "recbole_freqd.trainer.distillation",
    "FreqDLoss": "recbole_freqd.losses",
    "FDLoss": "recbole_freqd.losses",
    "extract_features": "recbole_freqd.features",
    "load_checkpoint": "recbole_freqd.checkpoint.loading",
    "export": "recbole_freqd.jobs.export.export",
    "recommend": "recbole_freqd.jobs.recommend.recommend",
    "fold_in": "recbole_freqd.features.fold_in",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recbole_freqd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
