"""Top lists of every user of a big catalogue, written to a file: time, and memory.

    python benchmarks/bench_recommend.py [--users 200000] [--items 200000] [--dimensions 20]

Vectors are random, interactions heavy-tailed and left out. A quarter of the users is ranked first:
memory should not grow with their number. Reading a checkpoint and its data is not timed.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from common import MB, Peak, save, with_command_line
from synthetic import heavy_tailed


def main(options: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from recbole_freqd.core.pair_files import Columns
    from recbole_freqd.core.rankers import FeatureRanker
    from recbole_freqd.jobs.recommend.lists import open_lists
    from recbole_freqd.jobs.recommend.top import top_lists

    generator = torch.Generator().manual_seed(0)
    n_users, n_items = options.users + 1, options.items + 1
    ranker = FeatureRanker(
        *(torch.randn(n, options.dimensions, generator=generator) for n in (n_users, n_items))
    )
    seen = heavy_tailed(n_users, n_items, options.interactions)
    users, items = (np.arange(n).astype(str) for n in (n_users, n_items))
    rows: list[dict[str, Any]] = []
    for count in (options.users // 4, options.users):
        with tempfile.TemporaryDirectory() as folder, Peak() as peak:
            path, start = Path(folder) / f"lists.{options.format}", perf_counter()
            ids = np.arange(1, count + 1)
            with open_lists(path, Columns("user_id", "item_id"), {}) as write:
                for some, best, scores in top_lists(ranker, ids, options.top, leave_out=seen):
                    write(users[some], items[best], scores)
            seconds, size = perf_counter() - start, path.stat().st_size
        rows.append(
            {
                "users": f"{count:,}",
                "seconds": f"{seconds:.0f}",
                "ms a user": f"{1000 * seconds / count:.2f}",
                "MB beside model and data": f"{(peak.highest - peak.base) / MB:.0f}",
                "MB of the file": f"{size / MB:.0f}",
            }
        )
    save("recommend", f"Top {options.top} of {options.items:,} items", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=20)
    parser.add_argument("--interactions", type=int, default=4_000_000)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--format", default="parquet", help="parquet or csv")
    with_command_line(main, parser)
