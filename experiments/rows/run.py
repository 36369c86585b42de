"""Runs the rows of an experiment, each with every seed, and keeps what they come to.

    python experiments/rows/run.py experiments/rows/ml-100k.yaml --out results/rows/ml-100k \
        [--data DIR] [--part tuning] [--rows NAME,NAME] [--seeds 2020,2021] [--test]

The file has ``common`` keys, parts (``tuning``, ``rows``, ...) whose rows are keys laid over the
common ones, and ``seeds`` of each part. A row without ``trainer`` is the student alone; a row with
``teacher_only: true`` trains the teacher of the common keys and evaluates it; one with ``untrained:
true`` stays as it begins. Without ``--test``
the test split is never evaluated. Finished runs are kept in ``<out>/cells`` and not run again while
their keys stay as they are. RecBole writes log/ into the working directory: start from a scratch
folder.
"""

import argparse
import copy
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import recbole_freqd
from recbole_freqd.core.files import fingerprint, read_yaml
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.store import RunStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--data", help="folder of the dataset, where RecBole does not ship it")
    parser.add_argument("--part", default="rows", help="section of the file (default: rows)")
    parser.add_argument("--rows", help="names between commas (default: all of the part)")
    parser.add_argument("--seeds", help="in place of the file's")
    parser.add_argument("--saved", default="saved", help="folder of checkpoints (default: saved)")
    parser.add_argument("--test", action="store_true", help="open the test split")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it
    recbole_freqd.register()
    plan = read_yaml(options.file, "file")
    rows = plan[options.part]
    names = options.rows.split(",") if options.rows else list(rows)
    seeds = [int(seed) for seed in (options.seeds or "").split(",") if seed]
    place = {
        "checkpoint_dir": options.saved,
        **({"data_path": options.data} if options.data else {}),
    }
    store = RunStore(options.out / "cells")
    for name in names:  # whole rows first: fewer rows are worth more than fewer seeds
        for seed in seeds or plan["seeds"][options.part]:
            keys = {
                **copy.deepcopy(plan["common"]),
                **copy.deepcopy(rows[name] or {}),
                "seed": seed,
            }
            run_cell(store, name, keys, place, options.test)


def run_cell(
    store: RunStore, name: str, keys: dict[str, Any], place: dict[str, Any], test: bool
) -> None:
    """Runs a row with a seed, unless it is kept already, and prints what it came to."""
    seed, kind = keys["seed"], "test" if test else "valid"
    stem = f"{name}-{seed}-{kind}-{fingerprint(keys)[:10]}".replace("/", "_").replace(" ", "_")

    def run() -> dict[str, Any]:
        start = perf_counter()
        made = taught_row if keys.get("teacher_only") else student_row
        found = made({**keys, **place}, test)
        return {"row": name, "seed": seed, "keys": keys, **found, "seconds": perf_counter() - start}

    outcome = store.attempt(stem, run, wait=True, device="cpu")
    record = outcome and outcome.record
    if record is None:
        print_line(f"{stem}: failed: {outcome and outcome.error}")
        return
    shown = {
        key: record.get(key) for key in ("valid", "test", "best_epoch", "epochs", "seconds_to_best")
    }
    brief = {
        key: value.get("ndcg@10") if isinstance(value, dict) else value
        for key, value in shown.items()
    }
    print_line(f"{stem}: {json.dumps(brief)}{'' if outcome and outcome.fresh else ' (kept)'}")


def student_row(keys: dict[str, Any], test: bool) -> dict[str, Any]:
    """Trains a student; its figures, and those of its teachers where the test is opened."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.jobs.measure import parameter_count, size_mb

    kept = {key: value for key, value in keys.items() if key != "untrained"}
    config = make_config(None, None, None, kept)
    run = runs.run(config, test=test, untrained="untrained" in keys)
    found = {
        "valid": run.best_valid_result,
        "test": run.test_result,
        "best_epoch": run.best_epoch,
        "epochs": len(run.trainer.train_loss_dict),
        "seconds_per_epoch": run.seconds_per_epoch,
        "seconds_to_best": run.seconds_to_best,
        "seconds_all_in": run.seconds_all_in,
        "parameters": parameter_count(run.model),
        "size_mb": size_mb(run.model),
        "checkpoint": Path(run.trainer.saved_model_file).name,
    }
    if keys.get("trainer"):
        team = run.trainer.teacher
        found["teaching"] = [
            {"name": member.name, "model": member.model, "weight": member.weight}
            for member in team.members
        ]
        if test:
            found["teacher_test"], found["members"] = runs.evaluate_members(run)
            _, (found["teacher_valid"],) = runs.evaluate_teacher(run, 1)
    return found


def taught_row(keys: dict[str, Any], test: bool) -> dict[str, Any]:
    """Trains what would teach, or takes it as it is, and evaluates it."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.jobs.measure import parameter_count, size_mb
    from recbole_freqd.teacher import find_teacher

    kept = {key: value for key, value in keys.items() if key != "teacher_only"}
    config = make_config(None, None, None, {**kept, "trainer": keys.get("trainer", "FD")})
    data = runs.read_data(config)
    teacher = find_teacher(config, data[0], data[1])
    model, results = runs.evaluate_on(data, teacher, *([1, 2] if test else [1]))
    return {
        "valid": results[0],
        "test": results[1] if test else None,
        "seconds_per_epoch": teacher.facts.get("seconds_per_epoch"),
        "parameters": parameter_count(model),
        "size_mb": size_mb(model),
        "checkpoint": Path(teacher.checkpoint).name if teacher.checkpoint else None,
    }


if __name__ == "__main__":
    main()
