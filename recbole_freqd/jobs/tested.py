"""The test split, opened: RecBole's metrics, and how much of the catalogue is in the lists."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

from recbole_freqd.runtime.distributed import OfAllUsers

TOP = 10
_COVERAGE, _GINI = "ItemCoverage", "GiniIndex"


@dataclass(frozen=True)
class Tested:
    """What an evaluation came to.

    Attributes:
        metrics: Those of the config, as RecBole names them; empty where there is no such split.
        coverage: ItemCoverage@10, the share of the items that are in some user's list.
        gini: GiniIndex@10 of how often items are in lists: 0, all as often; near 1, few of them.
            Both None where no items are ranked.
    """

    metrics: dict[str, float]
    coverage: Optional[float] = None
    gini: Optional[float] = None


def evaluate_once(trainer: Any, train_data: Any, loader: Any, **options: Any) -> Tested:
    """RecBole's ``evaluate`` of a trainer's model on a split, in one pass for all metrics.

    Args:
        trainer: RecBole's, or ours.
        train_data: Its training loader.
        loader: The split; may be empty.
        **options: Of RecBole's ``evaluate``.
    """
    if not _makes_lists(trainer, loader):
        return Tested(as_floats(trainer.evaluate(loader, **options)))
    config = trainer.config
    given = {str(metric).lower() for metric in config["metrics"]}
    more = [name for name in (_COVERAGE, _GINI) if name.lower() not in given]
    with _evaluating_also(trainer, train_data, more):
        found = as_floats(trainer.evaluate(loader, **options))
    added = {name.lower() for name in more}
    metrics = {
        name: value
        for name, value in found.items()
        if name.partition("@")[0] not in added
        and (TOP in config["topk"] or not name.endswith(f"@{TOP}"))
    }
    return Tested(metrics, *(found[f"{name}@{TOP}".lower()] for name in (_COVERAGE, _GINI)))


def as_floats(metrics: Optional[dict[str, Any]]) -> dict[str, float]:
    """RecBole's metrics as a dict of Python floats."""
    return {name: float(value) for name, value in (metrics or {}).items()}


def _makes_lists(trainer: Any, loader: Any) -> bool:
    """Whether evaluation ranks the whole catalogue, not samples or ratings."""
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.utils import EvaluatorType

    ranks = trainer.config["eval_type"] == EvaluatorType.RANKING
    full = bool(loader) and isinstance(loader, FullSortEvalDataLoader)
    return ranks and full and loader._dataset.item_num > TOP


@contextmanager
def _evaluating_also(trainer: Any, train_data: Any, metrics: list[str]) -> Iterator[None]:
    """Inside, a trainer evaluates some metrics more, at ``TOP`` too; then it is as before."""
    from recbole.evaluator import Collector, Evaluator

    config = trainer.config
    changed = {
        "metrics": [*config["metrics"], *metrics],
        "topk": sorted({*config["topk"], TOP}),
    }
    wider = copy.copy(config)
    wider.final_config_dict = {**config.final_config_dict, **changed}
    before = trainer.evaluator, trainer.eval_collector
    evaluator: Any = Evaluator(wider)
    if isinstance(before[0], OfAllUsers):
        evaluator = OfAllUsers(evaluator, before[0].processes)
    trainer.evaluator, trainer.eval_collector = evaluator, Collector(wider)
    trainer.eval_collector.data_collect(train_data)
    try:
        yield
    finally:
        trainer.evaluator, trainer.eval_collector = before
