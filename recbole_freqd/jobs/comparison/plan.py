"""Runs many methods on many seeds, with one teacher for each seed, and keeps what they give."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Optional

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.identity import planned_identity
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.teacher import recipe_of
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.files import fingerprint
from recbole_freqd.core.locks import each_when_free
from recbole_freqd.jobs import lineup, rows
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.comparison.beside import (
    ALONE,
    CUT,
    INT8,
    NAMES,
    WARM,
    baselines,
    role_of,
    with_rows_beside,
)
from recbole_freqd.jobs.comparison.beside import TEACHER as TEACHER_CELL
from recbole_freqd.jobs.comparison.per_user import by_token, recording
from recbole_freqd.jobs.comparison.results import results_of, write_results
from recbole_freqd.jobs.comparison.significance import PerUser
from recbole_freqd.jobs.comparison.store import Cell, CellStore, check_shared_teacher
from recbole_freqd.jobs.fairness import config_of
from recbole_freqd.jobs.progress import Countdown, print_line
from recbole_freqd.jobs.provenance import say_other_commits
from recbole_freqd.teacher import find_teacher
from recbole_freqd.teacher.recipe import recipe_config

METRIC = "ndcg@10"
_OF_TEACHERS = {"teacher", "teacher_weights", *("panel_models", "panel_users", "panel_ease_items")}
Outcome = tuple[dict[str, Any], Optional[PerUser]]


def compare_runs(
    base: Any,
    methods: dict[str, list[str]],
    seeds: Sequence[int],
    folder: Path,
    *,
    frozen: Optional[dict[str, Any]] = None,
    say: Callable[[str], None] = print_line,
) -> dict[str, Any]:
    """Runs all unfinished cells, and writes ``results-<hash>`` as JSON, Markdown and picture.

    Args:
        base: A Config with the keys of all methods and the teacher.
        methods: From :func:`read_methods`.
        seeds: Everything runs once for each.
        folder: Holds the finished runs (``cells/``) and the results.
        frozen: Keys by ``teacher``, ``alone`` and method that override those of ``base``.
        say: Receives the lines.

    Returns:
        The results: see :func:`recbole_freqd.compare`.

    Raises:
        TrainingError: No student finished.
    """
    metric, store = metric_of(base), CellStore(folder / "cells", say)
    whats = [TEACHER_CELL, *baselines(base.model_class, say), *methods]
    plan = [cell_of(base, what, methods, seed, frozen or {}) for seed in seeds for what in whats]
    count, found = Countdown([cell.what for cell in plan], say), {}
    for cell in plan:  # before the first run, so that the user reads the reasons at once
        found[cell.name] = store.find(cell.name)
        if found[cell.name] is not None:
            count.skip(cell.what)
        else:
            store.say_why_anew(cell)
    kept = [record for record in found.values() if record is not None]
    say(f"{len(plan)} runs in {store.folder}, {len(kept)} of them finished already.")
    say_other_commits(kept, say)
    failures = _run_missing(plan, found, store, metric, frozen or {}, count, say)
    done = [cell for cell in plan if found[cell.name] is not None]
    by_what = {what: [cell for cell in done if cell.what == what] for what in whats}
    records = {what: [found[cell.name] for cell in cells] for what, cells in by_what.items()}
    if not any(records[what] for what in ("alone", *methods)):
        raise TrainingError(
            f"No run finished. The first error: {failures[0]['error']} Find all of them in "
            f"*.failed in {store.folder}."
        )
    own_teachers = [what for what in methods if _has_own_teacher(what, frozen or {})]
    apart = {"alone", *own_teachers}
    taught = [record for what, each in records.items() if what not in apart for record in each]
    check_shared_teacher(taught)
    users = {what: [store.users(cell) for cell in cells] for what, cells in by_what.items()}
    shown = with_rows_beside(records, own_teachers)  # type: ignore[arg-type]
    users = {what: users.get(what, [None] * len(each)) for what, each in shown.items()}
    configs = {cell.what: cell.config for cell in reversed(plan) if cell.what not in (CUT, WARM)}
    results = results_of(base, shown, users, configs, failures, seeds, metric, frozen)
    results["cells_folder"] = str(store.folder)
    write_results(results, folder / f"results-{fingerprint([cell.name for cell in plan])[:8]}", say)
    return results


def read_methods(names: Iterable[str]) -> dict[str, list[str]]:
    """The losses of each method, by its name in the registry's spelling.

    Args:
        names: Such as ``freqd``, or ``FreqD+FD``, which adds two losses.

        Raises:
            ConfigError: A name is unknown or given twice, or there is none.

    Example:
        >>> read_methods(["freqd", "FD + FreqD"])
        {'FreqD': ['FreqD'], 'FD+FreqD': ['FD', 'FreqD']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        losses = trainer_names([part.strip() for part in name.split("+")])
        if not losses:
            raise ConfigError(
                f"compare: got {name!r}; allowed: names of trainers, separated by commas, e.g. "
                "FreqD,FD,FreqD+FD. The comparison adds the student alone itself."
            )
        if set(losses) in map(set, found.values()):
            raise ConfigError(f"compare: got {'+'.join(losses)} twice; allowed: each name once.")
        found["+".join(losses)] = losses
    if not found:
        raise ConfigError("compare: got no method; allowed: e.g. FreqD,FD.")
    return found


def metric_of(base: Any) -> str:
    """The metric that ranks and tests: NDCG@10, or else ``valid_metric``.

    Raises:
        ConfigError: It has no value for a single user.
    """
    from recbole.evaluator.base_metric import TopkMetric
    from recbole.evaluator.register import metrics_dict

    computed = [f"{name}@{k}".lower() for name in base["metrics"] for k in base["topk"]]
    metric = METRIC if METRIC in computed else str(base["valid_metric"]).lower()
    kind = metrics_dict.get(metric.partition("@")[0])
    if kind is None or not issubclass(kind, TopkMetric) or "topk_result" in vars(kind):
        raise ConfigError(
            f"compare tests by NDCG@10, or else by valid_metric, user by user. It got {metric}, "
            f"which has no value for a single user. metrics and topk compute only "
            f"{', '.join(computed)}. Add NDCG to metrics and 10 to topk."
        )
    return metric


def cell_of(
    base: Any, what: str, methods: dict[str, list[str]], seed: int, frozen: dict[str, Any]
) -> Cell:
    """A run of the comparison, with its whole Config."""
    if what in (CUT, WARM):
        # No search tunes the cut, and older frozen configs have no keys for the other.
        keys = frozen.get(what, frozen.get(ALONE, {}))
        config = lineup.warm_config(base, seed, keys, frozen)
        identity = planned_identity(config)
        if what == CUT:
            identity["config"]["epochs"] = "0"
        return Cell(what, seed, config, identity)
    losses = methods.get(what, [])
    if what == "teacher":
        config = config_of(base, next(iter(methods.values())), seed, {}, frozen)
        recipe = recipe_of(config[TEACHER])
        own = planned_identity(config if recipe is None else recipe_config(config, recipe))
        return Cell(what, seed, config, own)
    config = config_of(base, losses, seed, frozen.get(what, {}), frozen)
    return Cell(what, seed, config, planned_identity(config), _has_own_teacher(what, frozen))


def _has_own_teacher(what: str, frozen: dict[str, Any]) -> bool:
    """Whether a method's keys name their own teacher."""
    return bool(_OF_TEACHERS & set(frozen.get(what, {})))


def _run_missing(
    plan: list[Cell],
    found: dict[str, Optional[dict[str, Any]]],
    store: CellStore,
    metric: str,
    frozen: dict[str, Any],
    count: Countdown,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Runs the missing cells, adds them to ``found``, and returns what, seed and error of failures.

    A failed run does not stop the others. Cells that another process is running come last; if such
    a cell is a teacher, so do all that it teaches.
    """
    failures: list[dict[str, Any]] = []

    def attempt(cell: Cell, wait: bool) -> bool:
        if cell.what not in ("teacher", "alone") and cell.seed in untaught():
            return False
        if wait:
            say(f"{cell.what}, seed {cell.seed}: waiting for another process that runs it.")
        start = perf_counter()

        def run() -> dict[str, Any]:
            row, users = run_cell(cell, metric, _hindrance(cell, failures, frozen))
            return store.record_of(cell, {**row, "seconds": perf_counter() - start}, users)

        outcome = store.attempt(cell.name, run, wait=wait, device=cell.config["device"])
        if outcome is None:
            return False
        found[cell.name] = outcome.record
        if not outcome.fresh:
            count.skip(cell.what)
            return True
        if outcome.record is None:
            failures.append({"what": cell.what, "seed": cell.seed, "error": outcome.error})
            words = f"failed: {outcome.error}"
        else:
            words = f"test {metric} {outcome.record['test'].get(metric, 'none')}"
        words = f"{cell.what}, seed {cell.seed}: {words}"
        count.done(cell.what, words, perf_counter() - start)
        return True

    def untaught() -> set[int]:
        failed = [each["seed"] for each in failures if each["what"] == "teacher"]
        teachers = [cell for cell in plan if cell.what == "teacher" and found[cell.name] is None]
        return {cell.seed for cell in teachers}.difference(failed)

    each_when_free([cell for cell in plan if found[cell.name] is None], attempt)
    return failures


def _hindrance(cell: Cell, failures: list[dict[str, Any]], frozen: dict[str, Any]) -> Optional[str]:
    """Says why a cell cannot run: all its trials failed, or its teacher failed."""
    untuned = (frozen.get("tuned") or {}).get("failed", {})
    if cell.what in untuned and cell.what not in frozen:
        return f"No trial of {cell.what} finished: {untuned[cell.what]['error']}"
    for failed in failures:
        if cell.what != "alone" and (failed["what"], failed["seed"]) == ("teacher", cell.seed):
            return f"The teacher of seed {cell.seed} failed: {failed['error']}"
    return None


def run_cell(cell: Cell, metric: str, hindrance: Optional[str] = None) -> Outcome:
    """Runs a cell; returns the record to keep, and every user's metric.

    Raises:
        TrainingError: ``hindrance`` says why it cannot run.
        ConfigError: The split has no test part.
    """
    if hindrance is not None:
        raise TrainingError(hindrance)
    if cell.what == "teacher":
        return _run_teacher(cell.config, metric)
    with recording() as users:
        run = runs.run(cell.config, untrained=cell.what == CUT)
    if metric not in (run.test_result or {}):
        raise ConfigError(
            f"{cell.what} has no test {metric}: the split has no test part. Change eval_args."
        )
    teacher = run.trainer.teacher if trainer_names(cell.config["trainer"]) else None
    row = {
        **rows.student_row(role_of(cell.what), NAMES.get(cell.what, cell.what), run).values,
        "epochs": len(run.trainer.train_loss_dict),
        "teacher": teacher and teacher.checkpoint,
        "teacher_hash": teacher and _hash_of(teacher),
    }
    if cell.own_teacher:
        row["beside"] = _teacher_rows(run.data, teacher)
    return row, by_token(run.data[2], users[metric])


def _run_teacher(config: Any, metric: str) -> Outcome:
    """Trains the teacher of a seed, or takes it as it is; evaluates it and its members."""
    data = runs.read_data(config)
    teacher = find_teacher(config, data[0], data[1])
    with recording() as users:  # a team comes after its members, so the last ones are its own
        whole, *members = _teacher_rows(data, teacher)
    int8 = rows.int8_row(data, teacher)
    row = {
        **whole,
        "teacher": teacher.checkpoint,
        "beside": [
            *members,
            *([] if isinstance(int8, str) else [{**int8.values, "epochs": None}]),
        ],
        "left_out": {NAMES[INT8]: int8} if isinstance(int8, str) else {},
    }
    return row, by_token(data[2], users[metric]) if metric in whole["test"] else None


def _teacher_rows(data: rows.Loaders, teacher: Any) -> list[dict[str, Any]]:
    """Values of the rows of the teacher, or of the team and its members."""
    hashes = [_hash_of(teacher), *(member.teacher.weights() for member in teacher.members)]
    return [
        {**row.values, "epochs": None, "teacher_hash": hashed}
        for row, hashed in zip(rows.teacher_rows(data, teacher), hashes)
    ]


def _hash_of(teacher: Any) -> str:
    """A hash of the unfiltered teacher: parameters, and weights in a team."""
    found = [
        (member.name, member.weight, member.teacher.weights())
        for member in teacher.members
        if member.weight > 0
    ]
    return found[0][2] if len(found) == 1 else fingerprint(found)
