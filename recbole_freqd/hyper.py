"""Tuning by RecBole's own HyperTuning: one teacher, validation only, stopped and gone on with.

What a trial draws depends on the search and on the trials before it alone, so a search that was
stopped ends with the trials of one that was not.
"""

import importlib.util
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Optional

import numpy as np
import yaml
from filelock import FileLock, Timeout

from recbole_freqd import __version__
from recbole_freqd.checkpoint import fingerprint
from recbole_freqd.config import trainer_names
from recbole_freqd.errors import ConfigError, TrainingError
from recbole_freqd.identity import data_fingerprint, pairs
from recbole_freqd.spaces import Space, plain, with_keys
from recbole_freqd.trials import Record, Trials, in_words
from recbole_freqd.writing import write_json

ALGORITHMS = ("exhaustive", "random", "bayes")
_MARK = "hyper_search"  # in a trial's config: its checkpoints are no other run's
_WHERE = {_MARK, "resume", "state", "show_progress", "checkpoint_dir", "data_path"}
_TRIALS = 100  # RecBole's default
Objective = Callable[[Any], Record]


def search(
    config: Any,
    files: list[str],
    folder: Path,
    *,
    algo: str = "exhaustive",
    max_evals: Optional[int] = None,
    keep: bool = False,
    objective: Optional[Objective] = None,
) -> Record:
    """Tries keys by RecBole's HyperTuning, and goes on where the same search was stopped.

    Args:
        config: A Config of what is tuned, made while RecBole is registered.
        files: Spaces, see :mod:`recbole_freqd.spaces`.
        folder: Where a folder of the search's own is made: ``trials.jsonl``, a line for each trial;
            ``trials.md``, the same as a table; ``best.yaml``, the best config so far, ready to run.
        algo: ``exhaustive`` (every combination, in random order), ``random`` or ``bayes``.
        max_evals: Trials in all; None: every combination, or 100.
        keep: Whether the checkpoints of the trials stay.
        objective: From the Config of a trial to its ``score`` and whatever else is to be recorded;
            None: train it and take RecBole's validation score.

    Returns:
        The record of the best trial, with ``folder``.

    Raises:
        ConfigError: hyperopt is missing, the space or an option is not allowed, another process is
            at it, or the data has changed since the search began.
        TrainingError: No trial has come to an end.
    """
    if importlib.util.find_spec("hyperopt") is None:
        raise ConfigError(
            "--hyper needs the package hyperopt, which is not installed: "
            'pip install "recbole_freqd[tune]"'
        )
    if algo not in ALGORITHMS:
        raise ConfigError(f"--algo: got {algo!r}; allowed: {', '.join(ALGORITHMS)}.")
    if max_evals is not None and max_evals < 1:
        raise ConfigError(f"--max_evals: got {max_evals}; allowed: a whole number from 1.")
    space = Space(files)
    space.check(config, algo)
    told = _identity(config, space, algo)
    names = trainer_names(config["trainer"]) or ["alone"]
    parts = ["hyper", config["dataset"], config["model"], *names, fingerprint(told)[:8]]
    home = folder / "-".join(parts)
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "search.lock", timeout=0):
            write_json(home / "search.json", told)
            started = _Search(config, space, home, algo, objective or partial(_train, keep))
            return started.run(max_evals)
    except Timeout:
        raise ConfigError(f"{home} is being searched by another process.") from None


def _identity(config: Any, space: Space, algo: str) -> dict[str, Any]:
    """What a search is: with another config, space or algorithm it is another one."""
    given = config.external_config_dict
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "config": {key: plain(given[key]) for key in sorted(given) if key not in _WHERE},
        "space": space.text,
        "algo": algo,
        "seed": config["seed"],
        "version": __version__,
    }


class _Search:
    """One search in its folder; the arguments are those of :func:`search`."""

    def __init__(
        self, config: Any, space: Space, home: Path, algo: str, objective: Objective
    ) -> None:
        from recbole.trainer import HyperTuning

        self.config, self.space, self.home = config, space, home
        self.objective = objective
        self.bigger = config["valid_metric_bigger"]
        self.trials = Trials(home, config["valid_metric"].lower(), self.bigger)
        self.tuning = HyperTuning(self._evaluate, space=space.nodes, algo=algo)
        self.tuning._print_result = lambda _: None  # we say it ourselves, and have no test result
        self.size: Optional[int] = None
        if algo == "exhaustive":  # drawn until one is new: for the last of many that takes long
            self.size, patience = space.size, 1000 + 100 * space.size
            self.tuning.algo = partial(self.tuning.algo.func, nbMaxSucessiveFailures=patience)
        self._now: Record = {}

    def run(self, max_evals: Optional[int]) -> Record:
        """Runs what is left of the search; returns its best record."""
        from hyperopt import fmin

        total = max_evals or self.size or _TRIALS
        total = min(total, self.size or total)
        records = self.trials.records
        print(f"{self.home}: {len(records)} of {total} trials are done.")
        # HyperTuning.run has no memory of earlier trials, no seed, and stops early by itself.
        memory, stream = self._memory(), np.random.default_rng(self.config["seed"])
        stream.integers(2**31 - 1, size=len(records))  # what hyperopt has drawn for those
        while len(records) < total:
            fmin(
                self.tuning.trial, self.tuning.space, algo=self.tuning.algo,
                max_evals=len(records) + 1, trials=memory, rstate=stream, return_argmin=False,
                show_progressbar=False, verbose=False,
            )  # fmt: skip
            self._keep(memory.trials[-1]["misc"]["vals"], total)
        best = self.trials.best()
        if best is None:
            raise TrainingError(
                f"None of {len(records)} trials has come to an end; {self.home}/trials.jsonl says "
                "why. Change the space or the config."
            )
        table = self.trials.table()
        self.trials.write("trials.md", f"# {self.home.name}\n\n{table}\n")
        print(
            f"\n{table}\n\nThe best is trial {best['trial']}. To train and test it:\n"
            f"    run_recbole_freqd --config_files {self.home}/best.yaml"
        )
        return {**best, "folder": str(self.home)}

    def _memory(self) -> Any:
        """hyperopt's Trials, from what is recorded."""
        import hyperopt

        memory = hyperopt.Trials()
        for tid, record in enumerate(self.trials.records):
            drawn = record["drawn"]
            misc = {
                "tid": tid,
                "cmd": ("domain_attachment", "FMinIter_Domain"),
                "workdir": None,
                "idxs": {key: [tid] * len(values) for key, values in drawn.items()},
                "vals": drawn,
            }
            result = {"loss": self.trials.loss(record), "status": hyperopt.STATUS_OK}
            (document,) = memory.new_trial_docs([tid], [None], [result], [misc])
            document["state"] = hyperopt.JOB_STATE_DONE
            memory.insert_trial_doc(document)
        memory.refresh()
        return memory

    def _evaluate(self, drawn: dict[str, Any], _: Any = None) -> dict[str, Any]:
        """RecBole's objective function: the validation score of some keys; no test result."""
        keys, start = self.space.plain(drawn, self.config), perf_counter()
        known = next((each for each in self.trials.records if each["keys"] == keys), None)
        if known is not None:
            facts = {**known, "same_as": known.get("same_as", known["trial"])}
        else:
            facts = self._try(keys)
        self._now = {**facts, "keys": keys, "seconds": round(perf_counter() - start, 3)}
        loss = self.trials.loss(self._now)
        return {
            "model": self.config["model"],
            "best_valid_score": -loss if self.bigger else loss,
            "valid_score_bigger": self.bigger,
            "best_valid_result": facts.get("valid"),
            "test_result": None,
        }

    def _try(self, keys: dict[str, Any]) -> Record:
        """What the objective says of some keys; a training that fails says no to these only.

        Raises:
            ConfigError: Earlier trials were of other data.
        """
        config = with_keys(self.config, {**keys, _MARK: self.home.name, "resume": True})
        try:
            facts = self.objective(config)
        except TrainingError as error:
            return {"score": None, "error": str(error)}
        other = [each for each in self.trials.records if each.get("data") != facts.get("data")]
        if any(each["score"] is not None for each in other):
            raise ConfigError(
                f"The data has changed since {self.home} was begun: its trials cannot be compared. "
                "Put the data back, or remove that folder."
            )
        return facts

    def _keep(self, drawn: dict[str, Any], total: int) -> None:
        """Records a trial before the next one begins, and says how it went."""
        records = self.trials.records
        record = {**self._now, "trial": len(records) + 1, "drawn": plain(drawn)}
        self.trials.add(record)
        words = ", ".join(f"{key}={value}" for key, value in record["keys"].items())
        same = f" (as trial {record['same_as']})" if "same_as" in record else ""
        print(
            f"Trial {len(records)} of {total}: {words}: validation {self.trials.metric} "
            f"{in_words(record)}{same}, {record['seconds']:.0f} s."
        )
        if self.trials.best() is record:
            self._write_best(record)

    def _write_best(self, record: Record) -> None:
        """The whole config of a trial, for ``--config_files``."""
        given = with_keys(self.config, record["keys"]).external_config_dict
        named = {"model": self.config["model"], "dataset": self.config["dataset"]}
        content = {**named, **{key: given[key] for key in given if key not in (_MARK, "resume")}}
        text = yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True)
        found = f"{self.trials.metric} {in_words(record)} on validation"
        self.trials.write(
            "best.yaml", f"# Trial {record['trial']} of {self.home}: {found}.\n{text}"
        )


def _train(keep: bool, config: Any) -> Record:
    """Trains and validates a trial; the test split stays closed."""
    from recbole_freqd import runs

    run = runs.run(config, saved=True, test=False)
    teacher = getattr(run.trainer, "teacher", None)
    if not keep:
        run.trainer.forget()
    train, valid = (loader._dataset for loader in run.data[:2])
    made = data_fingerprint(train)
    return {
        "score": run.best_valid_score,
        "valid": run.best_valid_result,
        "teacher": teacher and teacher.checkpoint,
        "checkpoint": run.trainer.saved_model_file if keep else None,
        "data": fingerprint(made["tokens"], made["train"], pairs(valid)),
    }
