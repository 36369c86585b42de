"""What distillation adds to a step as the catalogue grows, and to an epoch at two million each.

    python benchmarks/bench_scale.py [--sizes 20000,200000,2000000] [--epoch_at 2000000] \
        [--lists_at 2000000] [--teach_at 50000,200000]

The student is BPR with 20 dimensions and dense Adam, written out here in plain torch, so that no
data loader hides what a step costs; the teacher is random, 64 dimensions; 7.5 interactions a user.
First the time that FreqD adds to a step of 2,048, as the numbers of users and items grow together
on uniform interactions (the same average degree). Then, on heavy-tailed interactions, 200 steps of
2,048 and one epoch in batches of 65,536, without and with FreqD, and the peak memory of each.
Last, FreqRank with lists from an index (needs faiss): the teacher's lists of 50, and epochs in
batches of 65,536, refreshes and indexes included. Its features are made up with a decaying spectrum
and a bias of items, and the student begins as their first columns, as after a warm start.
With ``--teach_at`` also what comes before the training: the filter and the warm start of a teacher
of such features, and the weights, the constant and the warm start of a team of it and ShrunkKNN.
"""

import argparse
import importlib.util
from functools import partial
from time import perf_counter, process_time
from typing import Any, Callable, Optional

import numpy as np
import scipy.sparse as sp
import torch
from common import MB, Peak, median, save, with_command_line
from synthetic import heavy_tailed
from torch.nn import functional as F

WIDTH, TEACHER_WIDTH, PER_USER, K = 20, 64, 7.5, 5


class Student:
    """BPR and its optimizer; it begins by chance, or at given tables."""

    def __init__(
        self, n_users: int, n_items: int, extra: list[torch.nn.Parameter], start: Any = None
    ) -> None:
        start = start or (0.01 * torch.randn(n, WIDTH) for n in (n_users, n_items))
        self.tables = [torch.nn.Parameter(table.clone()) for table in start]
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


def spectral(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up features whose columns matter less and less; the first is a bias of the items."""
    falling = torch.arange(1, TEACHER_WIDTH + 1) ** -0.5
    users, items = (torch.randn(n, TEACHER_WIDTH) * falling for _ in range(2))
    users[:, 0] = 1.0
    return users, items


def lists(n: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """FreqRank: the teacher's lists against exact ones, and epochs against alone."""
    from recbole_freqd.core.lists import ListMaker
    from recbole_freqd.core.rankers import FeatureRanker, top_blocks
    from recbole_freqd.losses import LOSSES

    user_items, teacher = heavy_tailed(n, n, int(n * PER_USER)), spectral(n)
    maker, some = ListMaker(1, options.nprobe), torch.arange(1, min(n, 513))
    exact = top_blocks(FeatureRanker(*teacher), 50, users=some, exclude=user_items)
    each = Clock(lambda: list(exact)).processor / len(some)
    made: list[Any] = []
    clock = Clock(
        lambda: made.append(
            LOSSES.get("FreqRank")(
                user_items, (WIDTH, WIDTH), teacher, k=50, lists=maker, refresh=options.refresh
            )
        )
    )
    rows = [clock.row("teacher's lists of 50, against exact ones", 1, each * n)]
    tables = [table[:, :WIDTH].contiguous() for table in teacher]
    count = min(-(-user_items.nnz // 65_536), options.most_steps or 10**9)
    drawn, alone = batches(user_items, 65_536, count), None
    for name, of in (("alone", None), ("FreqRank", made[0])):
        student = Student(n, n, [], tables)
        student.step(drawn[0], None)
        clock = Clock(partial(epochs, student, of, drawn, options.epochs), options.epochs)
        rows.append(clock.row(f"an epoch, {name}", count, alone))
        alone = clock.processor
    for title, recall in maker.recalls.items():
        rows.append({**dict.fromkeys(rows[0], ""), "what": f"recall of {title}: {recall:.3f}"})
    return rows


def teaching(n: int) -> list[dict[str, Any]]:
    """What is done once before the training: for one teacher, and for a team with ShrunkKNN."""
    from recbole_freqd.core.lists import ListMaker
    from recbole_freqd.core.rankers import FeatureRanker
    from recbole_freqd.core.schema import read_keys
    from recbole_freqd.features.approximation import approximate
    from recbole_freqd.features.list_fit import fit_lists
    from recbole_freqd.features.low_rank import low_rank_features
    from recbole_freqd.features.products import SummedRanker, SummedScores
    from recbole_freqd.graph.similarity import cosine_graph
    from recbole_freqd.teacher.choice.choose import choose_filter, choose_weights
    from recbole_freqd.teacher.choice.sampled import ValidationSample
    from recbole_freqd.teacher.filter import filter_mixture
    from recbole_freqd.teacher.models.shrunk_knn import neighbour_weights
    from recbole_freqd.teacher.team.member import StandardisedRanker, TeamMember
    from recbole_freqd.teacher.team.team import TeamRanker
    from recbole_freqd.teacher.team.team_features import team_features

    train, valid = heavy_tailed(n, n, int(n * PER_USER)), heavy_tailed(n, n, n, seed=1)
    most = read_keys("run.yaml")["teacher_users"].default
    sample = ValidationSample.draw(train, valid, metric="NDCG@10", most_compared=most, seed=0)
    alone = FeatureRanker(*spectral(n))
    parts: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []

    def clock(what: str, name: str, work: Callable[[], Any]) -> None:
        measured = Clock(lambda: parts.update({name: work()}))
        rows.append(measured.row(what, 1, None))

    clock("warm start, one teacher", "start", lambda: approximate(alone, WIDTH))
    indexed = importlib.util.find_spec("faiss") is not None
    maker = ListMaker(1 if indexed else None)
    clock(
        "the same, fitted to lists",
        "fitted",
        lambda: fit_lists(parts["start"], alone, maker, train),
    )
    graphs = {
        side: cosine_graph(train, side=side, k=10, shrinkage=3.0) for side in ("item", "user")
    }
    mixtures = {
        side: filter_mixture(alone, graph, side=side, centre=True) for side, graph in graphs.items()
    }
    clock("filter search", "filter", lambda: choose_filter(alone, mixtures, sample))
    knn = SummedScores([[train.astype(np.float32), neighbour_weights(train, k=100, shrink=10.0)]])
    clock("features of ShrunkKNN", "svd", lambda: low_rank_features(knn, TEACHER_WIDTH))
    pair = tuple(torch.from_numpy(part) for part in parts["svd"][:2])
    members = [
        StandardisedRanker(TeamMember.of("BPR", alone), train),
        StandardisedRanker(
            TeamMember("KNN", SummedRanker(knn), pair, trained_by_gradient=False), train
        ),
    ]
    clock("team's weights", "weights", lambda: choose_weights(members, sample, exclude=train))
    team = TeamRanker(members, [0.6, 0.4], exclude=train, most_users=most)
    clock("team's constant", "factor", lambda: team.factor)
    clock("team's features", "features", lambda: team_features(members, [0.6, 0.4], exclude=train))
    stand_ins, some = parts["features"], torch.arange(1, min(n, 2049))
    clock("warm start, team", "start", lambda: approximate(team, WIDTH, stand_ins=stand_ins))
    if indexed:
        settings = {"users": some, "exclude": train, "stand_ins": stand_ins}
        clock(
            f"team's lists of 50 of {len(some):,} users, from an index",
            "lists",
            lambda: list(maker.top_blocks(team, 50, **settings)),
        )
    return rows


def epochs(student: Student, loss: Optional[Any], drawn: list[Any], count: int) -> None:
    """Trains, with the refreshes of all epochs."""
    from recbole_freqd.core.rankers import FeatureRanker

    for number in range(count):
        if loss is not None:
            loss.start_epoch(number, FeatureRanker(*student.tables))
        for batch in drawn:
            student.step(batch, loss)


class Clock:
    """Wall and processor seconds of work, per part, and the peak memory of the process."""

    def __init__(self, work: Callable[[], Any], parts: int = 1) -> None:
        with Peak() as self.peak:
            wall, processor = perf_counter(), process_time()
            work()
            self.wall = (perf_counter() - wall) / parts
            self.processor = (process_time() - processor) / parts

    def row(self, what: str, steps: int, alone: Optional[float]) -> dict[str, Any]:
        row = {
            "what": what,
            "steps": steps,
            "seconds": round(self.wall, 1),
            "processor seconds": round(self.processor, 1),
            "ratio of these": round(self.processor / alone, 2) if alone else "",
            "peak MB of the process": round(self.peak.highest / MB),
        }
        print(row, flush=True)
        return row


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
    sizes = [int(size) for size in options.sizes.split(",") if size]
    if sizes:
        save("growth", "Time that FreqD adds to a step of 2,048", growth(sizes), vars(options))
    if options.lists_at and importlib.util.find_spec("faiss") is not None:
        n = options.lists_at
        title = f"FreqRank, {n:,} users, {n:,} items; teacher's lists against exact ones"
        save("scale_lists", title, lists(n, options), vars(options))
    for n in map(int, filter(None, options.teach_at.split(","))):
        title = f"What is taught, {n:,} users, {n:,} items"
        save(f"scale_teach_{n}", title, teaching(n), vars(options))
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
    parser.add_argument("--lists_at", type=int, default=2_000_000, help="0: no lists")
    parser.add_argument("--teach_at", default="", help="sizes, such as 50000,200000")
    parser.add_argument("--nprobe", type=int, default=64, help="cells of the index for a user")
    parser.add_argument("--epochs", type=int, default=10, help="of FreqRank and alone")
    parser.add_argument("--refresh", type=int, default=3, help="epochs that lists are kept")
    parser.add_argument("--most_steps", type=int, help="cut the epoch short, for a quick look")
    with_command_line(main, parser)
