"""RRD, DCD, RCE-KD: what they draw, against the definition; what they cost, against plain loops."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.rankers import FeatureRanker, Ranker, RowsRanker, top_items
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses import LOSSES
from recbole_freqd.losses import over_scores as listwise
from recbole_freqd.losses.draws import FreeItems, distinct_below, weighted_draw
from recbole_freqd.losses.over_scores import masked_logsumexp, relaxed_ranking
from recbole_freqd.trainer.logs import LossLog
from tests.support.oracles import SHORT_LISTS, random_interactions

N_USERS, N_ITEMS, WIDTH = 9, 10, 3
LISTWISE = ["RRD", "DCD", "RCE-KD"]
every_method = pytest.mark.parametrize("name", LISTWISE)
EVERYONE, NONE = torch.arange(1, N_USERS), torch.empty(0, dtype=torch.int64)


def tables(seed, width=WIDTH, dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, width, generator=generator, dtype=dtype).requires_grad_(grad)
        for n in (N_USERS, N_ITEMS)
    )


def make(name, teacher=None, seed=0, interactions=None, width=WIDTH, **options):
    teacher = tables(1, 5) if teacher is None else teacher
    user_items = random_interactions(5) if interactions is None else interactions
    options = {**SHORT_LISTS[name], **options}
    return LOSSES.get(name)(user_items, (width, width), teacher, seed=seed, **options)


def value_of(loss, student, users=EVERYONE):
    return loss(student, users, NONE, None)


def untrained(user, user_items=None):
    dense = (random_interactions(5) if user_items is None else user_items).toarray()
    return [item for item in range(1, N_ITEMS) if dense[user, item] == 0]


def ranked(features, user, items):
    """Items by score, best first."""
    scores = (features[0][user] @ features[1].T).tolist()
    return sorted(items, key=lambda item: -scores[item])


def plain_rrd(scores, above, below):
    """Σ_k [log(Σ_{l ≥ k} exp s_l + Σ_j exp s'_j) - s_k], as it is written."""
    total = 0.0
    for place, item in enumerate(above):
        others = [*above[place:], *below]
        total += math.log(sum(math.exp(scores[other]) for other in others)) - scores[item]
    return total


def scores_of(features, user):
    return (features[0][user] @ features[1].T).tolist()


# --- draws -----------------------------------------------------------------------------------


def test_a_weighted_draw_has_the_chances_of_drawing_one_after_the_other():
    weights = torch.tensor([4.0, 2.0, 1.0, 0.0])
    places, there = weighted_draw(weights.log().expand(20_000, -1), 2, RandomStream(0))
    assert there.all() and (places[:, 0] < places[:, 1]).all() and (places < 3).all()
    shares = torch.bincount(places.flatten(), minlength=4) / len(places)
    w, total = weights.tolist(), 7.0
    for one in range(3):
        second = sum(
            w[other] / total * w[one] / (total - w[other]) for other in range(3) if other != one
        )
        assert shares[one].item() == pytest.approx(w[one] / total + second, abs=0.015)


def test_a_weighted_draw_of_more_than_there_is_gives_what_there_is_first():
    weights = torch.tensor([[-torch.inf, 0.0, -torch.inf, -900.0], [-torch.inf] * 4])
    places, there = weighted_draw(weights, 9, RandomStream(0))
    assert there.tolist() == [[True, True, False, False], [False] * 4]
    assert places[0, :2].tolist() == [1, 3] and places.max() < 4


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 8, 12, 13, 40, 3_000_000])
def test_distinct_numbers_are_distinct_below_the_limit_and_all_there_are(limit):
    found = distinct_below(torch.full((500,), limit), 3, RandomStream(0))
    for row in found.tolist():
        drawn = [number for number in row if number >= 0]
        assert len(set(drawn)) == len(drawn) == min(3, limit)
        assert row[len(drawn) :] == [-1] * (3 - len(drawn))
        assert all(number < limit for number in drawn)


@pytest.mark.parametrize("limit", [8, 20])  # by random keys; by the first distinct draws
def test_distinct_numbers_are_uniform_in_every_place(limit):
    found = distinct_below(torch.full((40_000,), limit), 2, RandomStream(3))
    pairs = torch.bincount(found[:, 0] * limit + found[:, 1], minlength=limit**2)
    pairs = pairs.view(limit, limit).double()
    assert pairs.diagonal().sum() == 0
    expected = len(found) / (limit * (limit - 1))
    chi_squared = ((pairs - expected).square() / expected).sum() - limit * expected
    freedom = limit * (limit - 1) - 1
    assert abs(chi_squared - freedom) < 4 * math.sqrt(2 * freedom)


def test_items_outside_are_uniform_over_exactly_those_that_are_allowed():
    user_items, pool = random_interactions(5), {1, 2, 3, 5, 6, 7, 8, 9}
    among = torch.tensor([item in pool for item in range(user_items.shape[1])])
    lists = torch.tensor([[0, 0], [3, 9], [0, 2], [4, 1], [0, 0], [7, 7], [9, 8], [1, 2], [5, 0]])
    outside = FreeItems(user_items, "cpu", among, lists)
    for user in range(N_USERS):
        allowed = set(untrained(user)) & pool - set(lists[user].tolist())
        assert outside.counts[user] == len(allowed)
        drawn = outside.draw_distinct(torch.full((400,), user), 2, RandomStream(user))
        drawn = drawn[drawn > 0]
        assert set(drawn.tolist()) == allowed
        counts = torch.bincount(drawn)[sorted(allowed)]
        assert counts.min() > 0.5 * counts.max()


def test_items_outside_in_blocks_are_those_of_one_pass(monkeypatch):
    arguments = random_interactions(5), "cpu", None, torch.zeros(N_USERS, 2).int()
    whole = FreeItems(*arguments).draw_distinct(EVERYONE, 3, RandomStream(0))
    monkeypatch.setattr("recbole_freqd.losses.draws._ENTRIES", 1)
    in_blocks = FreeItems(*arguments).draw_distinct(EVERYONE, 3, RandomStream(0))
    assert torch.equal(in_blocks, whole)


# --- the relaxed ranking loss ----------------------------------------------------------------


def test_the_relaxed_ranking_is_its_formula_with_holes_in_the_lists():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    there = torch.rand(5, 6, generator=generator) < 0.7
    there[0], there[1, 4:], there[2, :4] = True, False, False
    rest = masked_logsumexp(scores[:, 4:], there[:, 4:])
    found = relaxed_ranking(scores[:, :4], there[:, :4], rest)
    for row in range(5):
        above = [place for place in range(4) if there[row, place]]
        below = [place for place in (4, 5) if there[row, place]]
        expected = plain_rrd(scores[row].tolist(), above, below)
        assert found[row].item() == pytest.approx(expected, rel=1e-12)


def test_the_relaxed_ranking_passes_gradcheck():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rest = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    there = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    assert torch.autograd.gradcheck(lambda s, r: relaxed_ranking(s, there, r), (scores, rest))


def test_the_gradient_of_the_relaxed_ranking_of_large_scores_is_good_to_a_thousandth():
    drawn = 1e4 * torch.randn(1000, 300, generator=torch.Generator().manual_seed(0))
    there, gradients = torch.ones(1000, 300, dtype=torch.bool), []
    for dtype in (torch.float32, torch.float64):
        scores = drawn.to(dtype).clone().requires_grad_()
        rest = masked_logsumexp(scores[:, 100:], there[:, 100:])
        relaxed_ranking(scores[:, :100], there[:, :100], rest).sum().backward()
        gradients.append(scores.grad.double())
    error = (gradients[0] - gradients[1]).abs().max(dim=1).values
    largest = gradients[1].abs().max(dim=1).values
    assert (error <= 1e-3 * largest).all() and largest.max() > 90


@pytest.mark.parametrize(("size", "precision"), [(1e4, 1e-3), (1e8, None)])
def test_the_relaxed_ranking_of_huge_scores_is_exact_with_a_finite_gradient(size, precision):
    scores = size * torch.tensor([[1.0, -1.0, 0.5], [-1.0, -1.0, -1.0]]).requires_grad_()
    scores.retain_grad()
    value = relaxed_ranking(scores, torch.ones(2, 3, dtype=torch.bool), torch.tensor([0.0, size]))
    value.sum().backward()
    assert value.tolist() == pytest.approx([1.5 * size, 6.0 * size])
    assert scores.grad.isfinite().all()
    if precision:
        expected = torch.tensor([[0.0, -1, 1], [-1, -1, -1]])
        torch.testing.assert_close(scores.grad, expected, rtol=0, atol=precision)


# --- RRD -------------------------------------------------------------------------------------


def test_rrd_of_the_first_k_and_of_all_others_is_its_formula():
    student, teacher = tables(2, dtype=torch.float64, grad=True), tables(1, 5)
    loss = make("RRD", teacher, k=3, top=3, uninteresting=50, sampling="none")
    values = []
    for user in range(1, N_USERS):
        order = ranked(teacher, user, untrained(user))
        values.append(plain_rrd(scores_of(student, user), order[:3], order[3:]))
    assert value_of(loss, student).item() == pytest.approx(np.mean(values), rel=1e-10)


def test_rrd_draws_from_the_top_in_the_teachers_order_and_the_others_from_outside():
    teacher, loss = tables(1, 5), make("RRD")
    for epoch in range(30):
        loss.start_epoch(epoch)
        value_of(loss, tables(2))
        above, below = loss.lists_of(EVERYONE)
        for user, some, others in zip(EVERYONE.tolist(), above.tolist(), below.tolist()):
            order = ranked(teacher, user, untrained(user))
            kept = [item for item in some if item]
            assert kept == sorted(set(kept), key=order.index) and len(kept) == min(2, len(order))
            assert set(kept) <= set(order[:4])
            assert {item for item in others if item} <= set(order[4:])
            assert sum(item > 0 for item in others) == min(2, len(order[4:]))


def test_rrd_at_a_low_temperature_draws_the_first():
    loss = make("RRD", temperature=0.01, top=6)
    value_of(loss, tables(2))
    assert torch.equal(loss.lists_of(EVERYONE)[0], loss._top[EVERYONE, :2])


def test_rrd_keeps_its_lists_for_an_epoch_or_draws_them_for_every_step():
    for resample, same in (("epoch", True), ("step", False)):
        loss, student = make("RRD", resample=resample), tables(2)
        assert (value_of(loss, student) == value_of(loss, student)) == same
    loss = make("RRD")
    before = value_of(loss, student)
    loss.start_epoch(1)
    assert value_of(loss, student) != before


# --- DCD -------------------------------------------------------------------------------------


def test_dcd_of_all_that_is_misjudged_is_its_formula():
    student, teacher = tables(2, dtype=torch.float64, grad=True), tables(1, 5)
    loss, values = make("DCD", teacher, k=50, top=6), []
    for user in range(1, N_USERS):
        own = ranked(student, user, untrained(user))
        top = ranked(teacher, user, untrained(user))[:6]
        above = [item for k, item in enumerate(top) if own.index(item) > k]
        below = [item for k, item in enumerate(top) if own.index(item) < k]
        if above:
            values.append(plain_rrd(scores_of(student, user), above, below))
    assert len(values) > 5
    assert value_of(loss, student).item() == pytest.approx(np.mean(values), rel=1e-10)


def test_dcd_leaves_alone_a_student_that_ranks_as_the_teacher():
    teacher = tables(1)
    student = tuple((2 * part).requires_grad_() for part in teacher)
    value = value_of(make("DCD", teacher), student)
    value.backward()
    assert value == 0 and all(part.grad.abs().sum() == 0 for part in student)


def test_the_item_side_of_dcd_is_the_user_side_of_the_exchanged_data():
    student, teacher = tables(2, dtype=torch.float64, grad=True), tables(1, 5)
    interactions = random_interactions(5)
    dense, active = interactions.toarray(), np.flatnonzero(interactions.sum(axis=1))
    items, values = torch.tensor([1, 3, 3, 7, 8, 2]), []
    for item in (1, 2, 3, 7, 8):
        free = [user for user in active if dense[user, item] == 0]
        own, top = (ranked(pair[::-1], item, free) for pair in (student, teacher))
        above = [user for k, user in enumerate(top[:6]) if own.index(user) > k]
        below = [user for k, user in enumerate(top[:6]) if own.index(user) < k]
        if above:
            values.append(plain_rrd(scores_of(student[::-1], item), above, below))
    assert len(values) > 3
    both, user_side = (make("DCD", k=50, top=6, item_side=side) for side in (True, False))
    by_items = both(student, EVERYONE, items, None) - user_side(student, EVERYONE, items, None)
    assert by_items.item() == pytest.approx(np.mean(values), rel=1e-10)


def test_without_products_of_features_dcd_says_that_it_has_no_item_side(caplog):
    user_emb, item_emb = tables(2)
    rows = FeatureRows.of_tables(user_emb, item_emb)
    scored = FeatureRows(rows.user, rows.item, scorer=rows.scores)
    everything = torch.ones(N_ITEMS, dtype=torch.bool)
    items, loss, teacher = torch.tensor([1, 3]), make("DCD"), tables(1, 5)
    data = random_interactions(5), (WIDTH, WIDTH), teacher
    other = LOSSES.get("DCD")(*data, teacher_scores=Knows(teacher, everything), k=2, top=6)
    assert "the teacher's scores are not products" in caplog.text
    value = make("DCD", item_side=False)((user_emb, item_emb), EVERYONE, items, None)
    assert loss(scored, EVERYONE, items, None) == value
    assert other((user_emb, item_emb), EVERYONE, items, None) == value
    assert caplog.text.count("the student's scores are not products of rows of tables") == 1


def test_dcd_never_computes_users_beyond_the_batch(caplog):
    rows, asked = FeatureRows.of_tables(*tables(2)), []
    computed = FeatureRows(lambda ids: asked.append(ids) or rows.user(ids), rows.item)
    loss, items = make("DCD"), torch.tensor([1, 3])
    for epoch in range(2):
        loss.start_epoch(
            epoch, RowsRanker(FeatureRows(rows.user, rows.item), (N_USERS, N_ITEMS), "cpu")
        )
        value = loss(computed, EVERYONE[:2], items, None)
    assert [ids.tolist() for ids in asked] == [EVERYONE[:2].tolist()] * 2
    assert caplog.text.count("no item side") == 1
    user_side = make("DCD", item_side=False)
    for epoch in range(2):
        user_side.start_epoch(epoch, FeatureRanker(*tables(2)))
    assert value == user_side(tables(2), EVERYONE[:2], items, None)


@pytest.mark.parametrize(
    ("name", "looked_up"), [("BPR", True), ("LightGCN", True), ("SimpleX", False)]
)
def test_a_student_has_users_of_an_item_where_they_are_rows_of_a_table(built, name, looked_up):
    from recbole_freqd.features import StudentRanker, adapter_of

    model, _ = built(name)
    assert (StudentRanker(model, adapter_of(model)).exchanged() is not None) == looked_up


def test_dcd_draws_what_is_misjudged_most_more_often(monkeypatch):
    """The chances are tanh of the difference in ranks over T, in the memory of the draw."""
    seen = []

    def recorded(weights, count, stream):
        seen.append(weights.exp())
        return weighted_draw(weights, count, stream)

    monkeypatch.setattr("recbole_freqd.losses.dcd.weighted_draw", recorded)
    student, teacher = tables(2), tables(1, 5)
    value_of(make("DCD", teacher, top=5, temperature=3.0), student)
    for user in range(1, N_USERS):
        own = ranked(student, user, untrained(user))
        for k, item in enumerate(ranked(teacher, user, untrained(user))[:5]):
            degree = math.tanh((own.index(item) - k) / 3.0)
            assert seen[0][user, k].item() == pytest.approx(max(degree, 0.0), abs=1e-6)
            assert seen[1][user, k].item() == pytest.approx(max(-degree, 0.0), abs=1e-6)


# --- RCE-KD ----------------------------------------------------------------------------------


def test_rce_kd_compares_the_scores_of_neumf_on_one_scale(built):
    """What its predict gives are sigmoids; lists, and scores of other items, are what is below."""
    from recbole_freqd.features import adapter_of
    from recbole_freqd.features.scores import ModelRanker

    model, (train_data, *_) = built("NeuMF", mlp_hidden_size=[8])
    with torch.no_grad():
        model.predict_layer.bias += 3.0
    adapter = adapter_of(model)
    teacher = ModelRanker(model, adapter.caches, adapter.pairs_by)
    features = [torch.randn(n, WIDTH) for n in teacher.shape]
    user_items = sp.csr_array(train_data._dataset.inter_matrix(form="csr"))
    loss = LOSSES.get("RCE-KD")(user_items, (WIDTH, WIDTH), features, teacher_scores=teacher, k=5)
    loss.start_epoch(0, FeatureRanker(*features))
    users = torch.arange(1, model.n_users)
    scores = teacher.block(users)
    there = loss._teacher_ids[users] > 0
    expected, kept = scores.gather(1, loss._teacher_ids[users].long()), loss._teacher_scores[users]
    torch.testing.assert_close(kept[there], expected[there], rtol=1e-4, atol=1e-5)
    assert kept[there].max() > 1
    lists = loss._lists[users]
    for part in (slice(5), slice(5, None)):
        nothing = lists[:, part] == 0
        own = scores.gather(1, lists[:, part].long()).masked_fill(nothing, -torch.inf)
        chances = torch.where(nothing, 0.0, own.softmax(dim=1))
        torch.testing.assert_close(loss._chances[users][:, part], chances, rtol=1e-3, atol=1e-5)


def plain_cross_entropy(student, teacher, items, tau):
    def chances(scores):
        powers = [math.exp(scores[item] / tau) for item in items]
        return [power / sum(powers) for power in powers]

    return -sum(q * math.log(p) for q, p in zip(chances(teacher), chances(student)))


@pytest.mark.parametrize("mask_train", [True, False])
@pytest.mark.parametrize("sampled", [2, 50])
def test_rce_kd_is_its_formula_given_the_sample(mask_train, sampled):
    student, teacher = tables(2, dtype=torch.float64, grad=True), tables(1, 5)
    options = {"k": 3, "top": 5, "tau": 0.7, "gamma": 2.0}
    loss = make("RCE-KD", teacher, sampled=sampled, mask_train=mask_train, **options)
    value, values = value_of(loss, student).item(), []
    for user in range(1, N_USERS):
        items = untrained(user) if mask_train else range(1, N_ITEMS)
        own = ranked(student, user, items)[:5]
        of_teacher = ranked(teacher, user, items)[:3]
        sample = [item for item in loss._lists[user, 3 : 3 + min(sampled, 5)].tolist() if item]
        assert set(sample) <= set(own) and len(sample) == min(sampled, len(own))
        joined = sample + [i for i in of_teacher if i not in sample and i not in own[:3]]
        overlap = len(set(of_teacher) & set(sample)) / len(of_teacher)
        gamma = math.exp(-2.0 * overlap)
        scores = scores_of(student, user), scores_of(teacher, user)
        first = plain_cross_entropy(*scores, own[:3], 0.7)
        second = plain_cross_entropy(*scores, joined, 0.7)
        values.append((1 - gamma) * first + gamma * second)
    assert value == pytest.approx(np.mean(values), rel=1e-5)  # the teacher's scores are float32


@pytest.mark.parametrize("cap", [1, None])
def test_rce_kd_draws_by_the_teachers_items_at_or_behind_a_rank(monkeypatch, cap):
    seen = []

    def recorded(weights, count, stream):
        seen.append(weights)
        return weighted_draw(weights, count, stream)

    monkeypatch.setattr("recbole_freqd.losses.rcekd.weighted_draw", recorded)
    student, teacher = tables(2), tables(1, 5)
    value_of(make("RCE-KD", teacher, k=3, top=5, temperature=2.0, cap=cap), student)
    for user in range(1, N_USERS):
        own = ranked(student, user, untrained(user))[:5]
        best = ranked(teacher, user, untrained(user))[:3]
        for rank in range(5):
            if rank >= len(own):
                assert seen[0][user, rank] == -torch.inf
                continue
            behind = sum(item in best for item in own[rank:])
            behind = behind if cap is None else min(behind, cap)
            assert seen[0][user, rank].item() == pytest.approx((behind + 1) / 2.0)


def test_rce_kd_of_a_student_with_the_teachers_scores_has_no_gradient():
    teacher = tables(1)
    student = tuple(part.clone().requires_grad_() for part in teacher)
    value_of(make("RCE-KD", teacher), student).backward()
    assert all(part.grad.abs().max() < 1e-6 for part in student)


# --- laws of all three -----------------------------------------------------------------------


@every_method
def test_gradients_pass_gradcheck(name):
    loss, student = make(name), tables(2, dtype=torch.float64, grad=True)
    value_of(loss, student)  # draws the lists; they stay those of this epoch
    assert torch.autograd.gradcheck(lambda *parts: value_of(loss, parts), student, fast_mode=True)


@every_method
def test_the_loss_of_a_batch_is_the_mean_of_its_distinct_users_that_have_a_list(name):
    loss, student = make(name), tables(2)
    whole = value_of(loss, student)
    alone = [value_of(loss, student, torch.tensor([user])) for user in EVERYONE]
    counted = [value for value in alone if value > 0]
    torch.testing.assert_close(whole, torch.stack(counted).mean())
    assert value_of(loss, student, EVERYONE.repeat(3)) == whole


@every_method
def test_items_trained_on_and_the_padding_get_no_gradient(name):
    loss, student = make(name), tables(2, grad=True)
    for user in EVERYONE.tolist():
        for epoch in range(3):
            loss.start_epoch(epoch)
            student[1].grad = None
            value_of(loss, student, torch.tensor([user])).backward()
            touched = set(student[1].grad.abs().sum(1).nonzero().flatten().tolist())
            assert touched <= set(untrained(user))
    assert student[0].grad[0].abs().sum() == 0


@every_method
def test_a_user_with_no_or_one_item_left_is_no_trouble(name):
    dense = np.zeros((N_USERS, N_ITEMS))
    dense[1, 1:], dense[2, 2:], dense[3, 3:] = 1, 1, 1
    loss, student = make(name, interactions=sp.csr_array(dense)), tables(2, grad=True)
    value = value_of(loss, student)
    value.backward()
    assert torch.isfinite(value) and all(part.grad.isfinite().all() for part in student)
    assert value_of(loss, student, torch.tensor([1])) == 0
    assert torch.isfinite(value_of(loss, student, torch.tensor([1, 2, 3])))


@every_method
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_scores_of_ten_thousand_are_finite_in_value_and_gradient(name, size):
    student = tables(2)
    student = ((student[0] * size).requires_grad_(), student[1].requires_grad_())
    teacher = tables(1, 5)
    loss = make(name, (teacher[0] * 1e4, teacher[1]))
    value = value_of(loss, student)
    value.backward()
    assert torch.isfinite(value) and value > 0
    assert all(part.grad.isfinite().all() for part in student)


@every_method
def test_lists_longer_than_the_catalogue_are_as_long_as_it(name):
    options = dict.fromkeys(SHORT_LISTS[name], 500)
    loss, student = make(name, **options), tables(2, grad=True)
    value = value_of(loss, student)
    value.backward()
    assert torch.isfinite(value) and value > 0


class Knows(Ranker):
    """Scores of tables, but -inf for the items that are not known."""

    def __init__(self, features, known):
        self.inner, self.known = FeatureRanker(*features), known
        self.shape, self.device = self.inner.shape, self.inner.device

    def block(self, user_ids):
        scores = self.inner.block(user_ids)
        scores[:, ~self.known] = -torch.inf
        return scores

    def at(self, user_ids, item_ids):
        return self.block(user_ids).gather(1, item_ids)


@every_method
def test_items_the_teacher_does_not_know_are_in_no_list(name):
    known = torch.ones(N_ITEMS, dtype=torch.bool)
    known[[3, 7, 8]] = False
    teacher, students, values = tables(1, 5), [tables(2, grad=True), tables(2, grad=True)], []
    with torch.no_grad():
        students[1][1][~known] *= 1e3
    for student in students:
        loss = LOSSES.get(name)(
            random_interactions(5), (WIDTH, WIDTH), teacher, teacher_scores=Knows(teacher, known)
        )
        for epoch in range(3):
            loss.start_epoch(epoch)
            values.append(value_of(loss, student))
            values[-1].backward()
        assert student[1].grad[~known].abs().sum() == 0 < student[1].grad[known].abs().sum()
    assert values[:3] == values[3:]


@every_method
def test_lists_are_the_same_from_a_ranker_as_from_the_features_of_the_first_batch(name):
    student, values = tables(2), []
    for by_ranker in (True, False):
        loss = make(name)
        loss.start_epoch(0, FeatureRanker(*student) if by_ranker else None)
        values.append(value_of(loss, student))
    assert values[0] == values[1]


@every_method
def test_a_student_with_a_scorer_is_taught_by_its_scores(name):
    user_emb, item_emb = tables(2, grad=True)
    rows = FeatureRows.of_tables(user_emb, item_emb)
    scored = FeatureRows(
        rows.user, rows.item, scorer=lambda users, items: rows.scores(users, items) / 2
    )
    halved = make(name)
    torch.testing.assert_close(
        value_of(halved, scored), value_of(make(name), (user_emb / 2, item_emb))
    )


@every_method
def test_under_autocast_scores_are_those_of_single_precision(name):
    student = tables(2)
    exact = value_of(make(name), student)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # lists are made in it too
        value = value_of(make(name), student)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact)


@every_method
def test_blocks_of_any_size_give_lists_of_the_same_kind(name, monkeypatch):
    monkeypatch.setattr("recbole_freqd.core.rankers.BUDGET_BYTES", 1)
    monkeypatch.setattr(listwise, "BUDGET_BYTES", 1)
    options = {key: 500 for key in SHORT_LISTS[name] if key in ("k", "sampled", "uninteresting")}
    student, small = tables(2), make(name, **options)
    value = value_of(small, student)
    monkeypatch.undo()
    torch.testing.assert_close(value, value_of(make(name, **options), student))


@every_method
def test_it_learns_the_teachers_order(name):
    """A checkerboard: the student has the teacher's first item first when it is done."""
    teacher, student = tables(1, 5), tables(2, 8)
    student = [part.clone().requires_grad_() for part in student]
    loss = make(name, teacher, width=8, k=3)
    optimizer = torch.optim.Adam(student, lr=0.05)
    for epoch in range(150):
        loss.start_epoch(epoch, FeatureRanker(*student))
        optimizer.zero_grad()
        value_of(loss, student).backward()
        optimizer.step()
    first = [
        top_items(FeatureRanker(*features), 1, exclude=random_interactions(5)).ids[1:, 0]
        for features in (student, teacher)
    ]
    assert (first[0] == first[1]).float().mean() >= 7 / 8


# --- through the trainer ---------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(("model", "teacher"), [("BPR", "ItemKNN"), ("MultiVAE", "BPR")])
def test_it_trains_through_the_trainer(tiny_config, name, model, teacher):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    recipe = {"model": "BPR", "embedding_size": 8, "epochs": 2} if teacher == "BPR" else None
    prefix = LOSSES.get(name).prefix
    config = tiny_config(
        model,
        trainer=name,
        teacher=recipe or {"model": teacher, "k": 5},
        train_neg_sample_args=None if model == "MultiVAE" else {
            "distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False,
            "candidate_num": 0,
        },
        **{f"{prefix}_k": 5, f"{prefix}_top": 10},
    )  # fmt: skip
    init_seed(config["seed"], True)
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    student = config.model_class(config, train_data._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, student)
    seen = []
    trainer.part(LossLog).write = lambda means, epoch: seen.append(means[name])
    trainer.fit(train_data, valid_data)
    assert len(seen) == 2 and all(math.isfinite(value) and value > 0 for value in seen)
