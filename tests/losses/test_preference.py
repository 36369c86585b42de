"""PCKD's term for projectors: its formula, whom it trains, what it draws, what it costs when off."""

import logging
from itertools import permutations

import numpy as np
import pytest
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses import LOSSES
from tests.support.oracles import random_interactions

N_USERS, N_ITEMS, D_S, D_T = 9, 10, 3, 5
METHODS = [name for name in LOSSES.names() if hasattr(LOSSES.get(name), "with_preference")]
every_method = pytest.mark.parametrize("name", METHODS)
USERS, POSITIVES, NEGATIVES = (
    torch.tensor(ids) for ids in ([3, 1, 3, 7], [2, 2, 5, 9], [7, 5, 1, 1])
)
BATCH = (USERS, POSITIVES, NEGATIVES)


def tables(width, seed, grad=False, item_width=None):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, d, generator=generator, dtype=torch.float64).requires_grad_(grad)
        for n, d in ((N_USERS, width), (N_ITEMS, item_width or width))
    )


def make(name, teacher=None, dims=(D_S, D_S), **options):
    teacher = tables(D_T, 1) if teacher is None else teacher
    return LOSSES.get(name)(random_interactions(5), dims, teacher, **options)


def with_term(name="FD", **options):
    return make(name, **{"preference_beta": 0.3, "preference_items": 4, **options})


def projected_by_hand(loss, side, s, t):
    """P(s) (d_T,) of a student row (d_S,) with the teacher's row t, in eval mode."""
    if loss.method != "DE":
        p, out = loss.projectors[side], 0.0
        for e in range(len(p.weight_in)):
            inner = torch.relu(s @ p.weight_in[e] + p.bias_in[e, 0])
            out = out + (inner @ p.weight_out[e] + p.bias_out[e]) / len(p.weight_in)
        return out
    mixture, out = loss.mixtures[side], 0.0
    z = ((t @ mixture.gate_weight + mixture.gate_bias) / loss.temperature).softmax(0)
    for e, chance in enumerate(z):
        own = slice(e * len(mixture.bias_in) // len(z), (e + 1) * len(mixture.bias_in) // len(z))
        inner = torch.relu(s @ mixture.weight_in[:, own] + mixture.bias_in[own])
        out = out + chance * (inner @ mixture.weight_out[own] + mixture.bias_out[e])
    return out


def term_by_hand(loss, student, tau):
    values, teachers = [], (loss.teacher_user_emb, loss.teacher_item_emb)
    for u in (1, 3, 7):
        items = loss.preference.items_of(torch.tensor([u]))[0]
        p_u = projected_by_hand(loss, "user", student[0][u], teachers[0][u])
        p_i = [projected_by_hand(loss, "item", student[1][i], teachers[1][i]) for i in items]
        before = torch.stack([student[0][u] @ student[1][i] / tau for i in items]).softmax(0)
        after = torch.stack([p_u @ p / tau for p in p_i]).softmax(0)
        values.append(-(before * after.log()).sum())
    return sum(values) / len(values)


# --- the formula, and whom it trains ---------------------------------------------------------


def test_the_losses_with_projectors_of_their_own_have_the_term():
    assert sorted(METHODS) == ["DE", "FD", "FitNet", "FreqD"]


@every_method
@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_the_term_is_the_mean_cross_entropy_of_products_before_and_behind_the_projectors(name, tau):
    loss, student = with_term(name, preference_tau=tau).eval(), tables(D_S, 2)
    plain = make(name).eval()
    term = loss(student, *BATCH) - plain(student, *BATCH)
    torch.testing.assert_close(term, 0.3 * term_by_hand(loss, student, tau))


@every_method
def test_the_student_has_the_same_gradient_with_and_without_and_projectors_another(name):
    student, found = tables(D_S, 2, grad=True), []
    for loss in (make(name), with_term(name)):
        parts = [*student, *loss.parameters()]
        found.append(torch.autograd.grad(loss(student, *BATCH), parts))
    for plain, own in list(zip(*found))[:2]:
        assert torch.equal(plain, own)
    assert any(not torch.equal(plain, own) for plain, own in list(zip(*found))[2:])


def test_trained_alone_the_term_makes_both_preferences_agree():
    loss, student = with_term("FD", projector="linear"), tables(D_S, 2)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    values = []
    for _ in range(120):
        optimizer.zero_grad()
        values.append(loss.preference(loss_rows(student), USERS, loss.project))
        values[-1].backward()
        optimizer.step()
    users, items = USERS.unique(), loss.preference.items_of(USERS.unique())
    before = (student[0][users][:, None] * student[1][items]).sum(2) / 0.1
    entropy = torch.distributions.Categorical(logits=before).entropy().mean()
    assert values[-1] - entropy < 0.05 * (values[0] - entropy)


def loss_rows(student):
    return FeatureRows.of_tables(*student)


# --- off -------------------------------------------------------------------------------------


@every_method
def test_without_weight_there_are_no_lists_and_the_loss_is_what_it_was_to_the_bit(
    name, monkeypatch
):
    values = []
    monkeypatch.setattr(ListMaker, "top_items", None)
    for options in ({}, {"preference_beta": 0.0, "preference_items": 7, "preference_tau": 3.0}):
        loss, student = make(name, **options), tables(D_S, 2, grad=True)
        assert loss.preference is None
        loss(student, *BATCH).backward()
        values.append([*(table.grad for table in student), *(p.grad for p in loss.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*values))


@every_method
def test_the_term_adds_no_parameters_and_no_state_and_starts_the_projectors_alike(name):
    plain, own = make(name).state_dict(), with_term(name).state_dict()
    assert list(plain) == list(own) and all(torch.equal(plain[key], own[key]) for key in plain)


# --- what is drawn ---------------------------------------------------------------------------


def chances_by_hand(n, count):
    """How likely each of n ranks is among ``count`` drawn one after the other."""
    weights, found = np.exp(-np.arange(1, n + 1) / 10), np.zeros(n)
    for order in permutations(range(n), count):
        chance, left = 1.0, weights.sum()
        for rank in order:
            chance, left = chance * weights[rank] / left, left - weights[rank]
        found[list(order)] += chance
    return found


def test_ranks_are_drawn_without_replacement_by_the_law_of_ranks():
    loss, times = with_term(preference_items=3), 500
    ranked = (loss.teacher_user_emb @ loss.teacher_item_emb[1:].T).argsort(dim=1, descending=True)
    seen = torch.zeros(N_USERS, N_ITEMS - 1)
    for epoch in range(times):
        loss.start_epoch(epoch)
        drawn = loss.preference.items_of(torch.arange(N_USERS))
        assert all(len(row.unique()) == 3 and row.min() > 0 for row in drawn)
        ranks = (ranked[:, None, :] == drawn[:, :, None] - 1).float().argmax(dim=2)
        seen += torch.zeros_like(seen).scatter_(1, ranks, 1.0)
    expected = torch.from_numpy(chances_by_hand(N_ITEMS - 1, 3)) * times * N_USERS
    assert ((seen.sum(0) - expected).abs() < 5 * expected**0.5).all()
    assert expected[0] > 1.5 * expected[-1]


def test_an_epoch_has_items_of_its_own_and_always_the_same_ones():
    everyone, fresh, later = torch.arange(N_USERS), with_term("FreqD"), with_term("FreqD")
    first = fresh.preference.items_of(everyone)
    fresh.start_epoch(1)
    fresh(tables(D_S, 2), *BATCH)
    second = fresh.preference.items_of(everyone)
    later.start_epoch(1)  # as a run that is resumed there
    assert torch.equal(later.preference.items_of(everyone), second)
    assert not torch.equal(first, second)
    other = with_term("FreqD", seed=1)
    assert not torch.equal(other.preference.items_of(everyone), first)


def test_an_item_that_the_teacher_does_not_know_is_never_drawn():
    teacher = tables(D_T, 1)
    teacher[1][4:] = 0.0
    drawn = with_term(teacher=teacher).preference.items_of(torch.arange(N_USERS))
    assert set(drawn.flatten().tolist()) == {0, 1, 2, 3}  # 0: there are fewer than asked for
    assert with_term(teacher=teacher)(tables(D_S, 2), *BATCH).isfinite()


def test_who_has_fewer_than_two_items_costs_nothing():
    teacher = tables(D_T, 1)
    teacher[1][2:] = 0.0
    loss, student = with_term(teacher=teacher).eval(), tables(D_S, 2)
    assert loss.preference(loss_rows(student), USERS, loss.project) == 0
    assert loss(student, *BATCH) == make("FD", teacher=teacher).eval()(student, *BATCH)


def test_a_batch_reads_its_users_and_their_items_and_nobody_else():
    asked = {"user": [], "item": []}
    user_emb, item_emb = tables(D_S, 2)
    rows = FeatureRows(
        lambda ids: asked["user"].extend(ids.tolist()) or user_emb[ids],
        lambda ids: asked["item"].extend(ids.tolist()) or item_emb[ids],
    )
    loss = with_term(preference_items=2)
    loss.preference(rows, USERS, loss.project)
    drawn = loss.preference.items_of(torch.tensor([1, 3, 7])).unique().tolist()
    assert asked == {"user": [1, 3, 7], "item": drawn} and len(drawn) < N_ITEMS - 1


@every_method
def test_an_empty_batch_has_no_term(name):
    none = USERS[:0]
    value = with_term(name)(tables(D_S, 2, grad=True), none, none, none)
    value.backward()
    assert value == 0


# --- errors ----------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("beta", -0.1, "float >= 0"),
        ("items", 1, "int >= 2"),
        ("tau", 0.0, "float > 0"),
    ],
)
def test_a_value_that_is_not_allowed_is_an_error_with_the_key(name, option, value, allowed):
    key = f"{LOSSES.get(name).prefix}_preference_{option}"
    with pytest.raises(ConfigError, match=f"{key}: got {value}; allowed: {allowed}"):
        make(name, **{f"preference_{option}": value})


def test_sides_of_different_widths_have_no_products_and_are_refused():
    teacher = tables(D_T, 1, item_width=4)
    with pytest.raises(
        ConfigError, match=r"fd_preference_beta: got 0\.3, but the teacher's user f"
    ):
        with_term(teacher=teacher)
    with pytest.raises(ConfigError, match=r"the student's .* 3 dimensions .* 2, .* Allowed: 0\.0"):
        with_term("DE", dims=(3, 2))
    make("FD", teacher=teacher, dims=(3, 2))


def test_what_belongs_to_a_term_that_is_off_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        make("DE", preference_items=3)
        with_term("DE", preference_tau=0.5)
    assert [record.getMessage() for record in caplog.records] == [
        "de_preference_items: no effect without de_preference_beta."
    ]
