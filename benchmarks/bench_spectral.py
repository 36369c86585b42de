"""Memory and time of the low-rank features of a model that is only known by its scores.

    RECBOLE_FREQD_DATA=... python benchmarks/bench_spectral.py [--model ItemKNN] [--dataset gowalla]

Builds the model on a dataset with a fixed split, then extracts its features in the way its adapter
does (for ItemKNN from its own sparse factors) and by scoring all users in blocks, and says how far
the process's memory rose above what it was with the model alone. The full score matrix is named for
comparison. RecBole writes log/ and saved/ into the working directory: run it from a scratch folder.
"""

import argparse
import json
import os
from time import perf_counter
from typing import Any, Callable

from common import MB, Peak, save, with_command_line


def build(model: str, dataset: str, keys: dict[str, Any]) -> Any:
    import recbole_freqd

    recbole_freqd.register()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.config.reading import no_command_line

    base = {
        "data_path": os.environ["RECBOLE_FREQD_DATA"],
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "state": "ERROR",
    }
    with no_command_line():
        config = Config(model, dataset, config_dict={**base, **keys})
    train_data = data_preparation(config, create_dataset(config))[0]
    return config.model_class(config, train_data._dataset)


def measure(model: Any, name: str, scores: Callable[[], Any], rank: int) -> dict[str, Any]:
    from recbole_freqd.features import adapter_of
    from recbole_freqd.features.low_rank import low_rank_features
    from recbole_freqd.features.scores import inspecting

    with Peak() as peak, inspecting(model, adapter_of(model).caches):
        start = perf_counter()
        user_emb, _, share = low_rank_features(scores(), rank)
        seconds = perf_counter() - start
    return {
        "way": name,
        "rank": user_emb.shape[1],
        "energy_kept": round(share, 4),
        "seconds": round(seconds, 1),
        "mb_with_the_model": round(peak.base / MB),
        "mb_beyond_the_model": round((peak.highest - peak.base) / MB),
        "mb_of_the_score_matrix": round(4 * model.n_users * model.n_items / MB),
    }


def main(options: argparse.Namespace) -> None:
    start = perf_counter()
    model = build(options.model, options.dataset, options.keys)
    title = f"{options.model} on {options.dataset}: {model.n_users} users, {model.n_items} items"
    print(f"{title}, built in {perf_counter() - start:.0f} s", flush=True)
    from recbole_freqd.features import adapter_of
    from recbole_freqd.features.scores import ScoredUsers

    ways = {
        "adapter": lambda: adapter_of(model).scores(model, True),
        "blocks of users": lambda: ScoredUsers(model, True),
    }
    rows = [measure(model, name, scores, options.rank) for name, scores in ways.items()]
    save("spectral", f"Low-rank features, {title}", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ItemKNN")
    parser.add_argument("--dataset", default="gowalla")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--keys", type=json.loads, default={}, help="RecBole keys, as JSON")
    with_command_line(main, parser, needs_data=True)
