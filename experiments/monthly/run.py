"""Three months of ml-100k: a student that goes on from last month's against one that begins anew.

    python experiments/monthly/run.py --out results/monthly [--seeds 2020,2021,2022]

The first month has the oldest three fifths of the interactions, each next one a fifth more, with
users and items that are new. Every month is split by time within each user (8:1:1). A month's
student continues the one that continued before; each is exported and turned onto the export of the
month before. RecBole writes log/ and saved/ into the working directory: run it from a scratch
folder.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np

import recbole_freqd

MONTHS = (0.6, 0.8, 1.0)
KEYS = {
    "embedding_size": 8,
    "learning_rate": 0.005,
    "train_batch_size": 2048,
    "epochs": 100,
    "eval_step": 1,
    "stopping_step": 10,
    "valid_metric": "NDCG@10",
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user"},
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "data_path": "months",
    "show_progress": False,
    "state": "ERROR",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", default="2020,2021,2022")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    recbole_freqd.register()
    write_months()
    rows: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        last: Optional[str] = None
        for month in range(1, len(MONTHS) + 1):
            old = f"month{month - 1}-continued-{seed}" if last else None
            if last:
                rows.append(measured(month, seed, "anew", None, old)[0])
            row, last = measured(month, seed, "continued", last, old)
            rows.append(row)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) for row in rows)
    (options.out / "runs.jsonl").write_text("\n".join(lines) + "\n")
    text = report(rows)
    options.out.with_suffix(".md").write_text(text)
    print(text)


def write_months() -> None:
    """The interactions up to the end of each month, as datasets of RecBole's."""
    import recbole

    name = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
    lines = [line.split("\t") for line in name.read_text().splitlines()[1:]]
    lines.sort(key=lambda line: float(line[3]))
    for month, share in enumerate(MONTHS, start=1):
        folder = Path("months") / f"month{month}"
        folder.mkdir(parents=True, exist_ok=True)
        kept = (
            f"{user}\t{item}\t{time}" for user, item, _, time in lines[: int(share * len(lines))]
        )
        head = "user_id:token\titem_id:token\ttimestamp:float"
        (folder / f"month{month}.inter").write_text("\n".join([head, *kept]) + "\n")


def measured(
    month: int, seed: int, how: str, last: Optional[str], old: Optional[str]
) -> tuple[dict[str, Any], str]:
    """A month's student, and its checkpoint."""
    from recbole.config import Config

    from recbole_freqd.jobs import run as runs

    keys = {**KEYS, "seed": seed, **({"warm_start": last} if last else {})}
    run = runs.run(Config("BPR", f"month{month}", config_dict=keys))
    path, out = run.trainer.saved_model_file, f"month{month}-{how}-{seed}"
    manifest = recbole_freqd.export(path, out, align=old, overwrite=True)
    row = {
        "month": month,
        "seed": seed,
        "how": how if month > 1 else "first",
        "test": run.test_result["ndcg@10"],
        "valid": run.best_valid_result["ndcg@10"],
        "best_epoch": run.best_epoch,
        "seconds_to_best": run.seconds_to_best,
        "aligned": manifest["aligned"],
    }
    return row, path


def report(rows: list[dict[str, Any]]) -> str:
    heads = "month, student, test NDCG@10, best epoch, s to best, drift, drift after the turn"
    lines = [f"| {heads.replace(', ', ' | ')} |", "| --- | --- " + "| ---: " * 5 + "|"]
    for month, how in sorted({(row["month"], row["how"]) for row in rows}):
        own = [row for row in rows if (row["month"], row["how"]) == (month, how)]
        test = np.array([row["test"] for row in own])
        drift = [
            f"{np.mean([row['aligned'][f'drift_{when}'] for row in own]):.0%}" if month > 1 else ""
            for when in ("before", "after")
        ]
        cells = [
            str(month),
            how,
            f"{test.mean():.4f} ± {test.std(ddof=1):.4f}",
            f"{np.mean([row['best_epoch'] for row in own]):.0f}",
            f"{np.mean([row['seconds_to_best'] for row in own]):.1f}",
            *drift,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    return f"""# Next month: continued against begun anew

BPR of 8 dimensions on three months of ml-100k, made by time: three fifths of the interactions, then
a fifth more each; mean ± sd over the seeds {seeds}. *continued*: `warm_start` is last month's
student. Drift: mean distance of a vector to its old self in last month's export, as a share of the
mean length of an old vector, before and after `export --align`.

{chr(10).join(lines)}

`experiments/monthly/run.py` makes it; all figures are in `monthly/runs.jsonl`.
"""


if __name__ == "__main__":
    main()
