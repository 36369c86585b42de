"""One search: its trials, their records, and the objective that RecBole calls."""

from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Optional

import numpy as np

from recbole_freqd.config.identity import data_fingerprint
from recbole_freqd.config.make import with_keys
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.files import fingerprint, write_text, write_yaml
from recbole_freqd.features.data import pairs
from recbole_freqd.jobs.progress import print_line, save_or_say
from recbole_freqd.jobs.store import Record, write_lines
from recbole_freqd.jobs.tuning.hyper_space import Space, as_builtins
from recbole_freqd.jobs.tuning.trials import Trials, format_score
from recbole_freqd.jobs.validation import validation_score

Objective = Callable[[Any], Record]
_MARK = "hyper_search"  # in a trial's config: its checkpoints are no other run's
_TRIALS = 100  # RecBole's default


class Search:
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
        self.total = 0
        self._now: tuple[Record, Record] = {}, {}

    def run(self, max_evals: Optional[int], run_trials: Callable[["Search"], None]) -> Record:
        """Runs what is left of the search; returns its best record."""
        total = max_evals or self.size or _TRIALS
        self.total = min(total, self.size or total)
        print_line(f"{self.home}: {len(self.trials.records)} of {self.total} trials are done.")
        if self.trials.missing(self.total):
            run_trials(self)
        best = self.trials.best()
        if best is None:
            raise TrainingError(
                f"None of {self.total} trials has come to an end; {self.home}/trials/ says why. "
                "Change the space or the config."
            )
        table = self.trials.table()
        print_line(
            f"\n{table}\n\nThe best is trial {best['trial']}. To train and test it:\n"
            f"    run_recbole_freqd --config_files {self.home}/best.yaml"
        )
        self._write_best(best)  # it may have been removed, or another version has written it
        write_text(self.home / "trials.md", f"# {self.home.name}\n\n{table}\n")
        write_lines(self.home / "trials.jsonl", self.trials.records)
        return {**best, "folder": str(self.home)}

    def one_by_one(self) -> None:
        """Runs the trials that are missing with hyperopt, in this process."""
        from hyperopt import fmin

        # HyperTuning.run has no memory of earlier trials, no seed, and stops early by itself.
        memory = self.memory()
        for number in self.trials.missing(self.total):
            fmin(
                self.tuning.trial, self.tuning.space, algo=self.tuning.algo,
                max_evals=len(memory.trials) + 1, trials=memory, rstate=self.stream(number),
                return_argmin=False, show_progressbar=False, verbose=False,
            )  # fmt: skip
            self.keep(number, memory.trials[-1]["misc"]["vals"], *self._now)

    def stream(self, number: int) -> np.random.Generator:
        """Where hyperopt's random stream is when a trial is drawn: it takes one number for each."""
        stream = np.random.default_rng(self.config["seed"])
        stream.integers(2**31 - 1, size=number - 1)
        return stream

    def memory(self) -> Any:
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

    def marked(self, keys: Record) -> Record:
        """The keys of a trial with what makes it go on where it was cut off."""
        return {**keys, _MARK: self.home.name, "resume": True}

    def recall(self, keys: Record) -> Optional[Record]:
        """What an earlier trial of the same keys has found."""
        known = next((each for each in self.trials.records if each["keys"] == keys), None)
        return known and {**known, "same_as": known.get("same_as", known["trial"])}

    def _evaluate(self, drawn: dict[str, Any], _: Any = None) -> dict[str, Any]:
        """RecBole's objective function: the validation score of some keys; no test result."""
        keys, start = self.space.as_keys(drawn, self.config), perf_counter()
        facts = self.recall(keys)
        if facts is None:
            facts = attempt(self.objective, with_keys(self.config, self.marked(keys)))
        self._now = keys, {**facts, "seconds": perf_counter() - start}
        loss = self.trials.loss(facts)
        return {
            "model": self.config["model"],
            "best_valid_score": -loss if self.bigger else loss,
            "valid_score_bigger": self.bigger,
            "best_valid_result": facts.get("valid"),
            "test_result": None,
        }

    def keep(self, number: int, drawn: Record, keys: Record, facts: Record) -> None:
        """Records a trial before the next one begins, and says how it went.

        Raises:
            ConfigError: Earlier trials were of other data.
        """
        others = [each for each in self.trials.records if each.get("data") != facts.get("data")]
        if facts["score"] is not None and any(each["score"] is not None for each in others):
            raise ConfigError(
                f"The data has changed since {self.home} was begun: its trials cannot be compared. "
                "Put the data back, or remove that folder."
            )
        seconds = round(facts["seconds"], 3)
        record = {
            **facts,
            "keys": keys,
            "seconds": seconds,
            "trial": number,
            "drawn": as_builtins(drawn),
        }
        self.trials.add(record)
        words = ", ".join(f"{key}={value}" for key, value in keys.items())
        same = f" (as trial {record['same_as']})" if "same_as" in record else ""
        print_line(
            f"Trial {number} of {self.total}: {words}: validation {self.trials.metric} "
            f"{format_score(record)}{same}, {seconds:.0f} s."
        )
        best = self.trials.best()
        if best is not None and best["trial"] == number:
            save_or_say(partial(self._write_best, record), print_line)

    def _write_best(self, record: Record) -> None:
        """The whole config of a trial, for ``--config_files``."""
        given = with_keys(self.config, record["keys"]).external_config_dict
        named = {"model": self.config["model"], "dataset": self.config["dataset"]}
        content = {**named, **{key: given[key] for key in given if key not in (_MARK, "resume")}}
        found = f"{self.trials.metric} {format_score(record)} on validation"
        comment = f"Trial {record['trial']} of {self.home}: {found}."
        write_yaml(self.home / "best.yaml", comment, as_builtins(content), allow_unicode=True)


def attempt(objective: Objective, config: Any) -> Record:
    """Gives the objective's value of a Config; a failed training rejects its own keys only."""
    try:
        return objective(config)
    except TrainingError as error:
        return {"score": None, "error": str(error)}


def _train(keep: bool, config: Any) -> Record:
    """Trains and validates a trial; the test split stays closed."""
    from recbole_freqd.jobs import run as runs

    run = runs.run(config, saved=True, test=False)
    teacher = getattr(run.trainer, "teacher", None)
    if not keep:
        run.trainer.forget()
    train, valid = (loader._dataset for loader in run.data[:2])
    made = data_fingerprint(train)
    return {
        "score": validation_score(run),
        "valid": run.best_valid_result,
        "teacher": teacher and teacher.checkpoint,
        "checkpoint": run.trainer.saved_model_file if keep else None,
        "data": fingerprint(made["tokens"], made["train"], pairs(valid)),
    }
