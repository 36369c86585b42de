"""The numbers of results/ml-100k.md: equal budgets, validation chooses, test is opened once.

    python benchmarks/fair_ml_100k.py tune CELL      # N random trials on validation, resumable
    python benchmarks/fair_ml_100k.py decide CELL    # the best on more seeds (students of 16)
    python benchmarks/fair_ml_100k.py freeze         # best trial of every cell -> configs.yaml
    python benchmarks/fair_ml_100k.py final CELL     # all seeds with the frozen config, with test
    python benchmarks/fair_ml_100k.py refine CELL    # a second round, see results/ml-100k.md
    python benchmarks/fair_ml_100k.py report         # results/ml-100k.md

A cell is one thing that is compared, on one pair of models: ``teacher BPR``, ``alone LightGCN``,
``FreqD LightGCN-BPR`` (teacher-student). BPR is a student of 8 dimensions, BPR16 one of 16. Cells
of students wait for the config of their teacher.
RecBole writes log/ and saved/ into the working directory: run it from a scratch folder.
"""

import argparse
import json
import math
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HOME = Path(__file__).resolve().parent.parent / "results" / "ml-100k"
TRIALS, TUNING_SEED = 12, 2020
# The second round: more trials, whose common keys are the same for every cell of a student, and the
# three best of all on two more seeds.
MORE_TRIALS, FINALISTS, MORE_SEEDS = 8, 3, (2021, 2022)
SECOND = " (second round)"
PAIRS = ("BPR-BPR", "LightGCN-BPR", "LightGCN-LightGCN", "EASE-BPR16", "MultiVAE-BPR16")
STUDENTS = {"BPR": ("BPR", 8), "LightGCN": ("LightGCN", 8), "BPR16": ("BPR", 16)}
TEACHERS = {"BPR": 64, "LightGCN": 64, "EASE": None, "MultiVAE": None}  # embedding_size
# For students of 16: 10 trials on one seed, the two best also on two more, the best mean wins; then
# three seeds with test.
LATER = ("teacher EASE", "teacher MultiVAE")
LATER_TRIALS, LATER_FINALISTS = 10, 2
PROTOCOL = {  # the same for everything that is compared
    "epochs": 150,
    "eval_step": 2,
    "stopping_step": 10,
    "valid_metric": "NDCG@10",
    "metrics": ["Recall", "NDCG"],
    "topk": [10, 20],
    "show_progress": False,
    "state": "ERROR",
}
COMMON = {
    "learning_rate": ("log", 1.5e-3, 1e-2),
    "weight_decay": ("choice", 0.0, 1e-6, 1e-5),
}
MODEL = {
    "BPR": {},
    "BPR16": {"weight_decay": ("choice", 1e-6, 1e-5, 3e-5, 1e-4)},
    "EASE": {"reg_weight": ("log", 30.0, 3000.0)},
    "MultiVAE": {
        "learning_rate": ("log", 3e-4, 5e-3),
        "weight_decay": ("choice", 0.0, 1e-6, 1e-5),
        "train_batch_size": ("choice", 64, 256),
        "mlp_hidden_size": ("choice", [200], [600]),
        "latent_dimension": ("choice", 64, 128, 256),
        "anneal_cap": ("choice", 0.1, 0.2, 0.5),
    },
    # One layer was best in the exploration, and is the one that the machine affords.
    "LightGCN": {"n_layers": ("choice", 1), "reg_weight": ("choice", 1e-5, 1e-4, 1e-3)},
}
METHOD = {  # the projector is linear for both: the cheap one, and no worse on validation
    "FD": {"fd_beta": ("log", 0.1, 5.0)},
    "FreqD": {
        "freqd_beta": ("log", 0.1, 5.0),
        "freqd_alpha": ("choice", 0.1, 0.3, 0.5, 0.7),
        "freqd_k": ("choice", 5, 10, 20),
        "freqd_keep_prob": ("choice", 0.5, 1.0),
    },
}


def cells() -> list[str]:
    """Every cell, teachers first."""
    names = [f"teacher {model}" for model in TEACHERS] + [f"alone {name}" for name in STUDENTS]
    return names + [f"{method} {pair}" for pair in PAIRS for method in METHOD]


def student_of(cell: str) -> str:
    return cell.split()[1].split("-")[-1]


def is_later(cell: str) -> bool:
    return cell in LATER or cell.endswith("BPR16")


def trials_of(cell: str) -> int:
    return LATER_TRIALS if is_later(cell) else TRIALS


def seeds_of(cell: str) -> tuple[int, ...]:
    return (2020, 2021, 2022) if is_later(cell) else (2020, 2021, 2022, 2023, 2024)


def draw(cell: str, trial: int) -> dict[str, Any]:
    """The keys of one trial: a function of the names, so that a stopped search goes on."""
    common = {} if cell == "teacher EASE" else COMMON  # solved, not trained
    space = {**common, **MODEL[student_of(cell)], **METHOD.get(cell.split()[0], {})}
    if "EASE-" in cell:
        space["teacher.spectral_rank"] = ("choice", 32, 64, 128)
    source = random.Random(f"{cell} {trial}")
    keys = {}
    for name, (kind, *limits) in space.items():
        if kind == "choice":
            keys[name] = source.choice(limits)
        else:
            low, high = map(math.log, limits)
            keys[name] = float(f"{math.exp(source.uniform(low, high)):.3g}")
    return keys


def draw_paired(cell: str, trial: int) -> dict[str, Any]:
    """The keys of a trial of the second round; learning rate and weight decay go by the student."""
    common = draw(f"alone {student_of(cell)}", trial)
    common["weight_decay"] = random.Random(f"{student_of(cell)} {trial}").choice([3e-6, 1e-5, 3e-5])
    return {**draw(cell, trial), **common}


def config_of(cell: str, keys: dict[str, Any], seed: int) -> dict[str, Any]:
    """The whole config_dict of a run of a cell."""
    role, pair = cell.split()
    width = TEACHERS[pair] if role == "teacher" else STUDENTS[student_of(cell)][1]
    config = {**PROTOCOL, "seed": seed, **keys}
    config |= {"embedding_size": width} if width else {}
    if pair == "EASE":
        config |= {"epochs": 1, "eval_step": 1}
    if role in METHOD:
        teacher = pair.split("-")[0]
        recipe = {key: PROTOCOL[key] for key in ("epochs", "eval_step", "stopping_step")}
        recipe |= {"embedding_size": TEACHERS[teacher]} if TEACHERS[teacher] else {}
        recipe.update(model=teacher, **frozen(f"teacher {teacher}"))
        if "teacher.spectral_rank" in keys:
            recipe["spectral_rank"] = config.pop("teacher.spectral_rank")
        config.update({"trainer": role, "teacher": recipe, f"{role.lower()}_projector": "linear"})
    return config


def frozen(cell: str) -> dict[str, Any]:
    """The keys that validation chose for a cell: from configs.yaml, else of its finished trials."""
    file = HOME / "configs.yaml"
    if file.is_file():
        chosen = yaml.safe_load(file.read_text())
        if cell in chosen:
            return chosen[cell]
    done = finished(cell)
    if not is_later(cell):
        return done[0]["keys"]
    scores = [[row["valid_ndcg@10"], *on_more_seeds(cell, row["keys"])] for row in done]
    if sum(len(values) > len(MORE_SEEDS) for values in scores) < LATER_FINALISTS:
        raise SystemExit(f"{cell} has its trials: decide between the best first.")
    decided = [
        (np.mean(values), row["keys"])
        for values, row in zip(scores, done)
        if len(values) > len(MORE_SEEDS)
    ]
    return max(decided, key=lambda pair: pair[0])[1]


def finished(cell: str) -> list[dict[str, Any]]:
    """The trials of a cell that has them all, best first."""
    done = [row for row in read("trials") if row["cell"] == cell]
    if len(done) < trials_of(cell):
        raise SystemExit(f"{cell} has {len(done)} of {trials_of(cell)} trials: tune it first.")
    return sorted(done, key=lambda row: -row["valid_ndcg@10"])


def on_more_seeds(cell: str, keys: dict[str, Any]) -> list[float]:
    """Validation of a config on the further seeds, as far as it has been run."""
    rows = [row for row in read("refined") if (row["cell"], row["keys"]) == (cell, keys)]
    return [row["valid_ndcg@10"] for row in rows if row["seed"] in MORE_SEEDS]


def decide(cell: str) -> None:
    """The best trials of a cell on more seeds; validation only."""
    for row in finished(cell)[:LATER_FINALISTS]:
        for seed in MORE_SEEDS[len(on_more_seeds(cell, row["keys"])) :]:
            result = run(cell, row["keys"], seed, test=False)
            found = {"cell": cell, "seed": seed, "keys": row["keys"]}
            found |= {"valid_ndcg@10": result.best_valid_score}
            append("refined", {**found, "seconds_per_epoch": result.seconds_per_epoch})
            print(found, flush=True)


def read(name: str) -> list[dict[str, Any]]:
    file = HOME / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def append(name: str, row: dict[str, Any]) -> None:
    with open(HOME / f"{name}.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def run(cell: str, keys: dict[str, Any], seed: int, test: bool) -> Any:
    import recbole_freqd

    recbole_freqd.register()
    from recbole.config import Config

    from recbole_freqd.config.reading import no_command_line
    from recbole_freqd.jobs import run as runs

    with no_command_line():
        name = student_of(cell)
        model = name if cell.startswith("teacher") else STUDENTS[name][0]
        config = Config(model, "ml-100k", config_dict=config_of(cell, keys, seed))
    return runs.run(config, saved=test, test=test)


def tune(cell: str) -> None:
    """Random search on the validation split of one seed; no test metric is ever computed."""
    done = {row["trial"] for row in read("trials") if row["cell"] == cell}
    for trial in range(trials_of(cell)):
        if trial in done:
            continue
        keys = draw(cell, trial)
        result = run(cell, keys, TUNING_SEED, test=False)
        append(
            "trials",
            {
                "cell": cell,
                "trial": trial,
                "seed": TUNING_SEED,
                "keys": keys,
                "valid_ndcg@10": result.best_valid_score,
                "seconds_per_epoch": result.seconds_per_epoch,
                "epochs": len(result.trainer.train_loss_dict),
            },
        )
        print(cell, trial, result.best_valid_score, keys, flush=True)


def refine(cell: str) -> None:
    """More trials on the tuning seed, then the best of all on more seeds; validation only."""

    def valid(keys: dict[str, Any], seed: int) -> float:
        for row in read("refined"):
            if (row["cell"], row["seed"], row["keys"]) == (cell, seed, keys):
                return row["valid_ndcg@10"]
        result = run(cell, keys, seed, test=False)
        row = {"cell": cell, "seed": seed, "keys": keys, "valid_ndcg@10": result.best_valid_score}
        append("refined", {**row, "seconds_per_epoch": result.seconds_per_epoch})
        print(row, flush=True)
        return result.best_valid_score

    tried = [(row["valid_ndcg@10"], row["keys"]) for row in read("trials") if row["cell"] == cell]
    for trial in range(TRIALS, TRIALS + MORE_TRIALS):
        keys = draw_paired(cell, trial)
        tried.append((valid(keys, TUNING_SEED), keys))
    tried.sort(key=lambda pair: -pair[0])
    means = [
        (np.mean([score, *(valid(keys, seed) for seed in MORE_SEEDS)]), keys)
        for score, keys in tried[:FINALISTS]
    ]
    file = HOME / "configs.yaml"
    chosen = yaml.safe_load(file.read_text())
    chosen[cell + SECOND] = max(means, key=lambda pair: pair[0])[1]
    file.write_text(yaml.safe_dump(chosen, sort_keys=False))


def final(cell: str, suffix: str = "") -> None:
    """All seeds with the frozen config; the only place where the test split is opened."""
    done = {row["seed"] for row in read("final") if row["cell"] == cell + suffix}
    keys = yaml.safe_load((HOME / "configs.yaml").read_text())[cell + suffix]
    commit = committed()
    for seed in seeds_of(cell):
        if seed in done:
            continue
        result = run(cell, keys, seed, test=True)
        append(
            "final",
            {
                "cell": cell + suffix,
                "seed": seed,
                "commit": commit,
                "valid": result.best_valid_result,
                "test": result.test_result,
                "seconds_per_epoch": result.seconds_per_epoch,
                "epochs": len(result.trainer.train_loss_dict),
            },
        )
        print(cell, seed, result.test_result, flush=True)


def committed() -> str:
    """The commit that the code and the frozen configs are of.

    Raises:
        SystemExit: The configs are not committed: test is opened after that only.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=HOME, capture_output=True, text=True)
        return done.stdout.strip()

    if git("status", "--porcelain", "--", "configs.yaml"):
        raise SystemExit("results/ml-100k/configs.yaml has changes: commit it first.")
    changed = git("status", "--porcelain", "--", "../../recbole_freqd", "../../properties")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def freeze() -> None:
    """Writes the best trial of every cell that has all its trials; what is frozen stays."""
    counts = Counter(row["cell"] for row in read("trials"))
    file = HOME / "configs.yaml"
    chosen = yaml.safe_load(file.read_text()) if file.is_file() else {}
    done = [cell for cell in cells() if counts[cell] == trials_of(cell)]
    chosen.update({cell: frozen(cell) for cell in done})
    (HOME / "configs.yaml").write_text(yaml.safe_dump(chosen, sort_keys=False))


STAGES = ("tune", "decide", "final", "refine")
METRICS = ("ndcg@10", "ndcg@20", "recall@10", "recall@20")
AIMS = {"alone": 1.05, "teacher": 0.97}


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def cell_of(role: str, pair: str) -> str:
    """The cell of a row of a pair's table: ``teacher``, ``alone`` or a method."""
    teacher, student = pair.split("-")
    return f"{role} {pair if role in METHOD else teacher if role == 'teacher' else student}"


def pair_section(pair: str, runs: dict[str, dict[int, Any]], suffix: str = "") -> str:
    """Table of a pair, and the ratios paired by seed; a suffix picks a round of the students."""
    found, seeds = {"teacher": runs[cell_of("teacher", pair)]}, seeds_of(pair)
    found |= {role: runs[cell_of(role, pair) + suffix] for role in ("alone", *METHOD)}
    head = ["", "valid NDCG@10", *(f"test {name}" for name in METRICS), "epochs", "s / epoch"]
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    for role, by_seed in found.items():
        rows = [by_seed[seed] for seed in seeds]
        cells = [spread([row["valid"]["ndcg@10"] for row in rows])]
        cells += [spread([row["test"][name] for row in rows]) for name in METRICS]
        cells += [f"{np.mean([row['epochs'] for row in rows]):.0f}"]
        solved = role == "teacher" and pair.startswith("EASE")  # its epoch is an idle pass
        seconds = np.median([row["seconds_per_epoch"] for row in rows])
        cells += ["solved" if solved else f"{seconds:.2f}"]
        lines.append(f"| {role} | " + " | ".join(cells) + " |")
    test = {
        role: np.array([by_seed[seed]["test"]["ndcg@10"] for seed in seeds])
        for role, by_seed in found.items()
    }
    lines += ["", "Ratios of test NDCG@10, paired by seed (mean ± sd of the ratios):", ""]
    lines += ["| | | aim | |", "| --- | ---: | ---: | --- |"]
    for other in ("alone", "FD", "teacher"):
        ratio = test["FreqD"] / test[other]
        aim = AIMS.get(other)
        verdict = "" if aim is None else ("reached" if ratio.mean() >= aim else "**missed**")
        wins = f"above 1 in {(ratio > 1).sum()} of {len(seeds)} seeds"
        lines.append(
            f"| FreqD / {other} | {spread(list(ratio))} | {aim or ''} | "
            + "; ".join(filter(None, (verdict, wins)))
            + " |"
        )
    best = test["teacher"] / test["alone"]
    lines += [f"| teacher / alone | {spread(list(best))} | | what there is to gain |"]
    gaps = {
        method: (test[method].mean() - test["alone"].mean())
        / (test["teacher"].mean() - test["alone"].mean())
        for method in METHOD
    }
    if test["teacher"].mean() > test["alone"].mean():
        words = ", ".join(f"{method} {gap:.0%}" for method, gap in gaps.items())
        lines += [
            "",
            f"Gap between student alone and teacher that is closed (of the means): {words}.",
        ]
    return "\n".join(lines)


def report() -> None:
    """Writes results/ml-100k.md from final.jsonl, configs.yaml and the protocol above."""
    runs: dict[str, dict[int, Any]] = {}
    for row in read("final"):
        runs.setdefault(row["cell"], {})[row["seed"]] = row
    commits = sorted({row["commit"] for row in read("final")})
    text = (Path(__file__).parent / "ml_100k_preface.md").read_text()
    for pair in PAIRS:
        teacher, student = pair.split("-")
        width = STUDENTS[student][1]
        name = f"{teacher} {TEACHERS[teacher]}" if TEACHERS[teacher] else teacher
        title = f"\n## {name} → {STUDENTS[student][0]} {width}"
        for suffix in ("", SECOND):
            needed = [cell_of(role, pair) + suffix for role in ("alone", *METHOD)]
            if all(len(runs.get(cell, {})) == len(seeds_of(cell)) for cell in needed):
                text += title
                text += f"{', second round, after test' if suffix else ''}\n\n"
                text += pair_section(pair, runs, suffix) + "\n"
            elif not suffix:
                counts = Counter(row["cell"] for row in read("trials"))
                state = [f"{cell} {counts[cell]} of {trials_of(cell)}" for cell in needed]
                text += title + "\n\n"
                text += (
                    f"Not finished, no test metric computed. Trials so far: {', '.join(state)}.\n"
                )
    configs = (HOME / "configs.yaml").read_text()
    text += "\n## The frozen configs\n\nFor every cell:\n\n```yaml\n"
    text += yaml.safe_dump(PROTOCOL, sort_keys=False)
    text += "```\n\nand what validation chose (`embedding_size` as in the headings; "
    text += "projectors `linear`; everything else as in `properties/`):\n\n```yaml\n"
    text += f"{configs}```\n\nCode of the final runs: commit {', '.join(commits)}. "
    text += "All trials: `ml-100k/trials.jsonl`; all final runs: `ml-100k/final.jsonl`.\n"
    (HOME.parent / "ml-100k.md").write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=[*STAGES, "freeze", "report", "cells"])
    parser.add_argument("--second", action="store_true", help="final: with the config of round two")
    parser.add_argument("cell", nargs="*", help="e.g. FreqD BPR-BPR")
    options = parser.parse_args()
    name = " ".join(options.cell)
    if options.stage in STAGES and name not in cells():
        parser.error(f"cell {name!r}; allowed: {', '.join(cells())}")
    HOME.mkdir(parents=True, exist_ok=True)
    if options.stage == "cells":
        print("\n".join(cells()))
    elif options.stage == "freeze":
        freeze()
    elif options.stage == "tune":
        tune(name)
    elif options.stage == "decide":
        decide(name)
    elif options.stage == "final":
        final(name, SECOND if options.second else "")
    elif options.stage == "refine":
        refine(name)
    else:
        report()
