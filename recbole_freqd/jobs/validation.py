"""Refuses, at the start, a config without the part of the data that a job needs."""

import math
from typing import Any

from recbole_freqd.core.errors import ConfigError, TrainingError, short_repr
from recbole_freqd.jobs import run as runs

_LEAVE_OUT = {"valid_only": {"test"}, "test_only": {"valid"}}


def check_validation(config: Any, job: str) -> None:
    """Raises ConfigError where a job chooses by validation data and there is none.

    Args:
        config: Of one of its runs; its data is read.
        job: As the message begins.
    """
    if config["eval_step"] <= 0:
        raise ConfigError(
            f"{job} goes by {config['valid_metric']} on validation data, and eval_step: "
            f"{config['eval_step']} validates never. Allowed: 1 or more. Change eval_step."
        )
    if "valid" in missing_parts(config) or not runs.read_data(config)[1]:
        raise _no_part(config, job, f"{config['valid_metric']} on validation data", "validation")


def check_test(config: Any, job: str, metric: str) -> None:
    """Raises ConfigError where the split of a config says that there is no test part."""
    if "test" in missing_parts(config):
        raise _no_part(config, job, f"test {metric}", "test")


def missing_parts(config: Any) -> set[str]:
    """``valid`` and ``test``, as far as the split itself leaves them out."""
    if config["benchmark_filename"] is not None:
        return set()
    split = (config["eval_args"] or {}).get("split") or {}
    ((kind, parts),) = split.items()
    if kind == "LS":
        return _LEAVE_OUT.get(parts, set())
    return {name for name, ratio in zip(("valid", "test"), parts[1:]) if ratio == 0}


def validation_score(run: runs.Run) -> float:
    """The best score of a finished run.

    Raises:
        TrainingError: It was never validated: RecBole's score is then no number.
    """
    if not run.best_valid_result or not math.isfinite(run.best_valid_score):
        raise TrainingError("It was never validated, so it has no score. See eval_step, eval_args.")
    return run.best_valid_score


def _no_part(config: Any, job: str, needs: str, part: str) -> ConfigError:
    return ConfigError(
        f"{job} goes by {needs}, and there is no {part} data: eval_args.split is "
        f"{short_repr((config['eval_args'] or {}).get('split'))}. Allowed: a split with some, e.g. "
        "{RS: [0.8, 0.1, 0.1]} or {LS: valid_and_test}. Change eval_args."
    )
