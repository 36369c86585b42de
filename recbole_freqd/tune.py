"""Random search with the same budget for everything, on validation data only."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Optional

from recbole_freqd import runs, search
from recbole_freqd.checkpoint import fingerprint
from recbole_freqd.comparison import config_of
from recbole_freqd.config import CHECKPOINT, TEACHER, keys_known_to
from recbole_freqd.errors import ConfigError, TrainingError
from recbole_freqd.identity import planned_identity
from recbole_freqd.progress import Countdown
from recbole_freqd.search import Space
from recbole_freqd.teacher.recipe import is_closed_form, recipe_config
from recbole_freqd.trials import TrialLog, in_words
from recbole_freqd.yaml_files import read_yaml, write_yaml


def tune(
    base: Any,
    methods: dict[str, list[str]],
    trials: int,
    seeds: Sequence[int],
    folder: Path,
    *,
    own: Optional[dict[str, Any]] = None,
    keep_teacher: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Searches for the teacher, the student alone and every method, the same number of trials each.

    A trial is judged by the mean over ``seeds`` of ``valid_metric``. The teacher comes first, and
    the methods are taught by the best. Test data is not evaluated. Finished trials are kept; one
    that was interrupted starts again.

    Args:
        base: A Config with the keys of all methods and the teacher.
        methods: From :func:`recbole_freqd.comparison.read_methods`.
        trials: Of each.
        seeds: Every trial is run with each.
        folder: Of ``trials.jsonl`` and of the frozen configs.
        own: The user's search spaces, from :func:`recbole_freqd.search.read_own`.
        keep_teacher: Take the recipe as it is. A checkpoint always is.
        say: Where lines go.

    Returns:
        ``tuned`` (how it was done) and the chosen keys by ``teacher``, ``alone`` and method, as
        :func:`recbole_freqd.comparison.compare_runs` takes them. They are in a YAML file as well.

    Raises:
        ConfigError: A search space is not as it should be.
        TrainingError: No trial of a method could be finished.
    """
    spaces = _spaces(base, methods, own or {}, keep_teacher)
    kinds = [what for what in spaces for _ in range(trials * len(seeds))]
    count, log = Countdown(kinds, say), TrialLog(folder / "trials.jsonl", "id")
    frozen: dict[str, Any] = {
        "tuned": {
            "trials": trials,
            "seeds": list(seeds),
            "metric": str(base["valid_metric"]).lower(),
            "tuned": list(spaces),
            "spaces": {
                what: {key: rule.as_yaml() for key, rule in space.items()}
                for what, space in spaces.items()
            },
        }
    }
    for what, space in spaces.items():
        scores = {}
        for trial in range(trials):
            keys = search.draw(space, trial)
            found = [
                _trial(base, what, methods, trial, keys, seed, frozen, log, count) for seed in seeds
            ]
            if all(one["score"] is not None for one in found):
                scores[trial] = sum(one["score"] for one in found) / len(seeds)
        if not scores:
            raise TrainingError(
                f"None of the {trials} trials of {what} could be finished; the last one: "
                f"{found[-1]['error']}. Change its ranges with --search."
            )
        pick = max if base["valid_metric_bigger"] else min
        frozen[what] = search.draw(space, pick(scores, key=lambda trial: scores[trial]))
    _freeze(frozen, folder, say)
    return frozen


def read_frozen(file: str, methods: dict[str, list[str]]) -> dict[str, Any]:
    """Frozen configs as :func:`tune` wrote them, or written by hand.

    Raises:
        ConfigError: No such file, a method has no section, or a key is not one to be chosen.
    """
    frozen = read_yaml(file, "--frozen")
    for what in ("alone", *methods):
        if not isinstance(frozen.get(what), dict):
            raise ConfigError(
                f"{file} has no section {what}; there: {', '.join(frozen)}. Tune it with the same "
                "budget as the others (--tune), or add its keys by hand."
            )
    for what, keys in frozen.items():
        allowed = {"embedding_size"} if what == "teacher" else set()
        unequal = (
            sorted((search.EQUAL_FOR_ALL - allowed) & set(keys or ())) if what != "tuned" else []
        )
        if unequal:
            raise ConfigError(
                f"{file}: {what} sets {', '.join(unequal)}, which is the same for everything that "
                "is compared. Set it in the config instead."
            )
    return frozen


def _spaces(
    base: Any, methods: dict[str, list[str]], own: dict[str, Any], keep_teacher: bool
) -> dict[str, Space]:
    """What is searched, by what is tuned; the teacher first."""
    spaces: dict[str, Space] = {}
    config = config_of(base, next(iter(methods.values())), base["seed"], {}, {})
    if config[TEACHER].get(CHECKPOINT) is None:
        recipe = recipe_config(config, config[TEACHER])
        spaces["teacher"] = search.teacher_space(is_closed_form(recipe), own)
        if keep_teacher or not spaces["teacher"]:
            del spaces["teacher"]
        else:
            keys = search.draw(spaces["teacher"], 0)
            recipe_config(config, {**config[TEACHER], **keys})  # an unknown key is an error now
    known = keys_known_to(base)
    for what, losses in {search.ALONE: [], **methods}.items():
        spaces[what] = search.space_of(losses, own)
        for key in spaces[what]:
            if key not in known:
                raise ConfigError(
                    f"Search space of {what}: {base['model']} has no key {key!r}. Correct it in "
                    "the file that --search names."
                )
    return spaces


def _trial(
    base: Any,
    what: str,
    methods: dict[str, list[str]],
    trial: int,
    keys: dict[str, Any],
    seed: int,
    frozen: dict[str, Any],
    log: TrialLog,
    count: Countdown,
) -> dict[str, Any]:
    """A trial on one seed: run, or read where it is finished."""
    config = _config(base, what, methods, keys, seed, frozen)
    name = fingerprint(planned_identity(config))
    found = log.get(name)
    if found is not None:
        count.skip(what)
        return found
    start = perf_counter()
    outcome = _run(config)
    seconds = perf_counter() - start
    found = {"id": name, "what": what, "trial": trial, "seed": seed, "keys": keys}
    found.update(outcome, seconds=seconds)
    log.add(found)
    metric = str(base["valid_metric"]).lower()
    drawn = ", ".join(f"{key} {value}" for key, value in keys.items())
    score = f"valid {metric} {in_words(found)}"
    count.done(what, f"{what}, trial {trial}, seed {seed}: {score} with {drawn}", seconds)
    return found


def _config(
    base: Any,
    what: str,
    methods: dict[str, list[str]],
    keys: dict[str, Any],
    seed: int,
    frozen: dict[str, Any],
) -> Any:
    if what != "teacher":
        return config_of(base, methods.get(what, []), seed, keys, frozen)
    student = config_of(base, next(iter(methods.values())), seed, {}, {"teacher": keys})
    return recipe_config(student, student[TEACHER])


def _run(config: Any) -> dict[str, Any]:
    """What validation says of a Config; a training that breaks down has no score.

    The models are not saved, and the test split is not evaluated.
    """
    try:
        run = runs.run(config, saved=False, test=False)
    except TrainingError as error:
        return {"score": None, "error": str(error)}
    return {
        "score": run.best_valid_score,
        "valid": run.best_valid_result,
        "epochs": len(run.trainer.train_loss_dict),
        "seconds_per_epoch": run.seconds_per_epoch,
    }


def _freeze(frozen: dict[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    """Writes the chosen keys to a file of their own."""
    path = folder / f"frozen-{fingerprint(frozen)[:8]}.yaml"
    taken_by = "`--compare ... --frozen` with this file takes the configs."
    write_yaml(path, f"Chosen on validation data; {taken_by}", frozen, default_flow_style=None)
    say(f"The chosen configs are frozen in {path}")
