"""Trials of a search side by side, by Ray Tune.

What is tried is drawn by the algorithms of RecBole's HyperTuning, as where hyperopt runs the trials
one after the other; Ray gives each a process of its own, with a processor or a GPU.

The queue is our own: Ray's HyperOptSearch knows TPE only, draws from a random state of another kind
than fmin's, so other trials, and goes on from a pickle. Its ConcurrencyLimiter counts what runs; it
holds no trial back until its teacher is there, or until the trial of the same keys has ended.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Callable, Optional

from recbole_freqd.config.make import with_keys
from recbole_freqd.core.errors import ConfigError, FreqDError
from recbole_freqd.jobs.store import Record
from recbole_freqd.jobs.tuning.session import Objective, Search, attempt

_OLDEST = "2.44"


def check_ray() -> Callable[[Search], None]:
    """The function that runs what is missing of a search.

    Raises:
        ConfigError: There is no Ray Tune that works here.
    """
    try:
        from ray import tune

        tune.RunConfig  # noqa: B018 (an older one has none)
    except Exception as error:  # RecBole's ray fails over NumPy and setuptools in ways of its own
        raise ConfigError(
            f"--tool ray needs Ray Tune {_OLDEST} or newer, and none works here "
            f"({type(error).__name__}: {error}). After this package, since RecBole asks pip for an "
            f'older ray than it needs: pip install "ray[tune]>={_OLDEST}". Or leave out --tool.'
        ) from error
    return side_by_side


def side_by_side(search: Search) -> None:
    """Runs the trials that are missing, as many at once as Ray finds processors or GPUs for.

    Raises:
        FreqDError: What a trial has raised, or the data has changed.
        KeyboardInterrupt: Ctrl-C; what had been finished is recorded.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the only output that verbose=0 silences
    import ray
    from ray import tune

    started, storage = not ray.is_initialized(), search.home.resolve() / "ray"
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    queue = Queue(search)
    try:
        trial = tune.with_parameters(
            _trial, config=search.config, objective=search.objective, folder=os.getcwd()
        )
        resources = {"cpu": 1, "gpu": int(search.config["device"].type == "cuda")}
        results = tune.Tuner(
            tune.with_resources(trial, resources),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(queue), num_samples=len(search.trials.missing(search.total))
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(fail_fast=True),
                verbose=0,
            ),
        ).fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        if started:
            ray.shutdown()
    for problem in (queue.problem, *results.errors):
        if problem is not None:
            raise problem
    if search.trials.missing(search.total):  # Ray ends what runs, and says nothing
        raise KeyboardInterrupt


@dataclass(eq=False)
class Drawn:
    """A trial that has been drawn: its number, its keys, and hyperopt's document of it."""

    number: int
    keys: Record
    document: dict[str, Any]


class Queue:
    """The trials that are missing, in their order, and what runs of them.

    Attributes:
        problem: An error that ends the search.
        waits: Whether the next one has to wait for one that runs.
    """

    def __init__(self, search: Search) -> None:
        from hyperopt.base import Domain

        self.search, self.problem = search, None  # type: Search, Optional[FreqDError]
        self._memory = search.memory()
        self._domain = Domain(search.tuning.trial, search.space.nodes)
        self._left = search.trials.missing(search.total)
        self._next: Optional[Drawn] = None
        self._running: list[Drawn] = []

    def next(self) -> Optional[Drawn]:
        """The next trial to be run; None where there is none, or it :attr:`waits`."""
        while self.problem is None and (self._next or self._left):
            drawn = self._next = self._next or self._draw(self._left.pop(0))
            if self.waits:
                return None
            self._next, facts = None, self.search.recall(drawn.keys)
            self._running.append(drawn)
            if facts is None:
                return drawn
            self.record(drawn, {**facts, "seconds": 0.0})
        return None

    @property
    def waits(self) -> bool:
        """Runs equal keys once, and the first student of a teacher without others beside it."""
        if self._next is None or self.problem is not None:
            return False
        keys, teacher = self._next.keys, self._teacher(self._next.keys)
        taught = self.search.config["teacher"] is None or any(
            record["score"] is not None and self._teacher(record["keys"]) == teacher
            for record in self.search.trials.records
        )
        return any(
            other.keys == keys or (not taught and self._teacher(other.keys) == teacher)
            for other in self._running
        )

    def record(self, drawn: Drawn, facts: Record) -> None:
        """Keeps what has come of a trial."""
        self._running.remove(drawn)
        try:
            if "refused" in facts:
                raise FreqDError(facts["refused"])
            self.search.keep(drawn.number, drawn.document["misc"]["vals"], drawn.keys, facts)
        except FreqDError as problem:
            self.problem = problem
            return
        loss = self.search.trials.loss(facts)
        drawn.document.update(result={"loss": loss, "status": "ok"}, state=2)  # JOB_STATE_DONE
        self._memory.refresh()

    def _draw(self, number: int) -> Drawn:
        """As hyperopt draws that number after those before it, which may still be running."""
        from hyperopt import space_eval

        seed = int(self.search.stream(number).integers(2**31 - 1))
        memory, nodes = self._memory, self.search.space.nodes
        (new,) = self.search.tuning.algo(memory.new_trial_ids(1), self._domain, memory, seed)
        memory.insert_trial_doc(new)
        memory.refresh()
        values = {key: found[0] for key, found in new["misc"]["vals"].items() if found}
        keys = self.search.space.as_keys(space_eval(nodes, values), self.search.config)
        return Drawn(number, keys, memory.trials[-1])

    @staticmethod
    def _teacher(keys: Record) -> Record:
        return {key: value for key, value in keys.items() if key.startswith("teacher.")}


def _searcher(queue: Queue) -> Any:
    """The queue as Ray asks for it."""
    from ray.tune.search import Searcher

    class FromQueue(Searcher):
        def __init__(self) -> None:
            super().__init__()
            self.running: dict[str, Drawn] = {}

        def suggest(self, trial_id: str) -> Any:
            drawn = queue.next()
            if drawn is None:  # Ray asks again when a trial has ended
                return None if queue.waits else Searcher.FINISHED
            self.running[trial_id] = drawn
            return {"keys": queue.search.marked(drawn.keys)}

        def on_trial_complete(
            self, trial_id: str, result: Optional[Record] = None, error: bool = False
        ) -> None:
            drawn = self.running.pop(trial_id, None)
            if drawn is not None and result and not error:  # else it was stopped
                queue.record(drawn, json.loads(result["facts"]))

        def save(self, checkpoint_path: str) -> None:
            """Does nothing: all that stays is in trials/."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing."""

    return FromQueue()


def _trial(params: Record, config: Any, objective: Objective, folder: str) -> Record:
    """One trial, in a process of Ray's."""
    import recbole_freqd

    os.chdir(folder)  # Ray works in a folder of its own
    sys.argv = sys.argv[:1]
    recbole_freqd.register()
    keys, start = dict(params["keys"]), perf_counter()
    if config["device"].type == "cuda":  # RecBole would take the first for every trial
        keys["gpu_id"] = os.environ["CUDA_VISIBLE_DEVICES"]
    try:
        facts = attempt(objective, with_keys(config, keys))
    except FreqDError as error:
        facts = {"refused": str(error)}
    return {"facts": json.dumps({**facts, "seconds": perf_counter() - start}, default=str)}
