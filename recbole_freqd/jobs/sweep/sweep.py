"""``sweep``: one key over several values and seeds, on validation only, and its figure."""

import logging
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import pandas as pd

from recbole_freqd import __version__
from recbole_freqd.config import make
from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.identity import planned_identity
from recbole_freqd.config.make import keys_known_to
from recbole_freqd.config.names import TEACHER
from recbole_freqd.core.errors import ConfigError, TrainingError, require
from recbole_freqd.core.files import fingerprint, write_json, write_text
from recbole_freqd.core.locks import outcomes_when_free
from recbole_freqd.core.schema import method_keys
from recbole_freqd.jobs.fairness import check_varied
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.store import RunStore
from recbole_freqd.jobs.tables import as_table
from recbole_freqd.jobs.validation import check_validation, validation_score

_SYMBOLS = {"alpha": "α", "beta": "β"}
_MOST_VALUES = 1000
logger = logging.getLogger(__name__)


def read_sweep(text: str) -> tuple[str, list[str]]:
    """``freqd_alpha=0,0.1,...,1`` as the key and its values; ``...`` goes on in equal steps.

    Example:
        >>> read_sweep("freqd_alpha=0,0.25,...,1")
        ('freqd_alpha', ['0', '0.25', '0.5', '0.75', '1'])
        >>> read_sweep("freqd_filter=linear,quadratic")
        ('freqd_filter', ['linear', 'quadratic'])

    Raises:
        ConfigError: It is not of this form.
    """
    key, _, rest = text.partition("=")
    values: list[str] = []
    given = [value.strip() for value in rest.split(",")]
    for place, value in enumerate(given):
        if value not in ("...", "…"):
            values.append(value)
            continue
        try:
            first, second, last = (float(given[place + step]) for step in (-2, -1, 1))
            steps = (last - second) / (second - first)
        except (ValueError, IndexError, ZeroDivisionError):
            raise _unreadable(text) from None
        if place < 2 or not 0 < steps < _MOST_VALUES or abs(steps - round(steps)) > 1e-6:
            raise _unreadable(text)
        between = range(1, round(steps))
        values += [f"{round(second + step * (second - first), 10):g}" for step in between]
    if not key.strip() or not all(values) or len(set(values)) < len(values):
        raise _unreadable(text)
    return key.strip(), values


def _unreadable(text: str) -> ConfigError:
    return ConfigError(
        f"sweep: got {text!r}; allowed: a key and different values, e.g. "
        "freqd_alpha=0,0.1,...,1 (two values before the dots, one that the steps meet after them)."
    )


def check_key(key: str, given: Sequence[str]) -> None:
    """Raises ConfigError where a sweep, or another key of the command line, fixes a key.

    Args:
        key: That is swept.
        given: ``--key=value`` of the command line.
    """
    check_varied("sweep", key)
    for word in given:
        name = word[2:].partition("=")[0]
        if name == key or key.startswith(f"{name}.") or name.startswith(f"{key}."):
            raise ConfigError(f"--{name}=... fixes what sweep runs: {key}. Remove one of them.")


def sweep(
    key: str,
    values: Sequence[str],
    seeds: Sequence[int],
    make_config: Callable[[dict[str, str]], Any],
    folder: Path,
) -> tuple[Path, list[dict[str, Any]]]:
    """Runs what is not done yet, then draws the validation metric against the key.

    Nothing is tested: a parameter that is chosen by such a picture must not have seen the test
    split. What is finished is kept, one file a run, under a hash of its config and the version; so
    a sweep that was cut off, or gets more values or seeds, goes on, and several processes may
    share it. A run that fails stops none of the others; its value is left out of the figure, and
    the next sweep tries it again.

    Args:
        key: A config key. values: As the command line gives them. seeds: For each value.
        make_config: From keys of the command line to a Config.
        folder: Runs and figures get a folder ``sweep-<dataset>-<key>`` of their own in it.

    Returns:
        The path of the figure (PNG), and ``what``, ``seed`` and ``error`` of each run that failed.

    Raises:
        ConfigError: A value is not allowed.
        TrainingError: No run of any value could be finished on all seeds.
    """
    from recbole_freqd.jobs.analysis import figures as spectrum_plots

    require("matplotlib", "plot", "sweep")
    configs = {  # all of them first: a value that is not allowed ends it before the work
        (value, seed): make_config({key: value, "seed": str(seed)})
        for value in values
        for seed in seeds
    }
    _check_different(key, configs)
    some = next(iter(configs.values()))
    known = keys_known_to(some).union(*map(method_keys, trainer_names(some["trainer"])))
    if key not in known and not key.startswith(f"{TEACHER}."):
        raise ConfigError(f"sweep: nothing in this run reads the key {key!r}.")
    check_validation(some, "sweep")
    home = folder / f"sweep-{some['dataset']}-{key}"
    alone = []
    if trainer_names(some["trainer"]):
        without = {place: make.alone_config(config) for place, config in configs.items()}
        # A line beside the sweep, unless the key is one of the student's own: then it is no line.
        identities = (planned_identity(config) for config in without.values())
        if len({fingerprint(identity) for identity in identities}) == len(seeds):
            alone = [("alone", without[values[0], seed]) for seed in seeds]
    taught = [(f"{key}={value}", config) for (value, _), config in configs.items()]
    store = RunStore(home / "cells")
    done = outcomes_when_free([*taught, *alone], lambda run, wait: _cell(*run, store, wait))
    cells = [
        {**cell, "value": _value(config, key, value)}
        for cell, ((value, _), config) in zip(done, configs.items())
    ]
    found = _summary(key, some, seeds, cells, done[len(cells) :])
    print_line(as_table(_lines(found), left=1))
    write_json(home / "sweep.json", found)
    write_text(home / "sweep.csv", _csv(found))
    if all(point["mean"] is None for point in found["points"]):
        raise TrainingError(
            f"No value of {key} could be run on all seeds; the first error: "
            f"{found['failed'][0]['error']} Tracebacks: {home / 'cells'}/*.failed."
        )
    figure = spectrum_plots.save(spectrum_plots.sweep_figure(found), home, "sweep")[0]
    return figure, found["failed"]


def _check_different(key: str, configs: dict[tuple[str, int], Any]) -> None:
    """Raises ConfigError where two values are one and the same run: then nobody reads the key."""
    seen: dict[str, str] = {}
    for (value, seed), config in configs.items():
        same = seen.setdefault(fingerprint(planned_identity(config)), value)
        if same != value:
            raise ConfigError(
                f"sweep: {key}={same} and {key}={value} are one and the same run (seed {seed}): "
                "the values are equal, or nothing in this run reads the key. Change the values or "
                "the key."
            )


def _cell(what: str, config: Any, store: RunStore, wait: bool) -> Optional[dict[str, Any]]:
    """The validation metrics of a run, from its file where it was done before, or its error.

    None: another process is at it.
    """
    identity = planned_identity(config)  # with hashes of the data: changed files are run anew
    which, name = {"what": what, "seed": config["seed"]}, fingerprint(identity)
    outcome = store.attempt(name, lambda: {**_run(config), "config": identity["config"]}, wait=wait)
    if outcome is None:
        return None
    if outcome.record is None:
        logger.warning("%s, seed %s, failed: %s", what, config["seed"], outcome.error)
        return {**which, "error": outcome.error}
    if not outcome.fresh:
        logger.info("Done before: %s", store.file(name))
    return {**outcome.record, **which}


def _run(config: Any) -> dict[str, Any]:
    from recbole_freqd.jobs import run as runs

    run = runs.run(config, saved=False, test=False)
    validation_score(run)
    teacher: dict[str, float] = {}
    if trainer_names(config["trainer"]):
        _, (teacher,) = runs.evaluate_teacher(run, 1)
    return {
        "valid": run.best_valid_result,
        "teacher": teacher,
        "seconds_per_epoch": run.seconds_per_epoch,
    }


def _value(config: Any, key: str, text: str) -> Any:
    """A number where it is one, also of a nested key like ``teacher.embedding_size``."""
    if key in config:
        return _plain(config[key])
    try:
        return float(text)
    except ValueError:
        return text


def _summary(
    key: str,
    config: Any,
    seeds: Sequence[int],
    cells: list[dict[str, Any]],
    alone: list[dict[str, Any]],
) -> dict[str, Any]:
    metric = config["valid_metric"].lower()
    values = list(dict.fromkeys(cell["value"] for cell in cells))
    points = []
    for value in values:
        own = [_score(cell, metric) for cell in cells if cell["value"] == value]
        points.append({"value": value, **_mean_sd(own)})
    lone = [_score(cell, metric) for cell in alone]
    taught = {(each["seed"], each["teacher"].get(metric)) for each in cells if "teacher" in each}
    # One teacher for each seed is a line beside the sweep; teachers that the key changes are none.
    same = len(taught) == len(seeds) and all(value is not None for _, value in taught)
    known = [value for _, value in sorted(taught)] if same else []
    names = trainer_names(config["trainer"])
    symbol = _SYMBOLS.get(key.rpartition("_")[2])
    return {
        "version": __version__,
        "dataset": config["dataset"],
        "parameter": key,
        "parameter_label": f"{symbol} ({key})" if symbol else key,
        "label": f"{config['model']} with {' + '.join(names)}" if names else config["model"],
        "metric": metric,
        "seeds": list(seeds),
        "points": points,
        "teacher": _mean_sd(known) if known else None,
        "alone": _mean_sd(lone) if lone and None not in lone else None,
        "failed": [
            {key: cell[key] for key in ("what", "seed", "error")}
            for cell in (*cells, *alone)
            if "error" in cell
        ],
    }


def _score(cell: dict[str, Any], metric: str) -> Optional[float]:
    return None if "error" in cell else cell["valid"][metric]


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else str(value)  # no lists: they are keys


def _mean_sd(values: Sequence[Optional[float]]) -> dict[str, Any]:
    """Mean, sample standard deviation (None of one value) and the values; None where one failed."""
    done = [value for value in values if value is not None]
    whole = len(done) == len(values)
    sd = statistics.stdev(done) if whole and len(done) > 1 else None
    mean = statistics.fmean(done) if whole else None
    return {"mean": mean, "sd": sd, "values": list(values)}


def _lines(found: dict[str, Any]) -> list[list[str]]:
    """The points as a table, head first."""
    lines = [[found["parameter"], f"valid {found['metric']}", "sd"]]
    lines += [[str(point["value"]), *map(_word, _spread(point))] for point in found["points"]]
    ends = {"teacher": found["teacher"], "student alone": found["alone"]}
    return lines + [[who, *map(_word, _spread(end))] for who, end in ends.items() if end]


def _spread(point: dict[str, Any]) -> tuple[Any, Any]:
    return ("failed" if point["mean"] is None else point["mean"]), point["sd"]


def _word(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value or "")


def _csv(found: dict[str, Any]) -> str:
    rows = [
        [point["value"], seed, "failed" if value is None else value]
        for point in found["points"]
        for seed, value in zip(found["seeds"], point["values"])
    ]
    table = pd.DataFrame(rows, columns=[found["parameter"], "seed", f"valid {found['metric']}"])
    return table.to_csv(index=False, lineterminator="\n")
