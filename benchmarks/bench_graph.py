"""Time and peak memory of building the two graphs; what leaving out hubs changes.

    python benchmarks/bench_graph.py [--users 2000000 --items 2000000 --interactions 15000000]

Synthetic heavy-tailed interactions, and gowalla where RECBOLE_FREQD_DATA names a folder with it.
On gowalla the bound on pairs does not bind; it is made to, and the edges are compared with all.
"""

import argparse
import os
from time import perf_counter
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
from common import MB, Peak, save, with_command_line
from synthetic import heavy_tailed

K = 5


def built(name: str, user_items: sp.csr_array, side: str, max_pairs: Optional[int]) -> Any:
    from recbole_freqd.graph.cooccurrence import cooccurrence_graph

    with Peak() as peak:
        start = perf_counter()
        graph = cooccurrence_graph(user_items, side=side, k=K, max_pairs=max_pairs)
        seconds = perf_counter() - start
    row = {
        "data": name,
        "side": side,
        "max_pairs": f"{max_pairs:.0e}" if max_pairs else "none",
        "entities": graph.shape[0],
        "edges": graph.nnz // 2,
        "linked": f"{(np.diff(graph.indptr) > 0).mean():.1%}",
        "seconds": round(seconds, 1),
        "MB beyond the data": round((peak.highest - peak.base) / MB),
    }
    print(row, flush=True)
    return graph, row


def overlap(bounded: sp.csr_array, whole: sp.csr_array) -> str:
    """Share of the edges of the whole graph that the bounded one has, too."""
    return f"{(bounded.astype(bool).multiply(whole.astype(bool))).nnz / whole.nnz:.1%}"


def gowalla() -> list[dict[str, Any]]:
    import pandas as pd

    path = os.path.join(os.environ["RECBOLE_FREQD_DATA"], "gowalla", "gowalla.train.inter")
    pairs = pd.read_csv(path, sep="\t").iloc[:, :2].apply(lambda column: pd.factorize(column)[0])
    ones = np.ones(len(pairs), np.int8)
    user_items = sp.csr_array((ones, (pairs.iloc[:, 0] + 1, pairs.iloc[:, 1] + 1)))
    rows = []
    for side in ("user", "item"):
        whole, row = built("gowalla", user_items, side, None)
        rows.append({**row, "edges of the unbounded graph": "100 %"})
        for budget in (10_000_000, 3_000_000, 1_000_000):
            bounded, row = built("gowalla", user_items, side, budget)
            rows.append({**row, "edges of the unbounded graph": overlap(bounded, whole)})
    return rows


def main(options: argparse.Namespace) -> None:
    rows = gowalla() if "RECBOLE_FREQD_DATA" in os.environ else []
    user_items = heavy_tailed(options.users, options.items, options.interactions)
    name = f"synthetic, {user_items.nnz / 1e6:.1f} M interactions"
    for side in ("item", "user"):
        row = built(name, user_items, side, 10**9)[1]
        rows.append({**row, "edges of the unbounded graph": "not computed"})
    save("graph", f"Building the graphs, {K} neighbours", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--interactions", type=int, default=15_000_000)
    with_command_line(main, parser)
