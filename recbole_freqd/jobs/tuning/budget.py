"""Searches with the same budget for everything, on validation data only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Optional

from recbole_freqd.config.identity import planned_identity
from recbole_freqd.config.make import keys_known_to
from recbole_freqd.config.names import TEACHER
from recbole_freqd.config.reading import asking_recbole
from recbole_freqd.config.teacher import recipe_of
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.files import fingerprint, write_yaml
from recbole_freqd.core.locks import outcomes_when_free
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.fairness import config_of, equal_for_all
from recbole_freqd.jobs.lineup import warm_config, why_not_warm
from recbole_freqd.jobs.progress import Countdown, print_line, save_or_say
from recbole_freqd.jobs.provenance import say_other_commits
from recbole_freqd.jobs.store import Outcome, RunStore, write_lines
from recbole_freqd.jobs.tuning.frozen import made_for, refuse_fixed
from recbole_freqd.jobs.tuning.space import (
    ALONE,
    WARM,
    Space,
    draw,
    refuse_fractions,
    space_of,
    teacher_space,
)
from recbole_freqd.jobs.validation import check_validation, validation_score
from recbole_freqd.teacher.recipe import is_closed_form, recipe_config

_FAILED = "trials"  # the folder of the tracebacks


def tune(
    base: Any,
    methods: dict[str, list[str]],
    trials: int,
    seeds: Sequence[int],
    folder: Path,
    *,
    own: Optional[dict[str, Any]] = None,
    keep_teacher: bool = False,
    say: Callable[[str], None] = print_line,
) -> dict[str, Any]:
    """Searches for teacher, student alone and every method, with the same number of trials each.

    So it does for the student alone from the warm start, where that can be, in the space of the
    cold one. A trial is judged by the mean over ``seeds`` of ``valid_metric``. The teacher comes
    first, and the methods are taught by the best. Test data is not evaluated. Finished trials are
    kept; one that was interrupted, or failed for another reason than numbers that are none, starts
    again.

    Args:
        base: A Config with the keys of all methods and the teacher.
        methods: From :func:`recbole_freqd.jobs.comparison.plan.read_methods`.
        trials: Of each.
        seeds: Every trial is run with each.
        folder: Of ``trials.jsonl`` (a line each), ``trials/`` (a file each, or the traceback of one
            that failed) and the frozen configs.
        own: The user's search spaces, from :func:`recbole_freqd.jobs.tuning.space.read_own`.
        keep_teacher: Take the recipe as it is. A checkpoint always is.
        say: Where lines go.

    Returns:
        ``tuned`` (how it was done, and under ``failed`` what of it failed) and the chosen keys by
        ``teacher``, ``alone``, ``warm`` and method, as :func:`.comparison.plan.compare_runs` takes
        them; none for what no trial of could be finished. They are in a YAML file as well.

    Raises:
        ConfigError: A search space, or a value drawn of it, is not as it should be.
        TrainingError: No trial of the teacher could be finished, or none of all others.
    """
    spaces = _spaces(base, methods, own or {}, keep_teacher)
    _check_draws(base, methods, spaces, trials)
    check_validation(base, "--tune")
    kinds = [what for what in spaces for _ in range(trials * len(seeds))]
    frozen: dict[str, Any] = {
        "tuned": {
            "trials": trials,
            "seeds": list(seeds),
            **made_for(base),
            "tuned": list(spaces),
            "spaces": {
                what: {key: rule.as_yaml() for key, rule in space.items()}
                for what, space in spaces.items()
            },
        }
    }
    store = RunStore(folder / "trials")
    shared = _Search(base, methods, store, Countdown(kinds, say), frozen)
    for what, space in spaces.items():
        every = shared.every(what, space, trials, seeds)
        save_or_say(partial(write_lines, folder / "trials.jsonl", shared.outcomes), say)
        best, failed = _best(every, base["valid_metric_bigger"]), _failed(every)
        if best is not None:
            frozen[what] = draw(space, best)
        if failed:
            frozen["tuned"].setdefault("failed", {})[what] = failed
        if what == "teacher" and best is None:  # who teaches then?
            raise _nothing("the teacher", every, folder)
    if not set(spaces) & set(frozen) - {"teacher"}:
        raise _nothing("anything", every, folder)
    say_other_commits(shared.taken, say)
    _freeze(frozen, folder, say)
    return frozen


def _nothing(what: str, every: list[list[dict[str, Any]]], folder: Path) -> TrainingError:
    """Makes the error for a search without a finished trial."""
    unusual = any(one["failed"] for found in every for one in found)
    hint = (
        f"Tracebacks: {folder / _FAILED}/*.failed." if unusual else "Change ranges with --search."
    )
    return TrainingError(
        f"None of the trials of {what} could be finished; the last one: "
        f"{_failed(every)['error']} {hint}"
    )


def _best(every: list[list[dict[str, Any]]], bigger: bool) -> Optional[int]:
    """The trial with the best mean over seeds, of those finished on all; None: there is none.

    Args:
        every: The outcomes of each trial, one for each seed.
        bigger: Whether a bigger score is better.
    """
    means = {
        trial: sum(one["score"] for one in found) / len(found)
        for trial, found in enumerate(every)
        if all(one["score"] is not None for one in found)
    }
    return (max if bigger else min)(means, key=lambda trial: means[trial], default=None)


def _failed(every: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """How many runs of a search failed, and why the last; empty where that is nothing unusual.

    A training that breaks down on its numbers is a trial like others, unless all of them do.
    """
    runs_of_it = [one for found in every for one in found if one["score"] is None]
    unusual = [one for one in runs_of_it if one["failed"]]
    if not unusual and any(all(one["score"] is not None for one in found) for found in every):
        return {}
    counted = unusual or runs_of_it
    return {"runs": len(counted), "error": counted[-1]["error"]}


def _spaces(
    base: Any, methods: dict[str, list[str]], own: dict[str, Any], keep_teacher: bool
) -> dict[str, Space]:
    """What is searched, by what is tuned; the teacher first."""
    spaces: dict[str, Space] = {}
    config = config_of(base, next(iter(methods.values())), base["seed"], {}, {})
    teacher = recipe_of(config[TEACHER])
    if teacher is not None:
        recipe = recipe_config(config, teacher)
        spaces["teacher"] = teacher_space(is_closed_form(recipe), own, recipe["model"])
        if keep_teacher or not spaces["teacher"]:
            del spaces["teacher"]
        else:
            refuse_fractions(spaces["teacher"], recipe.internal_config_dict, "teacher")
    known = keys_known_to(base)
    equal = equal_for_all(base.model_class)
    plain: dict[str, list[str]] = {ALONE: [], WARM: []}
    if why_not_warm(base.model_class):
        del plain[WARM]
    for what, losses in {**plain, **methods}.items():
        spaces[what] = space_of(losses, own, base["model"])
        for key in spaces[what]:
            if key in equal:
                raise ConfigError(
                    f"Search space of {what}: {key} cannot be searched: it is the same for "
                    "everything that is compared. Set it in the config."
                )
            if key not in known:
                raise ConfigError(
                    f"Search space of {what}: {base['model']} has no key {key!r}. Correct it in "
                    "the file that --search names."
                )
        refuse_fractions(spaces[what], base.internal_config_dict, what)
    for what, space in spaces.items():
        for key in space:
            takes_it_out = f"`{key}: null` in a file given with --search takes it out"
            refuse_fixed(base, what, [key], f"--tune searches for {what} ({takes_it_out})")
    return spaces


def _check_draws(
    base: Any, methods: dict[str, list[str]], spaces: dict[str, Space], trials: int
) -> None:
    """Makes the Config of every trial (10 ms each): a value is refused before the first one.

    Raises:
        ConfigError: It is.
    """
    for what, space in spaces.items():
        for keys in (draw(space, trial) for trial in range(trials)):
            try:
                with asking_recbole(keys):
                    _config(base, what, methods, keys, base["seed"], {})
            except ConfigError as error:
                raise ConfigError(
                    f"Search space of {what}, to be corrected in the file that --search names: "
                    f"{error}"
                ) from error


@dataclass
class _Search:
    """What all trials of a search share.

    Attributes:
        base: A Config with the keys of all methods and the teacher.
        methods: Their losses, by name.
        store: Where trials are kept.
        count: What is still to be run.
        frozen: The chosen keys so far; the teacher's are those by which the methods are taught.
        taken: Trials that were finished before.
        outcomes: All trials so far.
    """

    base: Any
    methods: dict[str, list[str]]
    store: RunStore
    count: Countdown
    frozen: dict[str, Any]
    taken: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def every(
        self, what: str, space: Space, trials: int, seeds: Sequence[int]
    ) -> list[list[dict[str, Any]]]:
        """The outcomes of each trial of a kind, one for each seed."""
        todo = [
            {"what": what, "trial": trial, "seed": seed, "keys": draw(space, trial)}
            for trial in range(trials)
            for seed in seeds
        ]
        found = outcomes_when_free(todo, self._trial)
        return [found[start : start + len(seeds)] for start in range(0, len(found), len(seeds))]

    def _trial(self, trial: dict[str, Any], wait: bool) -> Optional[dict[str, Any]]:
        """A trial: run, or taken where it is finished; None: another process is at it."""
        what, seed, keys = trial["what"], trial["seed"], trial["keys"]
        start, name = perf_counter(), f"{what}-{trial['trial']}-{seed}"
        try:
            config = _config(self.base, what, self.methods, keys, seed, self.frozen)
            name = fingerprint(planned_identity(config, metrics=False))
        except Exception as error:  # whatever it is, the other trials are not to wait for it
            outcome: Optional[Outcome] = Outcome(None, self.store.fail(name, error))
        else:
            outcome = self.store.attempt(
                name, lambda: _run(config, trial, name), wait=wait, device=config["device"]
            )
        if outcome is None:
            return None
        found = {**trial, "failed": outcome.record is None, **(outcome.record or {})}
        if outcome.record is None:
            found.update(id=name, score=None, error=outcome.error)
        self.outcomes.append(found)
        if outcome.fresh:
            self._say_done(found, perf_counter() - start)
        else:
            self.count.skip(what)
            self.taken.append(found)
        return found

    def _say_done(self, found: dict[str, Any], seconds: float) -> None:
        metric = str(self.base["valid_metric"]).lower()
        drawn = ", ".join(f"{key} {value}" for key, value in found["keys"].items())
        score, what = found["score"], found["what"]
        words = f"failed: {found['error']}" if score is None else f"valid {metric} {score:.4f}"
        text = f"{what}, trial {found['trial']}, seed {found['seed']}: {words} with {drawn}"
        self.count.done(what, text, seconds)


def _config(
    base: Any,
    what: str,
    methods: dict[str, list[str]],
    keys: dict[str, Any],
    seed: int,
    frozen: dict[str, Any],
) -> Any:
    if what == WARM:
        return warm_config(base, seed, keys, frozen)
    if what != "teacher":
        return config_of(base, methods.get(what, []), seed, keys, frozen)
    student = config_of(base, next(iter(methods.values())), seed, {}, {"teacher": keys})
    return recipe_config(student, student[TEACHER])


def _run(config: Any, trial: dict[str, Any], name: str) -> dict[str, Any]:
    """What validation says of a Config; a training that breaks down has no score.

    The models are not saved, and the test split is not evaluated.
    """
    start = perf_counter()
    return {**trial, "id": name, **_validate(config), "seconds": perf_counter() - start}


def _validate(config: Any) -> dict[str, Any]:
    try:
        run = runs.run(config, saved=False, test=False)
        score = validation_score(run)
    except TrainingError as error:
        return {"score": None, "error": str(error)}
    return {
        "score": score,
        "valid": run.best_valid_result,
        "epochs": len(run.trainer.train_loss_dict),
        "seconds_per_epoch": run.seconds_per_epoch,
    }


def _freeze(frozen: dict[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    """Writes the chosen keys to a file of their own."""
    path = folder / f"frozen-{fingerprint(frozen)[:8]}.yaml"
    taken_by = "`compare ... --frozen` with this file takes the configs."
    head = f"Chosen on validation data; {taken_by}"
    save_or_say(partial(write_yaml, path, head, frozen, default_flow_style=None), say, str(frozen))
    say(f"The chosen configs are frozen in {path}")
