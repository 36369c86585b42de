"""Keeps seeds, caps and keys equal for everything that is compared."""

from collections.abc import Sequence
from typing import Any

from recbole_freqd.config import make
from recbole_freqd.config.identity import WHERE_IT_RUNS
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import merge_teachers
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features import registered_adapter

_CAPS = {
    "epochs": "at most {} epochs",
    "eval_step": "an eval_step of {}",
    "stopping_step": "a stopping_step of {}",
    "metric": "a valid_metric of {}",
}
# What is compared is compared under equal conditions: these are nobody's to choose.
EQUAL_FOR_ALL = frozenset(
    {"epochs", "eval_step", "stopping_step", "valid_metric", "metrics", "topk", "eval_args", "seed"}
    | {"dataset", "data_path", "trainer", "teacher", "model", "checkpoint", "embedding_size"}
    | {"train_batch_size"}
)
OF_THE_TEACHER = frozenset({"embedding_size", "train_batch_size"})  # which are its own affair
NOT_SEARCHED = EQUAL_FOR_ALL | WHERE_IT_RUNS  # beside each other, by one budget
# Scores of other data, metrics or models say nothing about each other, and where or how a run is
# made changes none: neither is tried in several values by a search or a sweep.
_SAME_FOR_ALL = WHERE_IT_RUNS | {
    *("model", "dataset", "trainer", "teacher", "seed", "eval_args", "load_col"),
    *("benchmark_filename", "metrics", "topk", "valid_metric", "reproducibility"),
}
_BELONGS = {
    "model": "Give one with -m",
    "dataset": "Give one with -d",
    "trainer": "Several trainers are run by `compare FreqD,FD`",
    "seed": "Seeds are given with --seeds",
    "resume": "What was cut off goes on by itself",
}


def check_varied(job: str, key: str, seeds: str = "") -> None:
    """Raises ConfigError where a key is the same for all runs of a search or a sweep.

    Args:
        job: As the message begins.
        key: What is to be tried in several values.
        seeds: What else to do about ``seed``.
    """
    if key in _SAME_FOR_ALL:
        where = seeds if key == "seed" and seeds else _BELONGS.get(key, "Set it in the config")
        raise ConfigError(
            f"{job}: {key} cannot be searched: it is the same for all trials, or their scores "
            f"could not be compared. {where}."
        )


def config_of(
    base: Any, losses: list[str], seed: int, keys: dict[str, Any], frozen: dict[str, Any]
) -> Any:
    """The Config of a student with the frozen teacher and keys of its own, which go before it."""
    changes = {"seed": seed, **keys}
    if losses and frozen.get("teacher") and TEACHER not in keys:
        changes[TEACHER] = merge_teachers(base[TEACHER], frozen["teacher"])
    return make.config_with(base, losses, **changes)


def check_seeds(seeds: Sequence[Any], option: str) -> list[int]:
    """The seeds, if they are whole numbers and each is there once.

    Raises:
        ConfigError: They are not.
    """
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(
            f"{option}: got {list(seeds)}; allowed: whole numbers from 0, each once, e.g. 1,2."
        )
    return list(seeds)


def other_caps(tuned: dict[str, Any], current: dict[str, Any]) -> str:
    """In words, how far runs were trained, as far as that is otherwise here; empty: it is not.

    Args:
        tuned: ``epochs``, ``eval_step``, ``stopping_step`` and ``metric``, as far as known.
        current: The same of other runs.
    """
    return ", ".join(
        words.format(tuned[key])
        for key, words in _CAPS.items()
        if {key} <= set(tuned) & set(current) and tuned[key] != current[key]
    )


def equal_for_all(model_class: type) -> frozenset[str]:
    """The keys that nobody chooses where students of a model are compared, its width among them."""
    adapter = registered_adapter(model_class)
    return EQUAL_FOR_ALL.union(adapter.capacity if adapter else ())
