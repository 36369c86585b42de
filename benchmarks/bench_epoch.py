"""Training part of an epoch: distillation against the stock RecBole trainer, BPR 400 -> 20.

    RECBOLE_FREQD_DATA=... python benchmarks/bench_epoch.py [--epochs 7] [--variants "linear;mlp"]

Stock trainer and distillation take turns, epoch by epoch, in one process; the figure is the ratio
of median epochs, in processor time, so take ``--threads 1``. For five MLPs of the teacher's width it is also the time against their own matrix
products (forward, and twice that backward) at the rate measured here for products of their size.
The teacher is BPR after one epoch: its values do not matter for the time. RecBole writes log/ and
saved/ into the working directory: run it from a scratch folder.
"""

import argparse
import os
from contextlib import ExitStack
from time import perf_counter, process_time
from typing import Any

from common import median, save, with_command_line

TEACHER = {"model": "BPR", "embedding_size": 400, "epochs": 1, "eval_step": 0}
KEYS: dict[str, Any] = {
    "embedding_size": 20,
    "train_batch_size": 2048,
    "load_col": {"inter": ["user_id", "item_id"]},
    "benchmark_filename": ["train", "valid", "test"],
    "valid_metric": "NDCG@10",
    "show_progress": False,
    "state": "ERROR",
}
FIVE = "FreqD, five MLPs of the teacher's width"
VARIANTS: dict[str, dict[str, Any]] = {
    "FreqD": {"trainer": "FreqD"},
    "FreqD, linear": {"trainer": "FreqD", "freqd_projector": "linear"},
    "FreqD, filter first": {"trainer": "FreqD", "freqd_order": "filter_first"},
    "FreqD, projection first": {"trainer": "FreqD", "freqd_order": "project_first"},
    "FreqD, one MLP of the teacher's width": {
        **{"trainer": "FreqD", "freqd_order": "project_first"},
        **{"freqd_experts": 1, "freqd_hidden": None},
    },
    "FreqD, one MLP of the teacher's width, 512 rows": {
        **{"trainer": "FreqD", "freqd_step_rows": 512},
        **{"freqd_experts": 1, "freqd_hidden": None},
    },
    FIVE: {
        **{"trainer": "FreqD", "freqd_order": "project_first"},
        **{"freqd_experts": 5, "freqd_hidden": None},
    },
    "RCE-KD": {"trainer": "RCE-KD"},
    "FreqRank": {"trainer": "FreqRank", "teacher_filter": "none", "warm_start": "none"},
    "KD": {"trainer": "KD"},
    "CD": {"trainer": "CD"},
    "RRD": {"trainer": "RRD"},
    "DCD": {"trainer": "DCD"},
}


def prepared(dataset: str, keys: dict[str, Any]) -> tuple[Any, Any]:
    """A trainer that is ready for epochs, and its training data."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    config = Config("BPR", dataset, config_dict={**KEYS, **keys})
    init_seed(config["seed"], True)
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    if keys.get("trainer"):
        trainer.prepare(train_data)
    return trainer, train_data


def epoch(trainer: Any, train_data: Any, number: int) -> float:
    """Processor seconds of one epoch; of a student alone, RecBole's own."""
    with ExitStack() as stack:
        if hasattr(trainer, "distiller"):
            fit = trainer.prepare(train_data, saved=False)
            stack.enter_context(trainer.fitting(fit))
        start = process_time()
        trainer._train_epoch(train_data, number)
        return process_time() - start


def products_alone(trainer: Any, train_data: Any, number: int) -> tuple[float, float]:
    """Seconds that the MLPs' matrix products of an epoch would take at the measured rate.

    Returns:
        For the plain form, where every neighbour goes through both layers; and for ours, where the
        last layer sees the rows of the batch only.
    """
    import torch

    plain, ours, loss = 0, 0, trainer.distiller.losses["FreqD"]

    def counting(projector: Any, of_filtered: Any) -> Any:
        def count(x: Any, sums: Any) -> Any:
            nonlocal plain, ours
            first, last = (w[0].numel() for w in (projector.weight_in, projector.weight_out))
            each = 3 * 2 * len(projector.weight_in)  # forward, and two products backward
            plain += each * len(x) * (first + last)
            ours += each * (len(x) * first + len(sums.offsets) * last)
            return of_filtered(x, sums)

        return count

    for projector in loss.projectors.values():
        projector.of_filtered = counting(projector, projector.of_filtered)
    epoch(trainer, train_data, number)
    for projector in loss.projectors.values():
        del projector.of_filtered
    left, right = torch.randn(8192, 400), torch.randn(400, 400)
    times = []
    for _ in range(20):
        start = perf_counter()
        torch.mm(left, right)
        times.append(perf_counter() - start)
    rate = 2 * 8192 * 400 * 400 / median(times)
    return plain / rate, ours / rate


def main(options: argparse.Namespace) -> None:
    import recbole_freqd

    recbole_freqd.register()
    base = {"data_path": os.environ["RECBOLE_FREQD_DATA"]}
    names = options.variants.split(";") if options.variants else list(VARIANTS)
    variants = {"stock": {}, **{name: {**VARIANTS[name], "teacher": TEACHER} for name in names}}
    ready = {name: prepared(options.dataset, {**base, **keys}) for name, keys in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.epochs + 1):
        for name, (trainer, train_data) in ready.items():
            taken = epoch(trainer, train_data, number)
            if number:  # the first warms up
                seconds[name].append(taken)
    steps = len(ready["stock"][1])
    alone = {
        name: products_alone(trainer, train_data, options.epochs + 1)
        for name, (trainer, train_data) in ready.items()
        if name == FIVE
    }

    def products(name: str, values: list[float], form: int) -> Any:
        return round(median(values) / alone[name][form], 2) if name in alone else ""

    rows = [
        {
            "variant": name,
            "seconds per epoch": round(median(values), 3),
            "ms per step": round(1000 * median(values) / steps, 2),
            "ratio to stock": round(median(values) / median(seconds["stock"]), 2),
            "ratio to the plain form's products": products(name, values, 0),
            "ratio to its own": products(name, values, 1),
        }
        for name, values in seconds.items()
    ]
    save("epoch", f"BPR 400 -> 20 on {options.dataset}, batch 2048", rows, vars(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="citeulike")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--variants", help="names between semicolons (default: all)")
    with_command_line(main, parser, needs_data=True)
