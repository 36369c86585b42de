"""Scoring the catalogue in blocks: every pair once, within the budget, and without a trace."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import recbole_freqd.core.rankers as catalogue
import recbole_freqd.features.scores as ranking
from recbole_freqd.core.rankers import user_blocks
from recbole_freqd.features.scores import ScoredUsers, evaluating, inspecting, score_users

CPU = torch.device("cpu")


class Toy(nn.Module):
    """As little of a RecBole model as scoring needs, with parts in several modes."""

    USER_ID, ITEM_ID, n_users, n_items, device = "user_id", "item_id", 7, 5, CPU

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.table = torch.randn(self.n_users, self.n_items, generator=generator)
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout()))
        self.cache, self.kept = None, [1]

    def full_sort_predict(self, interaction):
        return self.table[interaction[self.USER_ID]].view(-1)


class OnlyPairs(Toy):
    """Has no ranking of the whole catalogue."""

    def full_sort_predict(self, interaction):
        raise NotImplementedError

    def predict(self, interaction):
        return self.table[interaction[self.USER_ID], interaction[self.ITEM_ID]]


class Rebuilding(Toy):
    """Does something costly and random when its mode is set, as SGL does."""

    def train(self, mode=True):
        raise AssertionError("train() or eval() was called")


def streams():
    """The state of each global random stream, comparable."""
    return [
        torch.random.get_rng_state().tolist(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        random.getstate(),
    ]


def mixed(model):
    """Sets some modules to train and some to eval; returns the flags."""
    for place, module in enumerate(model.modules()):
        module.training = place % 2 == 0
    return flags_of(model)


def flags_of(model):
    return {name: module.training for name, module in model.named_modules()}


def blocks_of(model):
    """The scores of all users, as a pass over the blocks gives them."""
    with inspecting(model):
        return torch.cat(list(ScoredUsers(model).blocks()))


# --- blocks ----------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, database=None)
@given(
    n_users=st.integers(1, 300),
    n_items=st.integers(1, 400),
    budget=st.integers(1, 200_000),
    most=st.integers(1, 100),
)
def test_blocks_hold_every_user_once_in_order_and_obey_budget_and_maximum(
    n_users, n_items, budget, most
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "BUDGET_BYTES", budget)
        patch.setattr(catalogue, "_MOST_USERS", most)
        blocks = list(user_blocks(n_users, n_items, CPU))
    assert torch.cat(blocks).tolist() == list(range(n_users))
    for users in blocks:
        needed = len(users) * n_items * 4 * catalogue._COPIES  # float32
        assert len(users) == 1 or (needed <= budget and len(users) <= most)
    # Not smaller than they have to be: one user more would be too much for a full block.
    assert (
        len(blocks) == 1
        or len(blocks[0]) == most
        or ((len(blocks[0]) + 1) * n_items * 4 * catalogue._COPIES > budget)
    )


def test_the_default_budget_keeps_a_large_catalogue_to_a_few_users_at_a_time():
    first = next(iter(user_blocks(10, 5_000_000, CPU)))
    assert len(first) * 5_000_000 * 4 <= 2**28
    assert len(next(iter(user_blocks(5000, 100, CPU)))) == 1024


# --- scores ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [4096, 3, 1])
def test_scores_through_predict_are_those_through_full_sort_predict(host, pairs, monkeypatch):
    monkeypatch.setattr(ranking, "_PAIRS", pairs)
    users = torch.tensor([4, 1, 4, 6])
    expected = Toy().table[users]
    assert torch.equal(score_users(Toy(), users), expected)
    assert torch.equal(score_users(OnlyPairs(), users), expected)


def test_pairs_go_to_predict_in_parts_of_bounded_size(host, monkeypatch):
    monkeypatch.setattr(ranking, "_PAIRS", 4)
    model, sizes, predict = OnlyPairs(), [], OnlyPairs.predict
    model.predict = lambda inter: sizes.append(len(inter)) or predict(model, inter)
    score_users(model, torch.arange(3))
    assert sizes == [4, 4, 4, 3]


def test_other_errors_of_a_model_are_not_taken_for_a_missing_method(host):
    model = OnlyPairs()
    model.full_sort_predict = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        score_users(model, torch.arange(2))


@pytest.mark.parametrize("name", ["BPR", "LightGCN"])
def test_recboles_models_score_alike_by_both_ways(built, name):
    model, _ = built(name)
    users = torch.tensor([3, 30, 0])
    with inspecting(model, ("restore_user_e", "restore_item_e")):
        whole = score_users(model, users)
        model.full_sort_predict = OnlyPairs().full_sort_predict
        by_pairs = score_users(model, users)
    assert whole.shape == (3, model.n_items)
    torch.testing.assert_close(by_pairs, whole)


# --- a model in eval mode, for a while -------------------------------------------------------


@pytest.mark.parametrize("context", [evaluating, inspecting])
@pytest.mark.parametrize("fails", [False, True])
def test_training_flags_are_off_inside_and_each_modules_own_again_afterwards(context, fails):
    model = Toy()
    before = mixed(model)
    assert {True, False} == set(before.values())
    try:
        with context(model):
            assert not any(flags_of(model).values())
            assert 1 / (not fails)
    except ZeroDivisionError:
        assert fails
    assert flags_of(model) == before


@pytest.mark.parametrize("context", [evaluating, inspecting])
def test_neither_train_nor_eval_is_called_since_sgl_rebuilds_its_graphs_there(context):
    model = Rebuilding()
    with context(model):
        assert model.training is False
    assert model.training is True


def test_sgl_keeps_its_graphs(built):
    model, _ = built("SGL")
    model.train()
    graphs = model.sub_graph1, model.sub_graph2
    with inspecting(model):
        score_users(model, torch.arange(4))
    assert model.training
    assert all(old is new for old, new in zip(graphs, (model.sub_graph1, model.sub_graph2)))


@pytest.mark.parametrize("fails", [False, True])
def test_attributes_set_changed_or_deleted_inside_are_as_they_were(fails):
    model, cached = Toy(), torch.ones(2)
    model.cache = cached
    before = dict(vars(model))
    try:
        with inspecting(model, ("cache", "restore_user_e")):
            assert model.cache is None and not hasattr(model, "restore_user_e")
            model.cache, model.added, model.n_items = torch.zeros(2), 3, 99
            del model.kept
            assert 1 / (not fails)
    except ZeroDivisionError:
        assert fails
    assert list(vars(model)) == list(before)
    assert all(vars(model)[name] is value for name, value in before.items())
    assert model.cache is cached and model.n_items == 5


def test_caches_that_are_not_named_stay_in_place_inside():
    model = Toy()
    model.cache = "anything"
    with inspecting(model):
        assert model.cache == "anything"


def test_caches_in_a_submodule_or_a_buffer_are_put_back_too():
    model = Toy()
    model.register_buffer("scores", None, persistent=False)
    with inspecting(model):
        model.inner.cache, model.scores = torch.ones(2), torch.ones(2)
    assert not hasattr(model.inner, "cache") and model.scores is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_random_streams_of_torch_numpy_and_python_go_on_as_if_nothing_had_been(fails):
    model, before = Toy(), streams()
    try:
        with inspecting(model):
            torch.rand(3), np.random.rand(3), random.random()
            torch.manual_seed(5)
            assert 1 / (not fails)
    except ZeroDivisionError:
        assert fails
    assert streams() == before


def draw(library):
    return {
        "torch": lambda: float(torch.rand(1)),
        "numpy": np.random.rand,
        "python": random.random,
    }[library]()


@pytest.mark.parametrize("library", ["torch", "numpy", "python"])
def test_what_is_drawn_inside_is_the_same_every_time(library):
    drawn = []
    for _ in range(2):
        draw(library)  # the world outside moves on
        with inspecting(Toy()):
            drawn.append(draw(library))
    assert drawn[0] == drawn[1]


def test_there_is_no_gradient_inside_and_there_is_again_afterwards():
    model = Toy()
    with inspecting(model):
        assert not model.inner[0](torch.ones(2)).requires_grad
    assert model.inner[0](torch.ones(2)).requires_grad


def test_for_students_evaluating_leaves_gradients_on():
    model = Toy()
    with evaluating(model):
        assert model.inner[0](torch.ones(2)).requires_grad


# --- the scores as a matrix ------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 1024])
@pytest.mark.parametrize("kind", [Toy, OnlyPairs])
def test_the_matrix_is_the_same_at_any_block_size_and_its_padding_is_zero(
    host, kind, most, monkeypatch
):
    monkeypatch.setattr(catalogue, "_MOST_USERS", most)
    expected = Toy().table.clone()
    assert expected[0].abs().sum() > 0 and expected[:, 0].abs().sum() > 0
    expected[0], expected[:, 0] = 0, 0
    assert torch.equal(blocks_of(kind()), expected)


@pytest.mark.parametrize("most", [2, 1024])
def test_products_with_the_matrix_are_those_of_the_dense_one(host, most, monkeypatch):
    monkeypatch.setattr(catalogue, "_MOST_USERS", most)
    model, basis = Toy(), np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    dense = blocks_of(model).numpy()
    with inspecting(model):
        scores = ScoredUsers(model)
        assert scores.shape == dense.shape
        projected, energy = scores.project(basis)
        np.testing.assert_allclose(
            scores.gram(basis), dense.T @ dense @ basis, rtol=1e-5, atol=1e-5
        )
    np.testing.assert_allclose(projected, dense @ basis, rtol=1e-5, atol=1e-5)
    assert energy == pytest.approx(np.square(dense).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Random", {}),
        ("ADMMSLIM", {"center_columns": True}),
        ("ADMMSLIM", {"center_columns": False}),
    ],
)
@pytest.mark.parametrize("most", [4, 1024])
def test_models_that_draw_when_they_score_give_the_same_matrix_at_each_pass(
    built, name, keys, most, monkeypatch
):
    monkeypatch.setattr(catalogue, "_MOST_USERS", most)
    model, _ = built(name, **keys)
    users = torch.arange(3)
    assert not torch.equal(
        score_users(model, users), score_users(model, users)
    )  # else nothing is shown
    basis, everything = np.eye(model.n_items, dtype=np.float32), []
    with inspecting(model):
        scores = ScoredUsers(model)
        for _ in range(2):
            projected, _ = scores.project(basis)
            everything += [projected, torch.cat(list(scores.blocks())).numpy()]
            np.testing.assert_allclose(
                scores.gram(basis), projected.T @ projected, rtol=1e-4, atol=1e-4
            )
    for other in everything[1:]:
        np.testing.assert_array_equal(everything[0], other)
    assert np.abs(everything[0]).sum() > 0


def test_recboles_random_model_gives_every_user_the_same_draw_in_all_blocks(built, monkeypatch):
    model, _ = built("Random")
    monkeypatch.setattr(catalogue, "_MOST_USERS", 4)
    scores = blocks_of(model)
    assert scores.dtype == torch.float32
    assert torch.equal(scores[1:], scores[1].expand(len(scores) - 1, -1))


class Stored(Toy):
    """Ranks by scores that it keeps, and hands out what it keeps, not a copy."""

    def full_sort_predict(self, interaction):
        users = interaction[self.USER_ID]
        return self.table[int(users[0]) : int(users[-1]) + 1]


class SameForAll(Toy):
    """Ranks by one row, which it expands to as many users as are asked for."""

    def full_sort_predict(self, interaction):
        return self.table[3].expand(len(interaction), -1)


@pytest.mark.parametrize("kind", [Stored, SameForAll])
def test_scores_that_a_model_keeps_are_never_written_to(host, kind):
    model = kind()
    before = model.table.clone()
    scores = blocks_of(model)
    assert torch.equal(model.table, before)
    assert not scores[0].any() and not scores[:, 0].any() and scores[1:, 1:].any()


def test_a_progress_bar_is_shown_only_where_asked_for(host, capsys):
    for progress in (False, True):
        list(ScoredUsers(Toy(), progress).blocks())
        assert ("Scoring users" in capsys.readouterr().err) == progress
