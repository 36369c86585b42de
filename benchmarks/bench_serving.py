"""What a student saves when it serves: time to rank the catalogue, and size, against its teacher.

    RECBOLE_FREQD_DATA=... python benchmarks/bench_serving.py [--dataset citeulike]

Scores of all items and the top 20 for 1,000 users, teacher and students by turns, median of seven;
untrained models, since values do not matter for the time. RecBole writes log/ into the working
directory: run it from a scratch folder.
"""

import argparse
import os
from typing import Any

from common import save, with_command_line

MODELS = {
    "BPR 400 (teacher)": ("BPR", {"embedding_size": 400}),
    "BPR 20": ("BPR", {"embedding_size": 20}),
    "LightGCN 400 (teacher)": ("LightGCN", {"embedding_size": 400}),
    "LightGCN 20": ("LightGCN", {"embedding_size": 20}),
    "MultiVAE 600 (teacher)": ("MultiVAE", {}),
}


def main(options: argparse.Namespace) -> None:
    import recbole_freqd

    recbole_freqd.register()
    from recbole.config import Config
    from recbole.data import create_dataset

    from recbole_freqd.jobs.measure import parameter_count, ranking_latencies, size_mb

    models = []
    for model, keys in MODELS.values():
        base: dict[str, Any] = {
            "data_path": os.environ["RECBOLE_FREQD_DATA"],
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "state": "ERROR",
        }
        config = Config(model, options.dataset, config_dict={**base, **keys})
        train = create_dataset(config).build()[0]
        models.append(config.model_class(config, train))
    latencies = ranking_latencies(models)
    rows = [
        {
            "model": name,
            "parameters": parameter_count(model),
            "MB": round(size_mb(model), 2),
            "ms to rank for 1,000 users": round(latency, 1),
            "ratio to BPR 20": round(latency / latencies[1], 2),
        }
        for name, model, latency in zip(MODELS, models, latencies)
    ]
    save("serving", f"Ranking {models[0].n_items - 1:,} items", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="citeulike")
    with_command_line(main, parser, needs_data=True)
