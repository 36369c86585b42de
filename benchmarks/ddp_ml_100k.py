"""Two processes against one on ml-100k: the same students, to within what a seed changes?

    python benchmarks/ddp_ml_100k.py [--epochs 60] [--seeds 2020 2021 2022 2023 2024]

BPR and LightGCN students with FreqD and the keys of properties/quick_start.yaml, the same teacher
and the same train_batch_size in all: two processes have half of each batch. Where there is no GPU
the two run on the CPU with gloo. RecBole writes log/ and saved/ into the working directory: run it
from a scratch folder.
"""

import argparse
from statistics import mean, median, stdev
from typing import Any

from common import save, with_command_line


def job(model: str, keys: dict[str, Any], launched: dict[str, Any]) -> dict[str, Any]:
    """One training in one of the processes; in the first: its result, and what all weights are."""
    import recbole_freqd

    recbole_freqd.register()
    from recbole_freqd.config.make import make_config
    from recbole_freqd.core.files import fingerprint
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.trainer.distillation import DistillationTrainer

    weights: list[Any] = []
    train_epoch = DistillationTrainer._train_epoch

    def watched(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        result = train_epoch(trainer, *args, **kwargs)
        modules = trainer.model, trainer.distiller
        tables = [value.detach().cpu().numpy() for part in modules for value in part.parameters()]
        weights.append(set(trainer.processes.gathered(fingerprint(*tables))))
        return result

    DistillationTrainer._train_epoch = watched
    try:
        run = runs.run(make_config(model, "ml-100k", None, {**keys, **launched}))
    finally:
        DistillationTrainer._train_epoch = train_epoch
    return {
        "ndcg@10": run.test_result["ndcg@10"],
        "valid": run.best_valid_score,
        "epochs": len(weights),
        "equal": all(len(of_an_epoch) == 1 for of_an_epoch in weights),
        "seconds": run.seconds_per_epoch,
    }


def main(options: argparse.Namespace) -> None:
    import yaml

    from recbole_freqd.core.schema import properties_folder
    from recbole_freqd.trainer.launch import Launch

    keys = yaml.safe_load((properties_folder() / "quick_start.yaml").read_text(encoding="utf-8"))
    keys.update(epochs=options.epochs, show_progress=False, state="ERROR", eval_batch_size=2**20)
    rows: list[dict[str, Any]] = []
    for model in options.models:
        results: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
        for seed in options.seeds:
            for count, of_count in results.items():
                share = (model, {**keys, "model": model, "seed": seed})
                launch = Launch(count, port=options.port)
                of_count.append(launch.run(job, *share) if launch.is_many else job(*share, {}))
                print(model, seed, count, of_count[-1], flush=True)
        rows += [row(model, count, of_count) for count, of_count in results.items()]
    save("ddp_ml_100k", "Two processes against one", rows, vars(options))


def row(model: str, count: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [result["ndcg@10"] for result in results]
    return {
        "student": model,
        "processes": count,
        "test NDCG@10": f"{mean(scores):.4f} ± {stdev(scores) if len(scores) > 1 else 0:.4f}",
        "epochs": " ".join(str(result["epochs"]) for result in results),
        "same bits in all, every epoch": all(result["equal"] for result in results),
        "s / epoch": round(median(result["seconds"] for result in results), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["BPR", "LightGCN"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[2020, 2021, 2022, 2023, 2024])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--port", default="5678")
    with_command_line(main, parser)
