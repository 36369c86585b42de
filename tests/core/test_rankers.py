"""catalogue: top lists are those of a dense sort, whatever the blocks; scores of chosen pairs."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core.rankers import FeatureRanker, RowsRanker, candidates, top_blocks, top_items
from recbole_freqd.core.rows import FeatureRows
from tests.support.oracles import random_interactions

N_USERS, N_ITEMS, WIDTH = 9, 10, 4


def tables(seed=0, dtype=torch.float32, n_users=N_USERS, n_items=N_ITEMS):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, WIDTH, generator=generator).to(dtype) for n in (n_users, n_items))


def by_rows(user_emb, item_emb):
    """The same, not known to be tables."""
    rows = FeatureRows.of_tables(user_emb, item_emb)
    return FeatureRows(rows.user, rows.item)


RANKERS = {
    "tables": lambda pair: FeatureRanker(*pair),
    "rows": lambda pair: RowsRanker(by_rows(*pair), (N_USERS, N_ITEMS), "cpu"),
    "rows of tables": lambda pair: RowsRanker(
        FeatureRows.of_tables(*pair), (N_USERS, N_ITEMS), "cpu"
    ),
    "scorer": lambda pair: RowsRanker(
        FeatureRows(None, None, scorer=by_rows(*pair).scores), (N_USERS, N_ITEMS), "cpu"
    ),
}
every_ranker = pytest.mark.parametrize("kind", RANKERS)


def dense_lists(scores, k, exclude=None):
    """(ids, scores) of each user, by sorting all of them."""
    scores = scores.double().numpy().copy()
    scores[:, 0] = -np.inf
    if exclude is not None:
        scores[exclude.toarray() != 0] = -np.inf
    lists = []
    for row in scores:
        order = [item for item in np.argsort(-row, kind="stable")[:k] if row[item] > -np.inf]
        lists.append((order, row[order].tolist()))
    return lists


def assert_lists(top, expected, k):
    assert top.ids.dtype == torch.int32 and top.scores.dtype == torch.float32
    assert top.ids.shape == top.scores.shape == (len(expected), k)
    for ids, scores, (items, values) in zip(top.ids.tolist(), top.scores.tolist(), expected):
        missing = k - len(items)
        assert ids == items + [0] * missing
        assert scores == pytest.approx(values + [-np.inf] * missing, rel=1e-5, abs=1e-6)


# --- top lists --------------------------------------------------------------------------------


@every_ranker
@pytest.mark.parametrize("most", [1, 4, 1024])
@pytest.mark.parametrize("excluding", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_top_lists_are_those_of_a_dense_sort_at_any_block_size(
    kind, most, excluding, seed, monkeypatch
):
    monkeypatch.setattr(catalogue, "_MOST_USERS", most)
    pair, exclude = tables(seed), random_interactions(seed) if excluding else None
    top = top_items(RANKERS[kind](pair), 4, exclude=exclude)
    assert_lists(top, dense_lists(pair[0] @ pair[1].T, 4, exclude), 4)


def test_a_list_longer_than_the_candidates_ends_in_padding_and_minus_infinity():
    pair, exclude = tables(), sp.lil_array((N_USERS, N_ITEMS))
    exclude[2, 1:] = 1  # nothing left
    exclude[3, 1:8] = 1  # two left
    top = top_items(FeatureRanker(*pair), 5, exclude=sp.csr_array(exclude))
    assert_lists(top, dense_lists(pair[0] @ pair[1].T, 5, sp.csr_array(exclude)), 5)
    assert top.ids[2].tolist() == [0] * 5 and (top.ids[3] > 0).sum() == 2


def test_a_list_is_never_longer_than_there_are_items_without_the_padding():
    top = top_items(FeatureRanker(*tables()), 500)
    assert top.ids.shape == (N_USERS, N_ITEMS - 1)
    assert all(sorted(row) == list(range(1, N_ITEMS)) for row in top.ids.tolist())


def test_of_equal_scores_any_item_may_come_first_but_none_twice_and_the_same_at_every_pass():
    user_emb = torch.ones(N_USERS, 1)
    item_emb = torch.tensor([9.0, 1, 2, 2, 2, 0, 0, 3, 1, 2])[:, None]
    first, again = (top_items(FeatureRanker(user_emb, item_emb), 6) for _ in range(2))
    assert torch.equal(first.ids, again.ids)
    assert first.scores.tolist() == [[3.0, 2.0, 2.0, 2.0, 2.0, 1.0]] * N_USERS
    for row in first.ids.tolist():
        assert row[0] == 7 and set(row[1:5]) == {2, 3, 4, 9} and row[5] in (1, 8)


def test_stored_zeros_exclude_nothing_and_the_padding_never_counts():
    exclude = sp.csr_array((np.array([0.0]), (np.array([1]), np.array([5]))), (N_USERS, N_ITEMS))
    found = candidates(FeatureRanker(*tables()), torch.tensor([1, 0]), exclude)
    assert found[:, 0].isneginf().all() and found[:, 1:].isfinite().all()


@pytest.mark.parametrize("parts", [3, 2**16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_other_precision_are_scored_in_single(dtype, parts, monkeypatch):
    monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", parts)
    pair = tables(1, dtype)
    exact = pair[0].float() @ pair[1].float().T
    ranker = FeatureRanker(*pair)
    assert_lists(top_items(ranker, 3), dense_lists(exact, 3), 3)
    users, items = torch.tensor([4, 4, 1]), torch.tensor([[1, 2], [9, 9], [0, 5]])
    torch.testing.assert_close(ranker.at(users, items), exact[users[:, None], items])


def test_what_a_ranker_returns_may_be_changed_without_harm():
    pair = tables()
    before, ranker = [part.clone() for part in pair], FeatureRanker(*pair)
    ranker.block(torch.arange(3)).zero_()
    candidates(ranker, torch.arange(3), random_interactions(0))
    assert all(torch.equal(old, new) for old, new in zip(before, pair))


@pytest.mark.parametrize("kind", ["tables", "rows of tables"])
def test_no_array_of_users_times_items_is_made(kind):
    n_users, n_items = 3_000, 20_000
    pair = tables(n_users=n_users, n_items=n_items)
    ranker = {
        "tables": FeatureRanker(*pair),
        "rows of tables": RowsRanker(FeatureRows.of_tables(*pair), (n_users, n_items), "cpu"),
    }[kind]
    pairs = np.arange(1, n_users), np.arange(1, n_users)
    exclude = sp.csr_array((np.ones(n_users - 1), pairs), shape=(n_users, n_items))
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.profiler.profile(profile_memory=True, record_shapes=True) as profile,
    ):
        patch.setattr(catalogue, "BUDGET_BYTES", 2**25)
        top = top_items(ranker, 5, exclude=exclude)
        ranker.at(torch.arange(n_users), top.ids.long())
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 2**25 < 4 * n_users * n_items
    shapes = [shape for event in profile.events() for shape in event.input_shapes]
    assert not any(shape and np.prod(shape) >= n_users * n_items for shape in shapes)


@pytest.mark.parametrize("n_users", [2, 3, 9, 100])
def test_an_item_is_known_unless_all_of_some_users_have_minus_infinity(n_users, caplog):
    class Masking(FeatureRanker):
        """-inf for what a user has seen, which is all but three items, and for item 4."""

        def block(self, user_ids):
            scores = super().block(user_ids)
            items = torch.arange(10)
            seen = (items - user_ids[:, None]) % 10 >= 3
            return scores.masked_fill(seen | (items == 4), -torch.inf)

    ranker = Masking(*tables(0, n_users=n_users, n_items=10))
    known = {(user + step) % 10 for user in range(1, n_users) for step in range(3)} - {0, 4}
    with caplog.at_level("INFO"):
        assert set(ranker.known_items().nonzero().flatten().tolist()) == known
    assert f"cannot score {9 - len(known)} of 9 items" in caplog.text


def test_blocks_hold_every_user_once_and_their_lists(monkeypatch):
    monkeypatch.setattr(catalogue, "_MOST_USERS", 4)
    ranker = FeatureRanker(*tables())
    blocks = list(top_blocks(ranker, 3))
    assert torch.cat([users for users, _ in blocks]).tolist() == list(range(N_USERS))
    assert torch.equal(torch.cat([top.ids for _, top in blocks]), top_items(ranker, 3).ids)


def test_a_bar_is_shown_only_where_asked_for(capsys):
    for progress in (False, True):
        top_items(FeatureRanker(*tables()), 3, progress=progress, title="Lists of nobody")
        assert ("Lists of nobody" in capsys.readouterr().err) == progress


# --- scores of chosen pairs -------------------------------------------------------------------


@every_ranker
@pytest.mark.parametrize("budget", [1, 2**28])
def test_scores_of_chosen_pairs_are_those_of_the_rows(kind, budget, monkeypatch):
    monkeypatch.setattr(catalogue, "BUDGET_BYTES", budget)
    ranker = RANKERS[kind](tables())
    users = torch.tensor([3, 8, 3])
    items = torch.tensor([[1, 1, 9, 0], [2, 3, 4, 5], [7, 1, 0, 0]])
    torch.testing.assert_close(ranker.at(users, items), ranker.block(users).gather(1, items))
    assert ranker.at(users[:0], items[:0]).shape == (0, 4)
    assert ranker.at(users, items[:, :0]).shape == (3, 0)


@pytest.mark.parametrize("wrap", [FeatureRows.of_tables, by_rows])
def test_a_students_scores_are_products_of_its_features_and_their_gradient_reaches_both(wrap):
    pair = [part.requires_grad_() for part in tables()]
    users, items = torch.tensor([3, 8, 3]), torch.tensor([[1, 1], [2, 3], [9, 1]])
    scores = wrap(*pair).scores(users, items)
    scores.square().sum().backward()
    plain = [part.detach().clone().requires_grad_() for part in pair]
    expected = (plain[0] @ plain[1].T)[users[:, None], items]
    expected.square().sum().backward()
    torch.testing.assert_close(scores, expected)
    for own, other in zip(pair, plain):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("wrap", [FeatureRows.of_tables, by_rows])
def test_scores_of_nobody_are_empty_and_have_a_gradient_of_zero(wrap):
    pair = [part.requires_grad_() for part in tables()]
    none = torch.empty(0, 3, dtype=torch.int64)
    scores = wrap(*pair).scores(none[:, 0], none)
    assert scores.shape == (0, 3)
    scores.sum().backward()
    assert all(part.grad.abs().sum() == 0 for part in pair)


def test_features_that_are_computed_are_computed_once_for_each_item():
    asked, pair = [], tables()
    rows = by_rows(*pair)
    counting = FeatureRows(rows.user, lambda ids: asked.append(ids) or rows.item(ids))
    counting.scores(torch.tensor([1, 2]), torch.tensor([[4, 2, 4], [2, 4, 7]]))
    assert [ids.tolist() for ids in asked] == [[2, 4, 7]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_are_computed_in_single_precision_also_under_autocast(dtype):
    pair = tables(0, dtype)
    users, items = torch.tensor([3, 8]), torch.tensor([[1, 1], [2, 3]])
    exact = (pair[0].float() @ pair[1].float().T)[users[:, None], items]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = FeatureRows.of_tables(*pair).scores(users, items)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact)
