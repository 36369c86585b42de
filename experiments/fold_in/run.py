"""Users who were never trained on: their folded-in vectors against trained ones.

    python experiments/fold_in/run.py --out results/fold_in [--data DIR] [--seeds 2020,2021,2022]

A tenth of the users of a dataset are newcomers. One model is trained without any interaction of
theirs; their vectors are folded in from their training histories. Another model is trained on
everybody. NDCG@10 is that of the newcomers: alpha and the ridge are chosen on their validation
items (the mean over models and seeds), never on the test. What is finished is kept: exports in the
working directory, figures in ``runs.jsonl``. RecBole writes log/ and saved/ into the working
directory, too: run it from a scratch folder.
"""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import recbole_freqd
from recbole_freqd.jobs.tables import format_spread

ALPHAS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
RIDGES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
WIDTHS = {"ml-100k": (8, 64), "citeulike": (32,)}
KEYS = {
    "learning_rate": 0.005,
    "train_batch_size": 2048,
    "epochs": 100,
    "eval_step": 5,
    "stopping_step": 3,
    "valid_metric": "NDCG@10",
    "metrics": ["NDCG"],
    "topk": [10],
    "load_col": {"inter": ["user_id", "item_id"]},
    "benchmark_filename": ["train", "valid", "test"],
    "show_progress": False,
    "state": "ERROR",
}
PARTS = ("train", "valid", "test")
_SHARE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--data", help="folder with citeulike; without it ml-100k alone is run")
    parser.add_argument("--seeds", default="2020,2021,2022")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    recbole_freqd.register()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for dataset in ["ml-100k"] + ["citeulike"] * bool(options.data):
        for width in WIDTHS[dataset]:
            for seed in seeds:
                key = {"dataset": dataset, "width": width, "seed": seed}
                if not any(key.items() <= row.items() for row in rows):
                    rows.append({**key, **measured(options.data, **key)})
                    with open(file, "a") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
    text = report(rows)
    (options.out.parent / "fold_in.md").write_text(text)
    print(text)


def measured(data: Any, dataset: str, width: int, seed: int) -> dict[str, Any]:
    """NDCG@10 of the newcomers on both splits, by alpha and ridge, and of trained vectors."""
    parts = splits_of(dataset, data, seed)
    users = np.unique(parts["train"][:, 0])
    new = np.random.default_rng(seed).permutation(users)[: round(_SHARE * len(users))]
    known = {part: rows[~np.isin(rows[:, 0], new)] for part, rows in parts.items()}
    old_items, old_vectors = trained(f"{dataset}-known-{seed}", known, width, seed)[1]
    (all_users, user_vectors), (items, vectors) = trained(
        f"{dataset}-all-{seed}", parts, width, seed
    )
    own = {name: place for place, name in enumerate(all_users)}
    judge = Judge(parts, new, items)
    folded, table = {}, judge.histories(old_items)
    for alpha in ALPHAS:
        for reg in RIDGES:
            start = perf_counter()
            rows = recbole_freqd.fold_in(old_vectors, table, alpha=alpha, reg=reg)
            seconds = perf_counter() - start
            scores = judge.in_columns(rows @ old_vectors.T, old_items)
            folded[f"{alpha:g} {reg:g}"] = [*judge.ndcg(scores), 1e6 * seconds / len(new)]
    own_scores = user_vectors[[own[user] for user in new]] @ vectors.T
    counts = dict(zip(*np.unique(parts["train"][:, 1], return_counts=True)))
    popular = np.tile([float(counts.get(item, 0)) for item in items], (len(new), 1))
    return {
        "newcomers": len(new),
        "trained": judge.ndcg(own_scores),
        "popular": judge.ndcg(popular),
        "folded": folded,
    }


def splits_of(dataset: str, data: Any, seed: int) -> dict[str, np.ndarray]:
    """Tokens (n, 2) str of each part; ml-100k is split by the seed, CiteULike as published."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import init_seed

    from recbole_freqd.features.data import pairs, tokens

    keys = {**KEYS, "seed": seed}
    if dataset == "ml-100k":
        keys["benchmark_filename"] = None
    else:
        keys["data_path"] = data
    config = Config("BPR", dataset, config_dict=keys)
    init_seed(seed, True)
    found = create_dataset(config).build()
    names = tokens(found[0])
    return {
        part: np.stack([names[side][pairs(each)[:, side]] for side in (0, 1)], axis=1)
        for part, each in zip(PARTS, found)
    }


def trained(name: str, parts: dict[str, np.ndarray], width: int, seed: int) -> list[Any]:
    """Tokens and vectors of users and of items, of a BPR that was trained on these parts."""
    from recbole.config import Config

    from recbole_freqd.jobs import run as runs

    folder = Path("data") / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        lines = "".join(f"{user}\t{item}\n" for user, item in rows)
        (folder / f"{name}.{part}.inter").write_text("user_id:token\titem_id:token\n" + lines)
    out = f"vectors-{name}-{width}"
    if not Path(out, "manifest.json").is_file():
        keys = {**KEYS, "embedding_size": width, "seed": seed, "data_path": "data"}
        run = runs.run(Config("BPR", name, config_dict=keys), test=False)
        recbole_freqd.export(run.trainer.saved_model_file, out, overwrite=True)
    files = [np.load(f"{out}/{side}.npz") for side in ("users", "items")]
    return [(file["tokens"], file["vectors"]) for file in files]


class Judge:
    """NDCG@10 of the newcomers, from scores (b, n_items) in the order of ``items``."""

    def __init__(self, parts: dict[str, np.ndarray], new: np.ndarray, items: np.ndarray) -> None:
        self.parts, self.new, self.items = parts, new, items
        self.chosen = {part: self._matrix(part, items) for part in PARTS}

    def _matrix(self, part: str, items: np.ndarray) -> np.ndarray:
        user = {name: place for place, name in enumerate(self.new)}
        item = {name: place for place, name in enumerate(items)}
        matrix = np.zeros((len(self.new), len(items)), dtype=bool)
        for one, other in self.parts[part]:
            if one in user and other in item:
                matrix[user[one], item[other]] = True
        return matrix

    def histories(self, items: np.ndarray) -> Any:
        """What newcomers chose in training, among other items."""
        import scipy.sparse as sp

        return sp.csr_array(self._matrix("train", items).astype(float))

    def in_columns(self, scores: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Scores of other items in the order of ``items``; what is not among them comes last."""
        place = {name: column for column, name in enumerate(items)}
        made = np.full((len(scores), len(self.items)), -1e9)
        both = [(column, place[name]) for column, name in enumerate(self.items) if name in place]
        own, other = zip(*both)
        made[:, own] = scores[:, other]
        return made

    def ndcg(self, scores: np.ndarray) -> list[float]:
        """On validation and on test; what came in earlier parts is left out, as RecBole does."""
        train, valid, test = (self.chosen[part] for part in PARTS)
        return [ndcg(scores, valid, train), ndcg(scores, test, train | valid)]


def ndcg(scores: np.ndarray, wanted: np.ndarray, seen: np.ndarray, top: int = 10) -> float:
    """The mean over the users who want something; of equal scores the first item comes first."""
    shares = []
    for row, wants, knows in zip(scores, wanted, seen):
        if wants.any():
            row = np.where(knows, -np.inf, row)
            places = np.array(
                [
                    (row > row[item]).sum() + (row[:item] == row[item]).sum()
                    for item in wants.nonzero()[0]
                ]
            )
            ideal = 1 / np.log2(np.arange(2, min(len(places), top) + 2))
            shares.append((1 / np.log2(places[places < top] + 2)).sum() / ideal.sum())
    return float(np.mean(shares))


def report(rows: list[dict[str, Any]]) -> str:
    """The table: alpha and reg chosen on validation once for all rows, and once for each."""
    kinds = sorted({(row["dataset"], row["width"]) for row in rows}, key=str, reverse=True)
    keys = list(rows[0]["folded"])

    def of(kind: tuple[str, int], *path: Any) -> np.ndarray:
        """(seeds,), a figure of all rows of a kind."""
        found = [row for row in rows if (row["dataset"], row["width"]) == kind]
        for step in path:
            found = [value[step] for value in found]
        return np.array(found)

    def share(key: str) -> float:
        """Of the trained vectors' validation NDCG@10, the mean over the rows of the table."""
        return float(
            np.mean([of(k, "folded", key, 0).mean() / of(k, "trained", 0).mean() for k in kinds])
        )

    best = max(keys, key=share)
    heads = "dataset, model, seeds, popular, trained, folded in, of trained, best of its own"
    lines = [f"| {heads.replace(', ', ' | ')} | µs a user |", "| --- | --- " + "| ---: " * 7 + "|"]
    for kind in kinds:
        own = max(keys, key=lambda key, kind=kind: of(kind, "folded", key, 0).mean())
        trained_, folded = of(kind, "trained", 1), of(kind, "folded", best, 1)
        cells = [
            kind[0],
            f"BPR {kind[1]}",
            f"{len(trained_)}",
            f"{of(kind, 'popular', 1).mean():.4f}",
            format_spread(trained_),
            format_spread(folded),
            f"{folded.mean() / trained_.mean():.0%}",
            f"{of(kind, 'folded', own, 1).mean():.4f} ({own.replace(' ', ', ')})",
            f"{of(kind, 'folded', best, 2).mean():.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    alpha, reg = best.split()
    return f"""# New users: folded-in against trained vectors

Test NDCG@10 of a tenth of the users, mean ± sd over the seeds, from 2020 on. *trained*: their
vectors in a model that was trained on everybody. *folded in*: from one that has seen nothing of
theirs, with alpha {alpha} and reg {reg}: these are the best on validation over all rows (mean share
of the trained vectors' NDCG@10), and the defaults of `fold_in`. *best of its own*: with the pair
(alpha, reg) that is best on validation for this row. Histories are those of training in both; items
of training, and for the test those of validation too, are left out of the lists, as RecBole does.

{chr(10).join(lines)}

`experiments/fold_in/run.py` makes it; all figures are in `fold_in/runs.jsonl`.
"""


if __name__ == "__main__":
    main()
