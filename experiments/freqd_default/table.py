"""Writes what the forms of FreqD's projector came to: a line per run, and a table.

python experiments/rows/run.py experiments/freqd_default/ml-100k.yaml --part forms \
        --out cells/ml-100k
python experiments/freqd_default/table.py cells/ml-100k cells/citeulike --out results/freqd_default
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from recbole_freqd.jobs.tables import format_spread

KEPT = ("row", "seed", "best_epoch", "epochs", "seconds_per_epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of experiments/rows/run.py's --out")
    parser.add_argument("--out", required=True, type=Path, help="path without ending")
    own = Path(__file__).parent / "about.md"
    parser.add_argument("--about", default=own, type=Path, help="what stands above the table")
    options = parser.parse_args()
    runs = [run for folder in options.folders for run in read_runs(folder)]
    lines = [json.dumps(run) for run in runs]
    options.out.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(as_table(runs, options.about), encoding="utf-8")


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The finished runs of a folder, by name and seed."""
    runs = []
    for path in sorted((folder / "cells").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        score = record["valid"]["ndcg@10"]
        kept = {key: record[key] for key in KEPT}
        runs.append({"dataset": record["keys"]["dataset"], **kept, "valid_ndcg@10": score})
    return runs


def as_table(runs: list[dict[str, Any]], about: Path) -> str:
    """Mean and standard deviation of each form."""
    text = about.read_text(encoding="utf-8")
    lines = [
        "| dataset | form | seeds | valid NDCG@10 | best epoch |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for dataset, row in dict.fromkeys((run["dataset"], run["row"]) for run in runs):
        own = [run for run in runs if (run["dataset"], run["row"]) == (dataset, row)]
        scores = [run["valid_ndcg@10"] for run in own]
        epochs = round(mean(run["best_epoch"] for run in own))
        lines.append(f"| {dataset} | {row} | {len(own)} | {format_spread(scores)} | {epochs} |")
    return f"{text}\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
