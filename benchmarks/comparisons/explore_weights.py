"""Where the useful weights of each method lie: validation only, one seed, before ranges are fixed.

    python benchmarks/comparisons/explore_weights.py CONFIG.yaml --out FILE.jsonl [--methods FD,RRD]

Every method has the same five weights, spread evenly (in logarithms) from a tenth of the lower
limit of its shipped range (``properties/search/``) to ten times the upper one; all else is the
config's. Finished runs are kept. RecBole writes log/ and saved/ into the working directory.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from recbole_freqd.config import make
from recbole_freqd.config.make import make_config
from recbole_freqd.core.errors import FreqDError
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.tuning.space import space_of
from recbole_freqd.losses import LOSSES
from recbole_freqd.trainer.register import register


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--out", required=True)
    parser.add_argument("--methods", default=",".join(LOSSES.names()))
    parser.add_argument("--keys", default="{}", help="JSON: keys over those of the config")
    options = parser.parse_args()
    register()
    methods, out = options.methods.split(","), Path(options.out)
    keys = json.loads(options.keys)
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    base = make_config(None, None, [options.config], {**keys, "trainer": methods})
    for method in [None, *methods]:
        weights = [None]
        if method:
            beta = f"{LOSSES.get(method).prefix}_beta"
            low, high = space_of([method])[beta].values
            weights = [float(f"{x:.2g}") for x in np.geomspace(low / 10, high * 10, 5)]
        for weight in weights:
            key = {"method": method, "weight": weight, "keys": keys}
            if any({name: row[name] for name in key} == key for row in done):
                continue
            changes = {beta: weight} if method else {}
            try:
                run = runs.run(
                    make.config_with(base, [method] if method else [], seed=2020, **changes),
                    saved=False, test=False,
                )  # fmt: skip
                row = {
                    **key,
                    "valid": run.best_valid_score,
                    "epochs": len(run.trainer.train_loss_dict),
                    "seconds_per_epoch": run.seconds_per_epoch,
                }
            except (FreqDError, ValueError) as error:
                row = {**key, "valid": None, "error": str(error)}
            with open(out, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
