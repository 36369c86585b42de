"""`recbole_freqd.compare`: methods and the student alone on the same teachers and splits."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs.progress import print_line

SEEDS = (2020, 2021, 2022, 2023, 2024)


def compare(
    methods: Iterable[str],
    model: Optional[str] = None,
    dataset: Optional[str] = None,
    config_file_list: Optional[list[str]] = None,
    config_dict: Optional[dict[str, Any]] = None,
    *,
    seeds: Sequence[int] = SEEDS,
    tune: int = 0,
    tune_seeds: Optional[Sequence[int]] = None,
    tune_only: bool = False,
    keep_teacher: bool = False,
    search: Optional[str] = None,
    frozen: Optional[str] = None,
    rows: Optional[str] = None,
    output_dir: str = "freqd_runs",
    say: Callable[[str], None] = print_line,
) -> dict[str, Any]:
    """Compares distillation methods and the student alone under equal conditions.

    Each seed has one teacher and one split. Every method trains a student on them. Beside these
    stand the baselines that they have to beat: the teacher in int8 and cut to the student's size,
    and the student alone, cold and warm. Finished runs are kept as files. Call it again with the
    same arguments to continue an interrupted comparison: it reuses these files. A run that was
    interrupted itself continues with ``resume: true``. A run or trial that fails does not stop the
    others; the next call tries it again.

    Args:
        methods: Names of trainers; ``FreqD+FD`` adds both losses.
        model, dataset, config_file_list, config_dict: As of
            :func:`recbole_freqd.run_recbole_freqd`, with a ``teacher`` and the keys of any of the
            methods. The comparison sets ``trainer`` and ``seed`` itself.
        seeds: Everything runs once for each.
        tune: Trials (Latin hypercube) for each method, the student alone, cold and warm, and the
            teacher, on validation data only; 0: no search. See ``properties/search/``.
        tune_seeds: The seeds of each trial; None: the first two of ``seeds``. A choice on one seed
            misleads on small data.
        tune_only: Stop when the configs are frozen, before any test metric is computed.
        keep_teacher: Do not tune the teacher; take the recipe as it is.
        search: A YAML file with your search spaces.
        frozen: A YAML file with the keys of the teacher, the student alone and every method, as
            ``tune`` writes it, for the same dataset, student and teacher. Without a section
            ``warm`` the warm-started student alone uses the keys of the cold one.
            rows: A YAML file with more students: names, each with a ``trainer`` and its own keys. A
                key may name another teacher, which then has rows, too. Not with ``tune``.
            output_dir: Its folder ``compare-<dataset>-<model>`` holds everything.
            say: Receives the lines of progress and the table.

    Returns:
        The content of ``results-<hash>.json``: ``table`` (a row each: mean and sd of ``valid`` and
        ``test``, ``rank``, ``share``, ``gap_closed``, ``against`` the reference with ``p_holm``,
        ``epochs``, ``seconds_per_epoch``, ``seconds_all_in``, ``bytes_per_entity``, ``coverage``,
        ``gini``, and for a team ``weights``), ``cells`` (every run), ``common`` and ``configs``
        (the frozen configs), ``tuning``, ``reference``, ``metric``, ``seeds``, ``commits``,
        ``left_out`` (impossible baselines, and why), and ``failed``: a ``what``, ``seed`` and
        ``error`` for each run that failed (the method then has no rank).
        With ``tune_only`` the frozen keys.

    Raises:
        FreqDError: Methods, seeds, config or files are wrong, or no run finished.

    Example:
        >>> results = compare(["FreqD", "FD"], "BPR", "ml-100k", config_dict={
        ...     "embedding_size": 8, "teacher": {"model": "BPR", "embedding_size": 64}},
        ...     seeds=[2020, 2021], tune=10)  # doctest: +SKIP
    """
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.config.reading import read_given
    from recbole_freqd.jobs.comparison import plan
    from recbole_freqd.jobs.fairness import check_seeds
    from recbole_freqd.jobs.tuning import budget, space
    from recbole_freqd.jobs.tuning.frozen import read_frozen
    from recbole_freqd.jobs.validation import check_test
    from recbole_freqd.teacher.find import check_trajectory

    named, own_keys = _read_students(methods, rows)
    seeds = check_seeds(seeds, "--seeds")
    _check_tuning(tune, tune_only, frozen, tune_seeds, keep_teacher, search)
    if tune and rows is not None:
        raise ConfigError(
            "--rows does not go with --tune: rows bring their own keys. Leave one of them out."
        )
    tune_seeds = check_seeds(seeds[:2] if tune_seeds is None else tune_seeds, "tune_seeds")
    own = space.read_own(search)
    losses = list(dict.fromkeys(loss for parts in named.values() for loss in parts))
    given = read_given(config_file_list, config_dict)
    _say_what_is_not_used(given, say)
    base = make_config(model, dataset, None, given.with_keys({"trainer": losses}))
    metric = plan.metric_of(base)
    if not tune_only:
        check_test(base, "compare", metric)
    chosen = frozen and read_frozen(frozen, named, base, say)
    check_trajectory(losses, base["teacher"])  # before hours of other runs
    folder = Path(output_dir) / f"compare-{base['dataset']}-{base['model']}"
    if tune:
        chosen = budget.tune(
            base, named, tune, tune_seeds, folder, own=own, keep_teacher=keep_teacher, say=say
        )
    if tune_only:
        return chosen or {}
    chosen = {**(chosen or {}), **own_keys}
    return plan.compare_runs(base, named, seeds, folder, frozen=chosen or None, say=say)


def _read_students(
    methods: Iterable[str], rows: Optional[str]
) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Reads the losses of methods and of a file's rows, by name; and the keys of its rows."""
    from recbole_freqd.jobs.comparison.beside import read_rows
    from recbole_freqd.jobs.comparison.plan import read_methods

    named = read_methods(methods)
    if rows is None:
        return named, {}
    more, own_keys = read_rows(rows)
    for name in set(named) & set(more):
        raise ConfigError(f"--rows {rows}: a method has the name {name}. Change it.")
    return {**named, **more}, own_keys


def _check_tuning(
    tune: int,
    tune_only: bool,
    frozen: Optional[str],
    tune_seeds: Optional[Sequence[int]],
    keep_teacher: bool,
    search: Optional[str],
) -> None:
    """Raises ConfigError if the arguments of a search do not go together."""
    if tune < 0 or (tune_only and not tune) or (tune and frozen):
        raise ConfigError(
            f"--tune {tune}{' --tune_only' * tune_only}{f' --frozen {frozen}' if frozen else ''}; "
            "allowed: either a number of trials from 1, or frozen configs. --tune_only needs "
            "--tune."
        )
    given = {
        "tune_seeds": tune_seeds is not None,
        "keep_teacher": keep_teacher,
        "search": search is not None,
    }
    idle = [f"--{name}" for name in given if given[name] and not tune]
    if idle:
        raise ConfigError(
            f"{', '.join(idle)}: no effect without --tune. Add --tune N, or leave it out."
        )


def _say_what_is_not_used(given: dict[str, Any], say: Callable[[str], None]) -> None:
    """Says a line if the config names a trainer or a seed, as a single run's config does."""
    idle = [f"{key}: {given[key]}" for key in ("trainer", "seed") if given.get(key) is not None]
    if idle:
        say(
            f"The comparison ignores of the config: {', '.join(idle)}. It has its own methods, and "
            "takes its seeds from --seeds."
        )
