"""Seconds until a student is there: alone, by FreqD, by RCE-KD and by FreqRank, in one run.

    RECBOLE_FREQD_DATA=... python benchmarks/bench_all_in.py [--datasets ml-100k,citeulike,gowalla]
        [--rows "alone,FreqD,RCE-KD,FreqRank,FreqRank by a team"] [--teacher PATH,PATH]
        [--seed 2020] [--epochs 10] [--threads 1]

From the loading of the data to the best score on validation, lists, graphs, filters, the warm start
and every validation included, the teacher's own training left out; and until the best score of the
student alone, and that of the teacher, is reached. The ratios are of processor time too, where
other work disturbs the clock. Each row has its keys of ``properties/recipe/``, FreqRank those of
RCE-KD; all are validated equally often and stop by the same rule. The test split is not evaluated.
ml-100k is RecBole's own; without the folder of data only that is run. RecBole writes log/ and
saved/ into the working directory: run it from a scratch folder.
"""

import argparse
import os
from time import process_time
from typing import Any, Optional

from common import save, with_command_line

STOPPING = {
    "ml-100k": {"epochs": 150, "eval_step": 2, "stopping_step": 5, "eval_batch_size": 1000000},
    "citeulike": {"epochs": 400, "eval_step": 5, "stopping_step": 6, "eval_batch_size": 1000000},
    "gowalla": {"epochs": 150, "eval_step": 5, "stopping_step": 3, "eval_batch_size": 2000000},
}
ALONE: dict[str, dict[str, Any]] = {  # chosen on validation for the comparisons in results/
    "ml-100k": {"learning_rate": 0.0075, "weight_decay": 1e-5},
    "citeulike": {"learning_rate": 0.003, "weight_decay": 3e-6},
    "gowalla": {"learning_rate": 0.005, "weight_decay": 1e-6},
}
LOADED = {
    "benchmark_filename": ["train", "valid", "test"],
    "load_col": {"inter": ["user_id", "item_id"]},
}
BY_A_TEAM = "FreqRank by a team"
SHARED = {"valid_metric": "NDCG@10", "topk": [10], "show_progress": False, "state": "WARNING"}


def keys_of(
    dataset: str, row: str, teacher: str, seed: int, epochs: Optional[int] = None
) -> dict[str, Any]:
    """All keys of a run; ``epochs`` cuts a taught one short."""
    trainer = "FreqRank" if row == BY_A_TEAM else row
    name = "FreqD" if trainer in ("FreqD", "alone") or dataset == "gowalla" else "RCE-KD"
    keys = {**recipe(dataset, name), **SHARED, **STOPPING[dataset], "trainer": trainer}
    keys["seed"] = seed
    if trainer != name:  # gowalla has no recipe of RCE-KD: its own keys are the defaults there
        keys = {key: value for key, value in keys.items() if not key.startswith("freqd_")}
    if trainer == "FreqRank":
        keys = {key.replace("rcekd_", "freqrank_"): value for key, value in keys.items()}
    if epochs and row != "alone":
        keys["epochs"] = epochs
    if row == "alone":
        keys.update(ALONE[dataset])
        del keys["trainer"], keys["teacher"]
    elif teacher:
        keys["teacher"] = {"checkpoint": teacher}
    if row == BY_A_TEAM:
        keys["teacher"] = [keys["teacher"], "panel"]
    if dataset == "ml-100k":
        return keys
    return {**keys, **LOADED, "data_path": os.environ["RECBOLE_FREQD_DATA"]}


def recipe(dataset: str, method: str) -> dict[str, Any]:
    """The keys that were chosen for a method on a data set."""
    from recbole_freqd.core.files import read_yaml
    from recbole_freqd.core.schema import properties_folder

    path = properties_folder() / "recipe" / dataset / f"BPR-BPR-{method}.yaml"
    return dict(read_yaml(str(path), "recipe"))


def train_teacher(keys: dict[str, Any]) -> None:
    """Trains the teacher of a recipe, unless it is there: then runs only load it."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.run import read_data
    from recbole_freqd.teacher import find_teacher

    config = make_config(None, None, None, keys)
    find_teacher(config, *read_data(config)[:2])


def trained(keys: dict[str, Any]) -> tuple[Any, list[list[float]]]:
    """A run, and of every validation the seconds so far, those of the processor, and the score."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.run import run
    from recbole_freqd.runtime.seconds import Seconds

    scores: list[tuple[Seconds, float, float, float]] = []
    noted, begun = Seconds.end_validation, process_time()

    def note(seconds: Seconds, score: float) -> None:
        scores.append((seconds, seconds._so_far(), process_time() - begun, score))
        noted(seconds, score)

    Seconds.end_validation = note  # type: ignore[method-assign]
    try:
        done = run(make_config(None, None, None, keys), test=False)
        own = done.trainer.part(Seconds)  # a panel's teachers are validated, too
        return done, [at for seconds, *at in scores if seconds is own]
    finally:
        Seconds.end_validation = noted  # type: ignore[method-assign]


def teacher_score(run: Any) -> Optional[float]:
    """What the first of a run's teachers has on validation, as it is before any filter."""
    from recbole_freqd.jobs.run import evaluate_on

    if not run.config["trainer"]:
        return None
    _, (metrics,) = evaluate_on(run.data, run.trainer.teacher.members[0].teacher, 1)
    return metrics["ndcg@10"]


def row_of(name: str, run: Any, scores: list[Any], alone: tuple[Any, list[Any]]) -> dict[str, Any]:
    """A line of the table; ``alone`` is the run and the validations of the student alone."""
    first_best, (of_alone, alone_scores) = max(scores, key=lambda at: at[2]), alone
    goal = max(alone_scores, key=lambda at: at[2])
    taught = teacher_score(run)

    def reached(score: float) -> Any:
        return next((at for at in scores if at[2] >= score), None)

    def ratios(at: Any) -> str:
        return f"{at[0] / goal[0]:.2f} ({at[1] / goal[1]:.2f})" if at else "never"

    return {
        "data set, student": name,
        "best valid NDCG@10": round(first_best[2], 4),
        "epochs until then": run.best_epoch,
        "seconds until then": round(run.seconds_to_best, 1),
        "ratio to alone (CPU)": ratios(first_best),
        "until the score of alone (CPU)": ratios(reached(goal[2])),
        "teacher's": round(taught, 4) if taught else "",
        "until the teacher's (CPU)": ratios(reached(taught)) if taught else "",
        "choices, % of all in": round(100 * run.seconds_choosing / run.seconds_all_in, 1),
        "epoch to alone": round(run.seconds_per_epoch / of_alone.seconds_per_epoch, 2),
    }


def main(options: argparse.Namespace) -> None:
    import recbole_freqd

    recbole_freqd.register()
    rows: list[dict[str, Any]] = []
    teachers = (options.teacher or "").split(",")
    names = options.rows.split(",")
    for place, dataset in enumerate(options.datasets.split(",")):
        if dataset != "ml-100k" and "RECBOLE_FREQD_DATA" not in os.environ:
            print(f"{dataset} skipped: RECBOLE_FREQD_DATA names no folder of datasets")
            continue
        teacher = teachers[place] if place < len(teachers) else ""
        train_teacher(keys_of(dataset, "FreqD", teacher, options.seed))
        alone: Any = None
        for name in ["alone", *(name for name in names if name != "alone")]:
            run, scores = trained(keys_of(dataset, name, teacher, options.seed, options.epochs))
            alone = alone or (run, scores)
            rows.append(row_of(f"{dataset}, {name}", run, scores, alone))
            save("all_in", "All in, until the best validation", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="ml-100k,citeulike,gowalla")
    parser.add_argument("--rows", default=f"alone,FreqD,RCE-KD,FreqRank,{BY_A_TEAM}")
    parser.add_argument("--teacher", help="checkpoints in place of recipes, one per data set")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--epochs", type=int, help="of taught rows at most, for a quick look")
    with_command_line(main, parser)
