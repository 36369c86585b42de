"""Features by rows: the losses cannot tell them from tables, and read no more than they need."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.rows import FeatureRows, as_rows
from recbole_freqd.core.schema import method_keys
from recbole_freqd.losses import LOSSES
from tests.support.oracles import SHORT_LISTS, dense_graph, random_interactions

N_USERS, N_ITEMS, WIDTH, TEACHER_WIDTH, K = 9, 10, 3, 5, 2
every_loss = pytest.mark.parametrize("name", LOSSES.names())


def tables(user_width, item_width, seed, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, width, generator=generator).requires_grad_(grad)
        for n, width in ((N_USERS, user_width), (N_ITEMS, item_width))
    )


def loss_of(name, **options):
    teacher = tables(TEACHER_WIDTH, TEACHER_WIDTH, 1, grad=False)
    if f"{LOSSES.get(name).prefix}_k" in method_keys(name):
        options = {"k": K, **options}
    options = {**SHORT_LISTS.get(name, {}), **options}
    return LOSSES.get(name)(random_interactions(5), (WIDTH, WIDTH), teacher, seed=0, **options)


class Recorder:
    """Rows of tables, and the ids that were asked for by side."""

    def __init__(self, user_emb, item_emb):
        self.asked = {"user": [], "item": []}
        rows = FeatureRows.of_tables(user_emb, item_emb)
        self.rows = FeatureRows(
            lambda ids: self.asked["user"].append(ids) or rows.user(ids),
            lambda ids: self.asked["item"].append(ids) or rows.item(ids),
        )


BATCH = (torch.tensor([3, 1, 3]), torch.tensor([2, 2, 5]), torch.tensor([7]))


def test_rows_of_tables_are_those_asked_for_in_that_order_with_repeats():
    user_emb, item_emb = tables(2, 4, 0)
    rows, ids = FeatureRows.of_tables(user_emb, item_emb), torch.tensor([8, 0, 8])
    assert torch.equal(rows.user(ids), user_emb[[8, 0, 8]])
    assert torch.equal(rows.of("user", ids), user_emb[[8, 0, 8]])
    assert torch.equal(rows.of("item", ids), item_emb[[8, 0, 8]])


def test_the_gradient_of_a_row_reaches_its_table_once_for_every_time_it_was_read():
    user_emb, item_emb = tables(2, 4, 0)
    FeatureRows.of_tables(user_emb, item_emb).user(torch.tensor([8, 0, 8])).sum().backward()
    read = torch.zeros(N_USERS)
    read[8], read[0] = 2, 1
    assert torch.equal(user_emb.grad, read[:, None].expand(-1, 2))
    assert item_emb.grad is None


def test_as_rows_wraps_tables_and_passes_rows_on():
    user_emb, item_emb = tables(2, 4, 0)
    rows = as_rows((user_emb, item_emb))
    assert isinstance(rows, FeatureRows) and as_rows(rows) is rows
    assert torch.equal(rows.item(torch.arange(N_ITEMS)), item_emb)


@every_loss
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [BATCH, (*BATCH[:2], None)], ids=["negatives", "no-negatives"])
def test_a_loss_and_its_gradients_are_the_same_for_rows_as_for_tables(name, training, batch):
    results = []
    for wrap in (tuple, lambda pair: FeatureRows.of_tables(*pair)):
        student, loss = tables(WIDTH, WIDTH, 2), loss_of(name).train(training)
        value = loss(wrap(student), *batch)
        value.backward()
        results.append([value, *(t.grad for t in (*student, *loss.parameters()))])
    assert all(part.detach().abs().sum() > 0 for part in results[0][:3])
    for of_tables, of_rows in zip(*results):
        torch.testing.assert_close(of_tables, of_rows)


@every_loss
def test_a_gradient_goes_through_rows_to_whatever_computes_them(name):
    """An encoder run on the rows asked for learns what it would learn if run on all."""
    histories, (_, item_emb) = tables(6, 1, 3, grad=False)[0], tables(1, WIDTH, 4)
    gradients = []
    for by_rows in (True, False):
        encoder = torch.nn.Linear(6, WIDTH)
        torch.nn.init.constant_(encoder.weight, 0.1)
        torch.nn.init.constant_(encoder.bias, 0.2)
        read = FeatureRows.of_tables(item_emb, item_emb).item
        rows = FeatureRows(lambda ids, encoder=encoder: torch.tanh(encoder(histories[ids])), read)
        everyone = rows.user(torch.arange(N_USERS))
        options = {"item_side": False} if name == "DCD" else {}  # it has none of computed users
        loss_of(name, **options).eval()(
            rows if by_rows else (everyone, item_emb), *BATCH
        ).backward()
        gradients.append(encoder.weight.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def ids_needed(side, batch, hops):
    """The batch's ids and their neighbours up to a distance, by the dense graph."""
    graph = dense_graph(random_interactions(5).toarray(), side, K) != 0
    needed = set(batch[0].tolist() if side == "user" else torch.cat(batch[1:]).tolist())
    for _ in range(hops):
        needed |= {int(j) for i in needed for j in graph[i].nonzero()[0]}
    return needed


@pytest.mark.parametrize(
    ("name", "options", "hops"),
    [
        ("FD", {}, 0),
        ("FreqD", {}, 1),
        ("FreqD", {"filter": "quadratic"}, 2),
        ("FreqD", {"filter": [1.0]}, 0),
        ("FreqD", {"projector": "linear"}, 1),
    ],
)
def test_only_the_batch_and_its_neighbours_are_asked_for_once_and_without_repeats(
    name, options, hops
):
    recorder = Recorder(*tables(WIDTH, WIDTH, 2))
    loss_of(name, **options).eval()(recorder.rows, *BATCH)
    for side, count in (("user", N_USERS), ("item", N_ITEMS)):
        (asked,) = recorder.asked[side]
        needed = ids_needed(side, BATCH, hops)
        assert asked.tolist() == sorted(needed)
        assert len(needed) < count  # else the test would show nothing


def test_with_edge_dropout_no_row_is_asked_for_that_the_mask_has_cut_off():
    loss, everyone = loss_of("FreqD", keep_prob=0.3).train(), ids_needed("user", BATCH, 1)
    sizes = set()
    for _ in range(20):
        recorder = Recorder(*tables(WIDTH, WIDTH, 2))
        loss(recorder.rows, *BATCH)
        (asked,) = recorder.asked["user"]
        assert {1, 3} <= set(asked.tolist()) <= everyone
        sizes.add(len(asked))
    assert min(sizes) < len(everyone)


@pytest.mark.parametrize("bound", [None, 3])
def test_with_a_bound_on_the_degree_a_step_on_heavy_tails_reads_a_bounded_number_of_rows(bound):
    n, read = 300, []
    liked = np.eye(n)
    liked[:, 1], liked[0] = 1.0, 0.0  # item 1 is everybody's, and so the neighbour of every other
    rows = FeatureRows(
        lambda ids: torch.ones(len(ids), WIDTH),
        lambda ids: read.append(ids) or torch.ones(len(ids), WIDTH),
    )
    teacher = torch.ones(n, TEACHER_WIDTH), torch.ones(n, TEACHER_WIDTH)
    options = {"k": 1, "keep_prob": 0.5, "max_degree": bound}
    loss = LOSSES.get("FreqD")(sp.csr_array(liked), (WIDTH, WIDTH), teacher, **options)
    loss(rows, torch.tensor([1, 2]), torch.tensor([1, 2]))
    assert len(read[0]) > 100 if bound is None else len(read[0]) <= 2 * (1 + bound)


@every_loss
def test_an_empty_batch_is_answered_without_a_row_that_was_never_asked_for(name):
    recorder, none = Recorder(*tables(WIDTH, WIDTH, 2)), torch.empty(0, dtype=torch.int64)
    assert loss_of(name)(recorder.rows, none, none, none) == 0
    assert sum(len(ids) for side in recorder.asked.values() for ids in side) == 0
