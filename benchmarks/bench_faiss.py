"""Top 10 from faiss, teacher against student: size of the index, speed, recall, and NDCG@10.

    RECBOLE_FREQD_DATA=... python benchmarks/bench_faiss.py [--dataset citeulike] [--epochs 12]

A teacher and a distilled student are trained, exported, and put into an exact index (Flat), two
that search less (HNSW, IVF) and two that keep less (SQ8, a byte a number; PQ, a byte for four or
eight). Queries are all users in batches of 256, unmasked, median of seven passes; recall is the
share of the exact index's top 10 that an index finds. NDCG@10 is that of the test items among the
best that are not known from training and validation. RecBole writes log/ into the working
directory: run it from a scratch folder. Without faiss nothing is run.
"""

import argparse
import importlib.util
import os
from time import perf_counter
from typing import Any

from common import median, save, with_command_line

TOP, BATCH, REPEATS = 10, 256, 7


def main(options: argparse.Namespace) -> None:
    if importlib.util.find_spec("faiss") is None:
        print("skipped: faiss is not installed (pip install faiss-cpu)")
        return
    import faiss
    import numpy as np
    import scipy.sparse as sp

    import recbole_freqd

    faiss.omp_set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for name, checkpoint in trained(options).items():
        recbole_freqd.export(checkpoint, f"embeddings-{name}", overwrite=True, histories=True)
        histories = sp.load_npz(f"embeddings-{name}/histories.npz")
        users, items = (
            np.load(f"embeddings-{name}/{side}.npz")["vectors"] for side in ("users", "items")
        )
        exact = None
        for kind, index in indexes(items).items():
            found = search(index, users)
            exact = found if exact is None else exact
            hits = (found[:, :, None] == exact[:, None, :]).any(2).mean()
            rows.append(
                {
                    "vectors": f"{name}, {items.shape[1]}",
                    "index": kind,
                    "MB": f"{faiss.serialize_index(index).nbytes / 1e6:.2f}",
                    "NDCG@10": f"{ndcg(index, users, histories):.4f}",
                    "queries / s": f"{len(users) / seconds(index, users):,.0f}",
                    "recall of the exact 10": f"{hits:.3f}",
                }
            )
    facts = {"faiss": faiss.__version__, "items": len(items), "queries": len(users)}
    save("faiss", f"Top {TOP} of {len(items):,} items", rows, {**vars(options), **facts})


def trained(options: argparse.Namespace) -> dict[str, str]:
    """Checkpoints of a teacher and of a student that it has taught."""
    import recbole_freqd

    recbole_freqd.register()
    from recbole.config import Config

    from recbole_freqd.jobs import run as runs

    common = {"epochs": options.epochs, "eval_step": 4, "train_batch_size": 1024}
    keys: dict[str, Any] = {
        "data_path": os.environ["RECBOLE_FREQD_DATA"],
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "state": "ERROR",
        "show_progress": False,
        "eval_batch_size": 10_000_000,  # RecBole counts user-item pairs: some 400 users at once
        "trainer": "FreqD",
        "freqd_projector": "linear",
        "embedding_size": options.student,
        "teacher": {"model": "BPR", "embedding_size": options.teacher, **common},
    }
    run = runs.run(Config("BPR", options.dataset, config_dict={**keys, **common}), test=False)
    return {"teacher": run.trainer.teacher.checkpoint, "student": run.trainer.saved_model_file}


def indexes(items: Any) -> dict[str, Any]:
    """The exact index first. Those of faiss's factory that need no tuning."""
    import faiss

    width, made = items.shape[1], {}
    cells = int(4 * len(items) ** 0.5)
    for name, factory in (
        ("Flat (exact)", "Flat"),
        ("HNSW32", "HNSW32,Flat"),
        (f"IVF{cells}, 1/16 probed", f"IVF{cells},Flat"),
        ("SQ8", "SQ8"),
        (f"PQ{width // 4}", f"PQ{width // 4}x8"),
        (f"PQ{width // 8}", f"PQ{width // 8}x8"),
    ):
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        index.train(items)
        index.add(items)
        if factory.startswith("HNSW"):
            index.hnsw.efSearch = 128
        elif factory.startswith("IVF"):
            index.nprobe = cells // 16
        made[name] = index
    return made


def search(index: Any, users: Any) -> Any:
    import numpy as np

    parts = [users[start : start + BATCH] for start in range(0, len(users), BATCH)]
    return np.concatenate([index.search(part, TOP)[1] for part in parts])


def ndcg(index: Any, users: Any, histories: Any) -> float:
    """Of the test items (3 in ``histories``), what is known (1 and 2) left out of the lists."""
    import numpy as np

    gains = 1 / np.log2(np.arange(2, TOP + 2))
    found = []
    for start in range(0, len(users), BATCH):
        own = histories[start : start + BATCH]
        most = int(np.diff(own.indptr).max())
        ranked = index.search(users[start : start + BATCH], min(TOP + most, index.ntotal))[1]
        for row, best in enumerate(ranked):
            items, kind = own[[row]].indices, own[[row]].data
            wanted = items[kind == 3]
            if len(wanted):
                best = best[~np.isin(best, items[kind < 3])][:TOP]
                found.append(
                    gains[: len(best)][np.isin(best, wanted)].sum() / gains[: len(wanted)].sum()
                )
    return float(np.mean(found))


def seconds(index: Any, users: Any) -> float:
    taken = []
    for _ in range(REPEATS):
        start = perf_counter()
        search(index, users)
        taken.append(perf_counter() - start)
    return median(taken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="citeulike")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--teacher", type=int, default=256, help="dimensions")
    parser.add_argument("--student", type=int, default=32, help="dimensions")
    with_command_line(main, parser, needs_data=True)
