"""Time and memory of splitting energy among bands without eigenvectors, and the floor of it.

    python benchmarks/bench_spectrum.py [--vertices 250000 500000 --width 64] [--full]

A random graph with as many edges as the co-occurrence graph of k = 5 has, so with no locality to
help the cache: the worst case. The times grow with the edges, so what 2 M vertices take follows
from the larger of the sizes, as the last column says; --full measures it. The floor is the time of
the products with Â alone. CPU seconds (of all threads) are what counts where the machine is busy.
"""

import argparse
from time import perf_counter, process_time
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import MB, Peak, save, with_command_line

GOAL = 2_000_000


def random_graph(n: int, k: int, seed: int = 0) -> sp.csr_array:
    """Â of a graph where everybody (but the padding) chose k others, weights as ours."""
    rng = np.random.default_rng(seed)
    rows, columns = np.repeat(np.arange(1, n), k), rng.integers(1, n, (n - 1) * k)
    other = rows != columns
    weights = sp.csr_array((np.ones(other.sum()), (rows[other], columns[other])), shape=(n, n))
    weights = sp.csr_array((weights + weights.T) / 2)
    root = np.asarray(weights.sum(axis=1)).ravel()
    root[root > 0] **= -0.5
    return sp.csr_array(sp.diags_array(root) @ weights @ sp.diags_array(root))


def measure(n: int, width: int, bands: int) -> dict[str, Any]:
    import torch

    from recbole_freqd.graph.spectrum import GraphSpectrum

    graph = random_graph(n, 5)
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(0))
    spectrum = GraphSpectrum(graph, bands, exact=False)
    with Peak() as peak:
        start, busy = perf_counter(), process_time()
        energies = spectrum.energies(x)
        seconds, busy = perf_counter() - start, process_time() - busy
    matrix, block = spectrum._matrix(torch.float32, x.device), x[1:, :32].contiguous()
    into = torch.empty_like(block)
    start = process_time()
    for _ in range(3):
        into.addmm_(matrix, block, beta=-1.0, alpha=-2.0)
    product = (process_time() - start) / 3
    floor = product * (spectrum.degree // 2) * width / 32
    off = abs(energies.sum() / float(x[1:].double().square().sum()) - 1)
    row = {
        "vertices": n,
        "edges": graph.nnz // 2,
        "width": width,
        "degree": spectrum.degree,
        "seconds": round(seconds, 1),
        "CPU seconds": round(busy, 1),
        "of these in the products": round(floor, 1),
        "MB beyond the features": round((peak.highest - peak.base) / MB),
        "MB of the features": round(x.nbytes / MB),
        "sum is off by": f"{off:.0e}",
        f"CPU minutes at {GOAL // 10**6} M, by size": round(busy * GOAL / n / 60, 1),
    }
    print(row, flush=True)
    return row


def main(options: argparse.Namespace) -> None:
    sizes = [GOAL] if options.full else options.vertices
    rows = [measure(n, options.width, options.bands) for n in sizes]
    save("spectrum", "Energies by band, without eigenvectors", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vertices", type=int, nargs="+", default=[125_000, 250_000, 500_000])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--bands", type=int, default=8)
    parser.add_argument("--full", action="store_true", help=f"measure {GOAL:,} vertices instead")
    with_command_line(main, parser)
