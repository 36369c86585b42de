"""What distillation adds to a step as the catalogue grows, and to an epoch at two million each.

    python benchmarks/bench_scale.py [--sizes 20000,200000,2000000] [--epoch_at 2000000]

The student is BPR with 20 dimensions and dense Adam, written out here in plain torch, so that no
data loader hides what a step costs; the teacher is random, 64 dimensions; 7.5 interactions a user.
First the time that FreqD adds to a step of 2,048, as the numbers of users and items grow together
on uniform interactions (the same average degree). Then, on heavy-tailed interactions, 200 steps of
2,048 and one epoch in batches of 65,536, without and with FreqD, and the peak memory of each.
"""

import argparse
from time import perf_counter
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from common import MB, Peak, median, save, with_command_line
from synthetic import heavy_tailed
from torch.nn import functional as F

WIDTH, TEACHER_WIDTH, PER_USER, K = 20, 64, 7.5, 5


class Student:
    """BPR and its optimizer."""

    def __init__(self, n_users: int, n_items: int, extra: list[torch.nn.Parameter]) -> None:
        self.tables = [torch.nn.Parameter(0.01 * torch.randn(n, WIDTH)) for n in (n_users, n_items)]
        self.optimizer = torch.optim.Adam([*self.tables, *extra], lr=1e-3)

    def step(self, batch: tuple[torch.Tensor, ...], loss: Optional[Any]) -> None:
        from recbole_freqd.core.rows import FeatureRows

        self.optimizer.zero_grad()
        users, positives, negatives = batch
        user_emb = F.embedding(users, self.tables[0])
        difference = F.embedding(positives, self.tables[1]) - F.embedding(negatives, self.tables[1])
        total = -F.logsigmoid((user_emb * difference).sum(1)).mean()
        if loss is not None:
            total = total + loss(FeatureRows.of_tables(*self.tables, in_place=True), *batch)
        total.backward()
        self.optimizer.step()


def made(user_items: sp.csr_array) -> Any:
    """FreqD with the linear projector, on a random teacher."""
    from recbole_freqd import FreqDLoss

    teacher = tuple(torch.randn(n, TEACHER_WIDTH) for n in user_items.shape)
    return FreqDLoss(user_items, (WIDTH, WIDTH), teacher, k=K, projector="linear")


def batches(user_items: sp.csr_array, size: int, count: int) -> list[tuple[torch.Tensor, ...]]:
    """Random interactions, with as many random items as negatives."""
    rng = np.random.default_rng(0)
    pairs = user_items.tocoo()
    drawn = []
    for _ in range(count):
        chosen = rng.integers(0, len(pairs.data), size)
        negatives = rng.integers(1, user_items.shape[1], size)
        arrays = pairs.row[chosen], pairs.col[chosen], negatives
        drawn.append(tuple(torch.from_numpy(array.astype(np.int64)) for array in arrays))
    return drawn


def growth(sizes: list[int]) -> list[dict[str, Any]]:
    """Time of the distillation part of a step alone: forward, backward, gradients added."""
    from recbole_freqd.core.rows import FeatureRows

    ready = {}
    for n in sizes:
        user_items = heavy_tailed(n, n, int(n * PER_USER), exponent=0.0)
        loss, student = made(user_items), Student(n, n, [])
        for table in student.tables:
            table.grad = torch.zeros_like(table)  # as the base loss leaves it
        ready[n] = loss, student, batches(user_items, 2048, 40)
    seconds: dict[int, list[float]] = {n: [] for n in sizes}
    for step in range(40):
        for n, (loss, student, drawn) in ready.items():
            start = perf_counter()
            rows = FeatureRows.of_tables(*student.tables, in_place=True)
            loss(rows, *drawn[step]).backward()
            if step >= 5:
                seconds[n].append(perf_counter() - start)
    first = median(seconds[sizes[0]])
    return [
        {
            "users and items": n,
            "ms added to a step": round(1000 * median(values), 2),
            "ratio to the smallest": round(median(values) / first, 2),
        }
        for n, values in seconds.items()
    ]


def epoch(n: int, most_steps: Optional[int]) -> list[dict[str, Any]]:
    """An epoch in large batches and 200 steps in small ones, alone and distilled by turns."""
    user_items = heavy_tailed(n, n, int(n * PER_USER))
    rows = []
    with Peak() as peak:
        start = perf_counter()
        loss = made(user_items)
        built = perf_counter() - start
    rows.append(line("graphs and teacher", built, 1, peak, None))
    for title, size, count in (
        ("200 steps of 2,048", 2048, 200),
        ("an epoch in steps of 65,536", 65_536, -(-user_items.nnz // 65_536)),
    ):
        drawn, alone = batches(user_items, size, min(count, most_steps or count)), None
        for name, of in (("alone", None), ("FreqD", loss)):
            with Peak() as peak:
                student = Student(n, n, list(loss.parameters()) if of else [])
                student.step(drawn[0], of)  # memory is touched for the first time here
                start = perf_counter()
                if of is not None:
                    of.start_epoch(1)  # a new mask and H T, as every epoch
                for batch in drawn:
                    student.step(batch, of)
                seconds = perf_counter() - start
            rows.append(line(f"{title}: {name}", seconds, len(drawn), peak, alone))
            alone = alone or seconds
            del student
    return rows


def line(
    what: str, seconds: float, steps: int, peak: Peak, alone: Optional[float]
) -> dict[str, Any]:
    row = {
        "what": what,
        "steps": steps,
        "seconds": round(seconds, 1),
        "ratio to alone": round(seconds / alone, 2) if alone else "",
        "peak MB of the process": round(peak.highest / MB),
    }
    print(row, flush=True)
    return row


def main(options: argparse.Namespace) -> None:
    sizes = [int(size) for size in options.sizes.split(",")]
    save("growth", "Time that FreqD adds to a step of 2,048", growth(sizes), vars(options))
    if options.epoch_at:
        n = options.epoch_at
        rows = epoch(n, options.most_steps)
        save(
            "scale",
            f"{n:,} users, {n:,} items, {PER_USER} interactions a user",
            rows,
            vars(options),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="20000,200000,2000000")
    parser.add_argument("--epoch_at", type=int, default=2_000_000, help="0: no epoch")
    parser.add_argument("--most_steps", type=int, help="cut the epoch short, for a quick look")
    with_command_line(main, parser)
