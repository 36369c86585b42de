"""A sequential model teaches by its lists: SASRec on ml-100k, a BPR of 8 dimensions.

    python experiments/sasrec/run.py --out results/sasrec [--seeds 2020,2021,2022] [--saved DIR]

``examples/sasrec_lists.py`` trains SASRec on the training pairs of each seed and writes its lists.
The lists are evaluated as a teacher; they teach alone, and in a team with a BPR of 64 dimensions.
FreqRank's weight is chosen on validation (the mean over seeds) for each teacher. Finished rows are
kept in ``runs.jsonl``, the table is ``<out>.md``. RecBole writes log/, saved/ and sequences/ into
the working directory: run it from a scratch folder.
"""

import argparse
import json
import runpy
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import recbole_freqd
from recbole_freqd.core.files import read_yaml
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.tables import as_table, format_spread

METRIC = "ndcg@10"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sasrec_lists.py"
SASREC = {
    "n_layers": 1,
    "hidden_size": 32,
    "inner_size": 64,
    "MAX_ITEM_LIST_LENGTH": 20,
    "hidden_dropout_prob": 0.2,
    "attn_dropout_prob": 0.2,
    "learning_rate": 0.005,
    "train_batch_size": 1024,
    "epochs": 14,
    "eval_step": 2,
    "stopping_step": 1,
    "valid_metric": "NDCG@10",
    "show_progress": False,
    "state": "ERROR",
}
# Keys that validation has chosen with a BPR of 64 dimensions as teacher, from their one place.
ROWS = read_yaml(str(Path(__file__).resolve().parents[1] / "rows" / "ml-100k.yaml"), "file")
BPR = ROWS["common"]["teacher"]
KEYS = {key: value for key, value in ROWS["common"].items() if key != "teacher"}
KEYS["load_col"] = {"inter": ["user_id", "item_id", "timestamp"]}
ALONE, FREQRANK = ROWS["rows"]["alone"], ROWS["rows"]["FreqRank"]
SPLITS = {"time": "TO", "random": "RO"}
EVAL_ARGS = {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "mode": "full"}
BETAS = (0.1, 1.0, 8.0, 32.0, 128.0)
TEACHERS = ("lists", "team")
NAMES = {None: "BPR 8 alone", "lists": "SASRec's lists", "team": "SASRec's lists and BPR 64"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", default="2020,2021,2022")
    parser.add_argument("--saved", default="saved", help="folder of checkpoints (default: saved)")
    parser.add_argument("--splits", default="time,random", help="default: time,random")
    parser.add_argument("--teachers", default=",".join(TEACHERS), help=f"default: {TEACHERS}")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    recbole_freqd.register()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for split in options.splits.split(","):
        for seed in map(int, options.seeds.split(",")):
            common = {**KEYS, "seed": seed, "checkpoint_dir": options.saved}
            common["eval_args"] = {**EVAL_ARGS, "order": SPLITS[split]}
            for key, keys in asked_for(split, seed, options.teachers.split(",")):
                key = {"split": split, "seed": seed, **key}
                if not any(key.items() <= row.items() for row in rows):
                    if keys.get("trainer"):
                        write_lists(split, seed)
                    rows.append({**key, **measured({**common, **keys})})
                    print_line(json.dumps(rows[-1]))
                    with open(file, "a") as stream:
                        stream.write(f"{json.dumps(rows[-1])}\n")
    text = report(rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


def write_lists(split: str, seed: int) -> None:
    """Runs the example, unless its lists are there."""
    name = f"lists-{split}-{seed}.csv"
    if not Path(name).is_file():
        keys: dict[str, Any] = {**SASREC, "seed": seed}
        if split == "time":  # SASRec's own validation, too, is then the last tenth of each user
            keys["eval_args"] = {**EVAL_ARGS, "order": SPLITS[split]}
        words = [f"--{key}={value}" for key, value in keys.items()]
        sys.argv = [str(EXAMPLE), "--dataset", "ml-100k", "--out", name, *words]
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        sys.argv = sys.argv[:1]


def asked_for(
    split: str, seed: int, teachers: list[str]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of a seed, and their keys."""
    lists = {"lists": f"lists-{split}-{seed}.csv", "lists_score": "score"}
    taught_by = {"lists": lists, "team": [BPR, lists]}
    found: list[tuple[dict[str, Any], dict[str, Any]]] = [({"teacher": None, "beta": None}, ALONE)]
    for teacher in teachers:
        for beta in BETAS:
            keys = {**FREQRANK, "freqrank_beta": beta, "teacher": taught_by[teacher]}
            found.append(({"teacher": teacher, "beta": beta}, keys))
    return found


def measured(keys: dict[str, Any]) -> dict[str, Any]:
    """Validation and test of a student; and of what has taught it."""
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs import run as runs

    run = runs.run(make_config(None, None, None, keys))
    assert run.test_result is not None
    found = {"valid": run.best_valid_result[METRIC], "test": run.test_result[METRIC]}
    found["best_epoch"] = run.best_epoch
    if keys.get("trainer"):
        _, (valid, test) = runs.evaluate_teacher(run, 1, 2)
        found |= {"teacher_valid": valid.get(METRIC), "teacher_test": test.get(METRIC)}
        members = run.trainer.teacher.members
        found["weights"] = {member.name: round(member.weight, 3) for member in members}
    return found


def report(rows: list[dict[str, Any]]) -> str:
    """The table; the weight of the loss is the one that is best on validation."""
    lines = [["split", "", "seeds", "beta", "valid", f"test {METRIC}", "best epoch"]]
    tried = {}
    for split in SPLITS:
        there = [row for row in rows if row["split"] == split]
        betas = sorted({row["beta"] for row in there if row["teacher"] == "lists"})
        tried[split] = ", ".join(f"{beta:g}" for beta in betas)
        for teacher, words in NAMES.items():
            of_it = [row for row in there if row["teacher"] == teacher]
            found = chosen(of_it)
            if found and teacher:
                lines.append([split, words, *_line(found, "teacher_")])
            if len({row["beta"] for row in of_it}) > 1 or (found and not teacher):
                student = f"BPR 8 by {words}" if teacher else words
                lines.append([split, student, *_line(found)])
    return f"""# A sequential model as teacher, by its lists

SASRec on ml-100k writes lists of 50 items for every user, and a BPR of 8 dimensions learns from
them by FreqRank; mean ± sd over the seeds, from 2020 on. SASRec has seen the training pairs of the
split, in their order of time, and continues each user's training history; it is small (one layer of
32 dimensions, the last 20 items), for busy CPU cores. *time*: the last tenth of each user's history
is the test, the tenth before it validation. *random*: these lie anywhere in the history, a question
that a next-item model is not made for. *beta*: weight of FreqRank, the best on validation of
{tried["time"]} (time) and {tried["random"]} (random); its other keys were chosen with a BPR as
teacher. A taught student begins as the best approximation of the lists. Validation has to choose
between a teacher and none, too: the student alone is better on the random split, the taught one on
that by time. In a team, validation gives the lists the weight {_weights(rows)} on the random split.

**After test.** The split by time, and the weights 0.1, 1 and 8 on the random split, were added when
figures of the random split's test had been seen. Within a split validation chose. The random runs
stopped after 3 validations without gain, the script says 1: their best epochs are the same.

{as_table(lines, left=2)}

`experiments/sasrec/run.py` makes it; all figures are in `sasrec/runs.jsonl`.
"""


def _weights(rows: list[dict[str, Any]]) -> str:
    """Of the lists in the team, on the random split."""
    teams = [row for row in rows if row["teacher"] == "team" and row["split"] == "random"]
    return ", ".join(sorted({f"{row['weights']['lists']:g}" for row in teams}))


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a split and a teacher: the rows of the beta that is best on validation."""
    by_beta: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        by_beta.setdefault(row["beta"], []).append(row)
    most = max(map(len, by_beta.values()), default=0)
    whole = [found for found in by_beta.values() if len(found) == most]
    return max(whole, key=lambda found: mean(row["valid"] for row in found), default=[])


def _line(rows: list[dict[str, Any]], side: str = "") -> list[str]:
    tests = [row[f"{side}test"] for row in rows]
    valid = mean(row[f"{side}valid"] for row in rows)
    beta = rows[0]["beta"]
    epoch = f"{mean(row['best_epoch'] for row in rows):.0f}"
    weight, epoch = ("", "") if side else (f"{beta:g}" if beta else "", epoch)
    return [f"{len(rows)}", weight, f"{valid:.4f}", format_spread(tests), epoch]


if __name__ == "__main__":
    main()
