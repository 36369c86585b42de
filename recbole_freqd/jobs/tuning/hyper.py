"""Tuning by RecBole's own HyperTuning: one teacher, validation only, stopped and gone on with.

What a trial draws depends on the search and on the trials before it alone, so a search that was
stopped ends with the trials of one that was not.
"""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

from filelock import FileLock, Timeout

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.identity import WHERE_IT_RUNS, teacher_of, versions_of
from recbole_freqd.config.names import TEACHER
from recbole_freqd.core.errors import ConfigError, require
from recbole_freqd.core.files import fingerprint, write_json
from recbole_freqd.jobs.store import Record
from recbole_freqd.jobs.tuning.hyper_space import Space, as_builtins
from recbole_freqd.jobs.tuning.session import _MARK, Objective, Search, _train
from recbole_freqd.jobs.validation import check_validation

ALGORITHMS = ("exhaustive", "random", "bayes")
TOOLS = ("hyperopt", "ray")


def search(
    config: Any,
    files: list[str],
    folder: Path,
    *,
    algo: str = "exhaustive",
    max_evals: Optional[int] = None,
    keep: bool = False,
    tool: str = "hyperopt",
    objective: Optional[Objective] = None,
) -> Record:
    """Tries keys by RecBole's HyperTuning; continues where the same search was stopped.

    Args:
        config: A Config of what is tuned, made while RecBole is registered.
        files: Spaces, see :mod:`recbole_freqd.jobs.tuning.hyper_space`.
        folder: Where a folder of the search's own is made: ``trials/``, a file for each trial;
            ``trials.jsonl`` (lines) and ``trials.md`` (a table) at the end; ``best.yaml``,
            the best config so far, ready to run.
        algo: ``exhaustive`` (every combination, in random order), ``random`` or ``bayes``.
        max_evals: Trials in all; None: every combination, or 100.
        keep: Whether the checkpoints of the trials stay.
        tool: ``hyperopt``: one trial after the other; ``ray``: as many at once as Ray Tune finds
            processors or GPUs for.
        objective: From the Config of a trial to its ``score`` and whatever else is to be recorded;
            None: train it and take RecBole's validation score.

    Returns:
        The record of the best trial, with ``folder``.

    Raises:
        ConfigError: hyperopt or ray is missing, the space or an option is not allowed, another
            process is at it, or the data has changed since the search began.
        TrainingError: No trial has come to an end.
    """
    require("hyperopt", "tune", "tune")
    if tool not in TOOLS:
        raise ConfigError(f"--tool: got {tool!r}; allowed: {', '.join(TOOLS)}.")
    run_trials: Callable[[Search], None] = Search.one_by_one
    if tool == "ray":
        from recbole_freqd.jobs.tuning.ray_trials import check_ray

        run_trials = check_ray()
    if algo not in ALGORITHMS:
        raise ConfigError(f"--algo: got {algo!r}; allowed: {', '.join(ALGORITHMS)}.")
    if max_evals is not None and max_evals < 1:
        raise ConfigError(f"--max_evals: got {max_evals}; allowed: a whole number from 1.")
    space = Space(files, algo)
    space.check(config)
    check_validation(config, "tune")
    told = _identity(config, space, algo)
    if tool != "hyperopt":
        told["tool"] = tool
    names = trainer_names(config["trainer"]) or ["alone"]
    parts = ["hyper", config["dataset"], config["model"], *names, fingerprint(told)[:8]]
    home = folder / "-".join(parts)
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "search.lock", timeout=0):
            write_json(home / "search.json", told)
            started = Search(config, space, home, algo, objective or partial(_train, keep))
            return started.run(max_evals, run_trials)
    except Timeout:
        raise ConfigError(f"{home} is being searched by another process.") from None


def _identity(config: Any, space: Space, algo: str) -> dict[str, Any]:
    """What a search is: with another config, space or algorithm it is another one."""
    left_out, given = WHERE_IT_RUNS | {_MARK}, dict(config.external_config_dict)
    if isinstance(given.get(TEACHER), (dict, list)):
        given[TEACHER] = teacher_of(given[TEACHER])
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "config": {key: as_builtins(given[key]) for key in sorted(given) if key not in left_out},
        "space": space.text,
        "algo": algo,
        "seed": config["seed"],
        "versions": versions_of(config),
    }
