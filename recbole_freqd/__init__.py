"""recbole_freqd: knowledge distillation for RecBole, from big recommenders into small ones.

Importing this package patches nothing and loads neither torch nor RecBole; names are loaded when
they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_freqd.checkpoint.loading import load_checkpoint
    from recbole_freqd.core.errors import FreqDError
    from recbole_freqd.features import extract_features
    from recbole_freqd.features.fold_in import fold_in
    from recbole_freqd.jobs.comparison.compare import compare
    from recbole_freqd.jobs.export.export import export
    from recbole_freqd.jobs.quick_start import run_recbole_freqd
    from recbole_freqd.jobs.recommend.recommend import recommend
    from recbole_freqd.losses import FDLoss, FreqDLoss
    from recbole_freqd.trainer.distillation import FreqDTrainer
    from recbole_freqd.trainer.register import register, unregister

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
    "FreqDError": "recbole_freqd.core.errors",
    "export": "recbole_freqd.jobs.export.export",
    "recommend": "recbole_freqd.jobs.recommend.recommend",
    "fold_in": "recbole_freqd.features.fold_in",
}
__all__ = [
    "FDLoss",
    "FreqDError",
    "FreqDLoss",
    "FreqDTrainer",
    "__version__",
    "compare",
    "export",
    "extract_features",
    "fold_in",
    "load_checkpoint",
    "recommend",
    "register",
    "run_recbole_freqd",
    "unregister",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recbole_freqd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
