"""What of FreqD's design matters, on validation: one change at a time from its chosen config.

    python benchmarks/comparisons/diagnose_freqd.py CONFIG.yaml FROZEN.yaml --out FILE.jsonl

CONFIG.yaml and FROZEN.yaml are those of a comparison that was tuned. Finished runs are kept: a file
is of one CONFIG and one FROZEN. RecBole writes log/ and saved/ into the working directory.
"""

import argparse
import json
import sys
from pathlib import Path

from recbole_freqd.config import make
from recbole_freqd.config.make import make_config
from recbole_freqd.core.files import read_yaml
from recbole_freqd.jobs import run as runs
from recbole_freqd.trainer.register import register


def variants(weight: float) -> dict[str, dict[str, object]]:
    """The changes, by what they are called; ``weight`` is the chosen freqd_beta."""
    mlp = {"freqd_projector": "mlp"}
    return {
        "chosen": {},
        "mlp": mlp,
        "squared": {"freqd_distance": "squared"},
        "alpha 0": {"freqd_alpha": 0.0},
        "alpha 1": {"freqd_alpha": 1.0},
        "quadratic": {"freqd_filter": "quadratic"},
        "alpha 0.3": {"freqd_alpha": 0.3},
        "k 20": {"freqd_k": 20},
        "k 50": {"freqd_k": 50},
        "no edge dropout": {"freqd_keep_prob": 1.0},
        "mlp, weight x 3": {**mlp, "freqd_beta": 3 * weight},
        "weight x 3": {"freqd_beta": 3 * weight},
        "weight x 10": {"freqd_beta": 10 * weight},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("frozen")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020])
    parser.add_argument("--variants", nargs="+", choices=variants(1.0), help="these only")
    parser.add_argument("--data_path", help="where RecBole finds the dataset")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole's Config would read it too
    register()
    out = Path(options.out)
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    frozen = read_yaml(options.frozen, "FROZEN.yaml")
    place = {"data_path": options.data_path} if options.data_path else {}
    base = make_config(None, None, [options.config], {"trainer": ["FreqD"], **place})
    teacher = {**base["teacher"], **frozen.get("teacher", {})}
    for seed in options.seeds:
        for name, change in variants(frozen["FreqD"]["freqd_beta"]).items():
            if options.variants and name not in options.variants:
                continue
            if any((row["name"], row["seed"]) == (name, seed) for row in done):
                continue
            keys = {**frozen["FreqD"], **change, "teacher": teacher, "seed": seed}
            run = runs.run(make.config_with(base, ["FreqD"], **keys), saved=False, test=False)
            epochs = len(run.trainer.train_loss_dict)
            row = {"name": name, "seed": seed, "valid": run.best_valid_score, "epochs": epochs}
            with open(out, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
