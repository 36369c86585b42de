"""Lists from an index: those of exact scoring where all is searched; what is missed is said."""

import logging
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core import lists as module
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker, Ranker, top_items

N_USERS, N_ITEMS, WIDTH = 60, 500, 6
ALL_CELLS = 10**6


@pytest.fixture
def needs_faiss():
    pytest.importorskip("faiss")


def features(seed=0, biases=True):
    """Of users and items, with a strong bias of items as a column."""
    generator = torch.Generator().manual_seed(seed)
    users, items = (torch.randn(n, WIDTH, generator=generator) for n in (N_USERS, N_ITEMS))
    if not biases:
        return users, items
    bias = 3 * torch.randn(N_ITEMS, 1, generator=generator)
    return torch.cat([users, torch.ones(N_USERS, 1)], 1), torch.cat([items, bias], 1)


class Opaque(Ranker):
    """The scores of a ranker that hides its features."""

    def __init__(self, ranker):
        self.ranker, self.shape, self.device = ranker, ranker.shape, ranker.device
        self.block, self.at = ranker.block, ranker.at


def trained(per_user=40, seed=1):
    """What users have trained on; user 7 on all but three items, user 8 on everything."""
    rng = np.random.default_rng(seed)
    matrix = sp.lil_array((N_USERS, N_ITEMS))
    for user in range(1, N_USERS):
        matrix[user, rng.choice(np.arange(1, N_ITEMS), per_user, replace=False)] = 1
    matrix[7, 4:], matrix[8, 1:] = 1, 1
    return sp.csr_array(matrix)


def assert_same(found, exact):
    assert torch.equal(found.ids, exact.ids)
    torch.testing.assert_close(found.scores, exact.scores)


# --- as exact lists ---------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("leaving_out", [True, False])
def test_with_all_cells_searched_the_lists_are_the_exact_ones(needs_faiss, biases, leaving_out):
    ranker, exclude = FeatureRanker(*features(biases=biases)), trained() if leaving_out else None
    found = ListMaker(1, ALL_CELLS).top_items(ranker, 20, exclude=exclude)
    assert_same(found, top_items(ranker, 20, exclude=exclude))


def test_items_that_are_not_allowed_and_those_trained_on_are_in_no_list(needs_faiss):
    ranker, exclude = FeatureRanker(*features()), trained()
    allowed = torch.arange(N_ITEMS) % 3 != 0
    found = ListMaker(1, 2).top_items(ranker, 20, exclude=exclude, allowed=allowed)
    listed = found.ids > 0
    assert (found.ids % 3 != 0)[listed].all() and listed.any(dim=1).sum() == N_USERS - 1
    users = torch.arange(N_USERS)[:, None].expand_as(found.ids)
    assert exclude.toarray()[users[listed], found.ids[listed]].sum() == 0
    exact = ListMaker(1, ALL_CELLS).top_items(ranker, 20, exclude=exclude, allowed=allowed)
    assert_same(exact, top_items(ranker, 20, exclude=exclude, allowed=allowed))


def test_a_user_whose_candidates_are_nearly_all_trained_on_still_gets_a_whole_list(needs_faiss):
    ranker = FeatureRanker(*features())
    best = top_items(ranker, 400).ids
    exclude = sp.csr_array(torch.zeros(N_USERS, N_ITEMS).scatter(1, best.long(), 1.0).numpy())
    found = ListMaker(1, 1).top_items(ranker, 20, exclude=exclude)
    assert_same(found, top_items(ranker, 20, exclude=exclude))


def test_chosen_users_get_the_lists_that_they_have_among_all(needs_faiss, monkeypatch):
    monkeypatch.setattr(module, "_MOST_USERS", 4)
    ranker, chosen = FeatureRanker(*features()), torch.arange(3, 40, 4)
    blocks = list(ListMaker(1, 3).top_blocks(ranker, 5, users=chosen))
    assert torch.equal(torch.cat([users for users, _ in blocks]), chosen) and len(blocks) == 3
    whole = ListMaker(1, 3).top_items(ranker, 5)
    assert torch.equal(torch.cat([top.ids for _, top in blocks]), whole.ids[chosen])


def test_of_equal_scores_the_smaller_id_comes_first(needs_faiss):
    items = torch.ones(N_ITEMS, 1)
    items[10::2] = 2.0
    found = ListMaker(1, ALL_CELLS).top_items(FeatureRanker(torch.ones(N_USERS, 1), items), 300)
    ids = found.ids[1].tolist()
    assert ids[:245] == list(range(10, N_ITEMS, 2)) and ids[245:] == sorted(ids[245:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_features_of_any_precision_are_indexed(needs_faiss, dtype):
    ranker = FeatureRanker(*(table.to(dtype) for table in features()))
    assert_same(ListMaker(1, ALL_CELLS).top_items(ranker, 9), top_items(ranker, 9))


def test_the_same_seed_gives_the_same_lists(needs_faiss):
    ranker = FeatureRanker(*features())
    one, other = (ListMaker(1, 1, seed=3).top_items(ranker, 9) for _ in range(2))
    assert torch.equal(one.ids, other.ids)


def test_scores_that_are_no_products_decide_among_candidates_that_stand_ins_find(needs_faiss):
    users, items = features()
    ranker = Opaque(FeatureRanker(users, items + 0.05 * torch.randn_like(items)))
    found = ListMaker(1, ALL_CELLS).top_items(ranker, 9, stand_ins=(users, items))
    assert_same(found, top_items(ranker, 9))


# --- what is said -----------------------------------------------------------------------------


def test_recall_is_measured_at_the_first_and_every_tenth_index_and_logged(needs_faiss, caplog):
    maker, ranker = ListMaker(1, ALL_CELLS), FeatureRanker(*features())
    with caplog.at_level(logging.INFO):
        for _ in range(11):
            maker.top_items(ranker, 9, title="Some lists")
    said = [line for line in caplog.messages if line.startswith("Some lists")]
    assert len(said) == 2
    assert "499 items in 12 cells, of which 12 are searched" in said[0]
    assert "recall@9 against exact lists is 1.000, on 59 users" in said[0]


def test_too_low_a_recall_is_a_warning_that_says_what_to_change(needs_faiss, caplog):
    users, items = features(biases=False)
    ListMaker(1, 1).top_items(FeatureRanker(users, items), 9)
    ListMaker(1, ALL_CELLS).top_items(
        Opaque(FeatureRanker(users, items)), 9, stand_ins=(users.flip(1), items)
    )
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == 2
    assert (
        "Raise index_nprobe (now 1 of 12 cells). For exact lists set index_items: null."
        in (warnings[0])
    )
    assert "teacher.spectral_rank" in warnings[1]


def test_without_features_lists_are_exact_which_is_said_once(caplog):
    ranker = Opaque(FeatureRanker(*features()))
    maker = ListMaker(1)
    for _ in range(2):
        assert_same(maker.top_items(ranker, 9), top_items(ranker, 9))
    assert [line for line in caplog.messages if "no products of features" in line] == [
        "Ranking: exact lists of all items, since the scores are no products of features."
    ]


def test_features_that_are_not_finite_are_ranked_exactly(caplog):
    users, items = features()
    items[5, 0] = torch.inf
    ranker = FeatureRanker(users.abs(), items)
    assert_same(ListMaker(1).top_items(ranker, 9), top_items(ranker, 9))
    assert "not finite" in caplog.text


# --- up to the size ---------------------------------------------------------------------------


@pytest.mark.parametrize("items", [None, N_ITEMS - 1])
def test_up_to_the_size_nothing_of_faiss_is_asked_for_and_lists_are_the_same_bits(
    monkeypatch, items
):
    monkeypatch.setitem(sys.modules, "faiss", None)
    ranker, exclude = FeatureRanker(*features()), trained()
    found = ListMaker(items).top_items(ranker, 20, exclude=exclude)
    exact = top_items(ranker, 20, exclude=exclude)
    assert torch.equal(found.ids, exact.ids) and torch.equal(found.scores, exact.scores)


def test_beyond_it_without_faiss_the_error_gives_the_command_and_the_key(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        ConfigError,
        match=r'faiss.*pip install "recbole_freqd\[scale\]".*set index_items: null, or',
    ):
        ListMaker(N_ITEMS - 2).top_items(FeatureRanker(*features()), 5)
