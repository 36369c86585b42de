"""KD, RD, CD, UnKD: values against formulas written out plainly, edges, and through the trainer."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses import LOSSES
from recbole_freqd.losses.unkd import pair_shares, popularity_groups
from tests.support.oracles import random_interactions

NAMES = ["KD", "RD", "CD", "UnKD"]
N_USERS, N_ITEMS = 9, 10
NONE = torch.empty(0, dtype=torch.int64)
# Every user has a list to learn from, and draws differ: one group, all of RD's weights.
SMALL = {"KD": {"k": 3}, "RD": {"k": 3, "start": 0}, "CD": {"samples": 2}, "UnKD": {"groups": 1}}
every = pytest.mark.parametrize("name", NAMES)
with_guides = pytest.mark.parametrize(
    ("name", "guide"),
    [
        ("KD", "student"),
        ("KD", "teacher"),
        ("CD", "student"),
        ("CD", "teacher"),
        ("CD", "random"),
        ("RD", None),
        ("UnKD", None),
    ],
)


def features(seed, width=4, scale=1.0, dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (scale * torch.randn(n, width, generator=generator)).to(dtype).requires_grad_(grad)
        for n in (N_USERS, N_ITEMS)
    )


def make(name, user_items=None, teacher=None, seed=0, **options):
    user_items = random_interactions(5) if user_items is None else user_items
    teacher = features(1) if teacher is None else teacher
    options = {**SMALL[name], **{key: value for key, value in options.items() if value is not None}}
    return LOSSES.get(name)(user_items, (4, 4), teacher, seed=seed, **options)


def loss_of(loss, student, users):
    return loss(student, torch.as_tensor(users), NONE, None)


def free_items(user, user_items=None):
    dense = (random_interactions(5) if user_items is None else user_items).toarray()
    return [item for item in range(1, N_ITEMS) if not dense[user, item]]


def ranked(scores, user, items):
    return sorted(items, key=lambda item: -float(scores[user, item]))


def softplus(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


USERS = [3, 1, 3, 3, 7, 8, 6]


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", ["student", "teacher"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("mask_train", [True, False])
def test_kd_is_the_cross_entropy_over_the_list_of_the_guide(guide, temperature, mask_train):
    teacher, student = features(1), features(2)
    T, S = ((pair[0] @ pair[1].T).double().numpy() for pair in (teacher, student))
    expected = 0.0
    for user in USERS:
        items = free_items(user) if mask_train else range(1, N_ITEMS)
        listed = ranked(T if guide == "teacher" else S, user, items)[:3]
        p, q = (
            np.exp(scores[user, listed] / temperature)
            / np.exp(scores[user, listed] / temperature).sum()
            for scores in (T, S)
        )
        expected -= (p * np.log(q)).sum() / len(USERS)
    loss = make("KD", guide=guide, temperature=temperature, mask_train=mask_train)
    assert loss_of(loss, student, USERS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("epoch", [0, 4, 5])
def test_rd_weighs_the_teachers_list_by_position_and_by_the_students_rank(epoch):
    teacher, student = features(1), features(2)
    T, S = ((pair[0] @ pair[1].T).double().numpy() for pair in (teacher, student))
    # So many samples that the estimated rank is the true one.
    options = {"k": 4, "start": 5, "decay": 1.5, "sharpness": 0.3, "samples": 2000}
    loss, expected = make("RD", **options), 0.0
    loss.start_epoch(epoch)
    for user in USERS:
        items = free_items(user)
        listed = ranked(T, user, items)[:4]
        a = np.exp(-np.arange(len(listed)) / 1.5)
        a /= a.sum()
        for k, item in enumerate(listed):
            rank = sum(S[user, other] > S[user, item] for other in items)
            b = max(0.0, math.tanh(0.3 * (rank - k))) if epoch >= 5 else 1.0
            expected += a[k] * b * softplus(-S[user, item]) / len(USERS)
    tolerance = 1e-5 if epoch < 5 else 0.25  # an estimate a hair below a whole rank is one less
    assert loss_of(loss, student, USERS).item() == pytest.approx(expected, rel=tolerance)


def test_rd_estimates_the_rank_by_the_share_of_samples_that_score_higher(monkeypatch):
    student = features(2)
    S = (student[0] @ student[1].T).double().numpy()
    loss = make("RD", k=4, samples=7, sharpness=0.3)
    drawn, draw = {}, loss.free.draw

    def noted(user_ids, count, stream):
        items = draw(user_ids, count, stream)
        drawn.update(zip(user_ids.tolist(), items.tolist()))
        return items

    monkeypatch.setattr(loss.free, "draw", noted)
    value = loss_of(loss, student, USERS)
    expected = 0.0
    for user in USERS:
        assert len(drawn[user]) == 7 and set(drawn[user]) <= set(free_items(user))
        listed = [item for item in loss.list_ids[user].tolist() if item]
        a = np.exp(-np.arange(len(listed)) / 1.0)
        a /= a.sum()
        for k, item in enumerate(listed):
            higher = sum(S[user, other] > S[user, item] for other in drawn[user])
            rank = higher * len(free_items(user)) // 7
            b = max(0.0, math.tanh(0.3 * (rank - k)))
            expected += a[k] * b * softplus(-S[user, item]) / len(USERS)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("guide", ["student", "teacher", "random"])
def test_cd_is_the_binary_cross_entropy_with_the_teachers_soft_labels(guide):
    teacher, student = features(1), features(2)
    T, S = ((pair[0] @ pair[1].T).double().numpy() for pair in (teacher, student))
    loss = make("CD", guide=guide, samples=3, depth=5, temperature=1.5, shift=0.4)
    value, expected = loss_of(loss, student, USERS), 0.0
    for user in USERS:
        drawn = [item for item in loss.drawn_ids[user].tolist() if item]
        items = free_items(user)
        best = ranked(T if guide == "teacher" else S, user, items)[:5]
        best = items if guide == "random" else best
        assert len(set(drawn)) == len(drawn) == min(3, len(best)) and set(drawn) <= set(best)
        for item in drawn:
            q = 1 / (1 + math.exp(-(T[user, item] + 0.4) / 1.5))
            expected += q * softplus(-S[user, item]) + (1 - q) * softplus(S[user, item])
    assert value.item() == pytest.approx(expected / len(USERS), rel=1e-5)


def test_cd_prefers_what_the_guide_ranks_high():
    n_users, n_items = 2000, 41
    teacher = torch.ones(n_users, 1), -torch.arange(float(n_items))[:, None]
    none = sp.csr_array((n_users, n_items))
    loss = LOSSES.get("CD")(none, (1, 1), teacher, guide="teacher", depth=40, samples=1)
    counts = np.bincount(loss.drawn_ids[:, 0].numpy(), minlength=n_items)
    p = np.exp(-np.arange(40) / (40 * 20))
    p /= p.sum()
    behind = np.append(np.cumsum(p[::-1])[::-1][1:], 0)
    expected = n_users * p * (p + 2 * behind)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - expected) <= 5 * np.sqrt(expected) + 1).all()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_unkd_compares_pairs_of_a_group_in_the_teachers_order(groups, monkeypatch):
    teacher, student = features(1), features(2)
    T, S = ((pair[0] @ pair[1].T).double().numpy() for pair in (teacher, student))
    loss, pairs = make("UnKD", groups=groups, pairs=7), {}
    draw = loss.draw_pairs

    def noted(user_ids):
        better, worse = draw(user_ids)
        for user, ups, downs in zip(user_ids.tolist(), better.tolist(), worse.tolist()):
            pairs[user] = list(zip(ups, downs))
        return better, worse

    monkeypatch.setattr(loss, "draw_pairs", noted)
    value, expected = loss_of(loss, student, USERS), 0.0
    popularity = (random_interactions(5).toarray() != 0).sum(0)
    cut = [set(items.tolist()) for items in popularity_groups(popularity, groups)]
    assert set().union(*cut) == set(np.flatnonzero(popularity).tolist())
    for user in USERS:
        found = [pair for pair in pairs[user] if pair != (0, 0)]
        for up, down in found:
            assert T[user, up] > T[user, down] and {up, down} <= set(free_items(user))
            assert any({up, down} <= group for group in cut)
            expected += softplus(S[user, down] - S[user, up]) / len(found) / len(USERS)
    assert value.item() == pytest.approx(expected, rel=1e-5)


# --- groups and shares of UnKD ------------------------------------------------------------------


def test_groups_have_equal_totals_and_what_is_left_joins_the_last_where_it_is_little():
    popularity = np.array([0, 5, 4, 3, 3, 2, 2, 1, 0])
    cut = [items.tolist() for items in popularity_groups(popularity, 2)]
    assert cut == [[1, 2], [3, 4, 5, 6, 7]]  # 9 of 20 and 10, and 1 that is left over
    assert [items.tolist() for items in popularity_groups(popularity, 1)] == [list(range(1, 8))]


def test_an_item_above_its_share_is_a_group_for_itself():
    popularity = np.array([0, 1, 90, 1, 8])
    assert [items.tolist() for items in popularity_groups(popularity, 3)] == [[2], [4, 1, 3]]


def test_shares_are_equal_or_more_for_the_unpopular_and_at_least_as_many_as_asked_for():
    means = np.array([100.0, 10.0, 2.0, 1.0])
    assert pair_shares(means, 30, 0.0) == [8, 8, 8, 8]  # of 30, as the authors round
    assert pair_shares(means, 29, 0.0) == [8, 7, 7, 7]
    shares = pair_shares(means, 30, 2.0)
    assert sum(shares) >= 30 and shares == sorted(shares)


def test_unkd_refuses_what_no_pair_can_be_made_of():
    with pytest.raises(ConfigError, match="unkd_depth: got 1"):
        make("UnKD", depth=1)
    popular = sp.csr_array(np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]))
    teacher = features(1)[0][:3], features(1)[1][:4]
    for many in (3, 2**40):
        with pytest.raises(ConfigError, match=f"unkd_groups: got {many}. That makes 3 groups of"):
            make("UnKD", user_items=popular, teacher=teacher, groups=many)
    assert make("UnKD", user_items=popular, teacher=teacher, groups=1).shares
    with pytest.raises(ConfigError, match="training interactions, but there are none"):
        make("UnKD", user_items=sp.csr_array((N_USERS, N_ITEMS)))


# --- laws --------------------------------------------------------------------------------------


@with_guides
def test_gradients_pass_gradcheck(name, guide):
    student = features(2, dtype=torch.float64, grad=True)
    users = torch.tensor(USERS)

    def value(*tables):
        loss = make(name, guide=guide)  # anew, so that the same is drawn
        loss.start_epoch(0, FeatureRanker(*student))
        return loss_of(loss, tables, users)

    atol = 1e-4 if name == "RD" else 1e-5
    assert torch.autograd.gradcheck(value, student, atol=atol, fast_mode=True)


@with_guides
def test_a_batch_is_the_mean_over_its_rows(name, guide):
    student, values = features(2), []
    for user in USERS:
        loss = make(name, guide=guide, **{"RD": {"start": 1}, "UnKD": {"pairs": 1}}.get(name, {}))
        loss.start_epoch(0, FeatureRanker(*student))
        values.append(loss_of(loss, student, [user]).item())
    loss = make(name, guide=guide, **{"RD": {"start": 1}, "UnKD": {"pairs": 1}}.get(name, {}))
    loss.start_epoch(0, FeatureRanker(*student))
    whole = loss_of(loss, student, USERS).item()
    again = loss_of(make_fresh(loss), student, USERS[::-1] * 2).item()
    if name != "UnKD":  # whose pairs are others in every batch
        assert whole == pytest.approx(np.mean(values), rel=1e-5)
        assert again == pytest.approx(whole, rel=1e-5)


def make_fresh(loss):
    """The loss with its stream back at the start: the same is drawn again."""
    loss.stream._generators.clear()
    return loss


@with_guides
def test_under_autocast_lists_and_scores_are_those_of_single_precision(name, guide):
    student = features(2)
    exact = loss_of(make(name, guide=guide), student, [1, 2, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss_of(make(name, guide=guide), student, [1, 2, 5])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact)


@with_guides
@pytest.mark.parametrize("scale", [1e2, 0.0, 1e-20])
def test_scores_of_plus_and_minus_ten_thousand_stay_finite(name, guide, scale):
    teacher, student = features(1, scale=scale), features(2, scale=scale, grad=True)
    loss = make(name, teacher=tuple(part.detach() for part in teacher), guide=guide)
    value = loss_of(loss, student, USERS)
    value.backward()
    assert torch.isfinite(value) and value >= 0
    assert all(part.grad.isfinite().all() for part in student)


@with_guides
def test_users_without_candidates_cost_nothing_and_short_lists_are_taken_as_they_are(name, guide):
    dense = np.zeros((N_USERS, N_ITEMS))
    dense[1:, 1:4] = 1  # so that UnKD has groups
    dense[2, 1:] = 1  # has everything
    dense[3, 1:9] = 1  # all but one
    dense[4, 1:8] = 1
    user_items = sp.csr_array(dense)
    student = features(2, grad=True)
    options = {"KD": {"k": 5}, "RD": {"k": 5}, "CD": {"samples": 5}}.get(name, {})
    loss = make(name, user_items, guide=guide, **options)
    assert loss_of(loss, student, [2, 2]) == 0
    loss_of(loss, student, [2]).backward()
    assert all(part.grad.abs().sum() == 0 for part in student)
    alone = loss_of(loss, student, [4, 3])
    assert torch.isfinite(alone)
    alone.backward()
    touched = student[1].grad.abs().sum(1).nonzero().flatten().tolist()
    assert set(touched) <= {8, 9}


@with_guides
def test_the_padding_is_never_read_with_weight_and_training_items_are_never_taught(name, guide):
    student, loss = features(2, grad=True), make(name, guide=guide)
    for user in range(1, N_USERS):
        for part in student:
            part.grad = None
        loss_of(loss, student, [user] * 3).backward()
        touched = set(student[1].grad.abs().sum(1).nonzero().flatten().tolist())
        assert touched <= set(free_items(user))
        assert student[0].grad.abs().sum(1).nonzero().flatten().tolist() in ([user], [])
        assert student[0].grad[0].abs().sum() == 0


class OnlyScores(Ranker):
    """A teacher of scores that are no product of anything; it counts what it is asked."""

    def __init__(self, scores):
        self.scores, self.asked = scores, 0
        self.shape, self.device = tuple(scores.shape), scores.device

    def block(self, user_ids):
        self.asked += 1
        return self.scores[user_ids].clone()

    def at(self, user_ids, item_ids):
        self.asked += 1
        return self.scores[user_ids[:, None], item_ids]


@with_guides
def test_the_scores_of_the_teacher_are_taught_and_not_its_features(name, guide):
    T = features(1)[0] @ features(1)[1].T
    by_features = make(name, guide=guide)
    ranker = OnlyScores(T)
    by_scores = LOSSES.get(name)(
        random_interactions(5),
        (4, 4),
        features(7),
        teacher_scores=ranker,
        **SMALL[name],
        **({"guide": guide} if guide else {}),
    )
    before, student = T.clone(), features(2)
    values = [loss_of(loss, student, USERS).item() for loss in (by_features, by_scores)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert torch.equal(T, before)
    asked = ranker.asked
    loss_of(by_scores, student, USERS)
    assert ranker.asked == asked  # no teacher in a training step


@with_guides
def test_items_that_the_teacher_does_not_know_are_in_no_list_and_no_draw(name, guide):
    T = features(1)[0] @ features(1)[1].T
    T[:, 4:7] = -torch.inf
    options = {**SMALL[name], **({"k": 9} if name in ("KD", "RD") else {})}
    options.update({"guide": guide} if guide else {})
    students, values = [features(2, grad=True), features(2, grad=True)], []
    with torch.no_grad():
        students[1][1][4:7] *= 1e3  # to some users these are the best of all, to others the worst
    for student in students:
        data = random_interactions(5), (4, 4), features(7)
        loss = LOSSES.get(name)(*data, teacher_scores=OnlyScores(T), **options)
        values.append(loss_of(loss, student, USERS))
        values[-1].backward()
        assert torch.isfinite(values[-1]) and not student[1].grad[4:7].any()
    assert values[0] == values[1] > 0


@with_guides
def test_lists_are_the_same_at_any_block_size(name, guide, monkeypatch):
    values = []
    for most in (2, 1024):
        monkeypatch.setattr(catalogue, "_MOST_USERS", most)
        # With distinct draws, what is redrawn depends on who is in the block: all are winners here.
        options = {"samples": 9} if name == "CD" and guide != "random" else {}
        values.append(loss_of(make(name, guide=guide, **options), features(2), USERS).item())
    if (name, guide) != ("CD", "random"):
        assert values[0] == values[1]


# --- epochs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["KD", "CD"])
def test_the_students_lists_are_made_anew_every_epoch_and_not_in_between(name):
    loss, first, second = make(name, guide="student", k=None), features(2), features(3)
    lists = "list_ids" if name == "KD" else "drawn_ids"
    loss.start_epoch(0, FeatureRanker(*first))
    made = getattr(loss, lists).clone()
    loss_of(loss, second, USERS)
    assert torch.equal(getattr(loss, lists), made)
    loss.start_epoch(1, FeatureRanker(*second))
    assert not torch.equal(getattr(loss, lists), made)


@pytest.mark.parametrize("name", ["KD", "CD"])
def test_by_hand_the_lists_are_those_of_the_first_batch_after_an_epoch_has_begun(name):
    first, second = features(2), features(3)
    lists = "list_ids" if name == "KD" else "drawn_ids"
    given, own = make(name), make(name)
    for epoch, student in enumerate((first, second)):
        given.start_epoch(epoch, FeatureRanker(*student))
        own.start_epoch(epoch)
        rows = FeatureRows.of_tables(*student)
        values = [loss_of(loss, rows, USERS) for loss in (given, own)]
        assert values[0] == values[1]
        assert torch.equal(getattr(given, lists), getattr(own, lists))
        loss_of(own, features(9), USERS)
        assert torch.equal(getattr(given, lists), getattr(own, lists))


@with_guides
def test_a_restored_stream_goes_on_bit_for_bit(name, guide):
    student = features(2)
    whole, values = make(name, guide=guide), []
    for epoch in range(3):
        if epoch == 2:
            state = {key: value.clone() for key, value in whole.stream.state_dict().items()}
        whole.start_epoch(epoch, FeatureRanker(*student))
        values.append([loss_of(whole, student, USERS).item() for _ in range(2)])
    resumed = make(name, guide=guide)
    resumed.stream.load_state_dict(state)
    resumed.start_epoch(2, FeatureRanker(*student))
    assert [loss_of(resumed, student, USERS).item() for _ in range(2)] == values[2]


@with_guides
def test_a_step_makes_nothing_of_the_size_of_the_catalogue(name, guide):
    n = 2_000
    generator = torch.Generator().manual_seed(0)
    tables = [torch.nn.Parameter(torch.randn(n, 4, generator=generator)) for _ in range(2)]
    teacher = tuple(torch.randn(n, 8, generator=generator) for _ in range(2))
    ids = np.random.default_rng(0).integers(1, n, (2, 4_000))
    user_items = sp.csr_array((np.ones(4_000), tuple(ids)), shape=(n, n))
    options = {"RD": {"start": 0, "samples": 20}, "CD": {"depth": 50}}.get(name, {})
    options |= {"guide": guide} if guide else {}
    loss = LOSSES.get(name)(user_items, (4, 4), teacher, **options)
    loss.start_epoch(0, FeatureRanker(*(table.detach() for table in tables)))
    rows = FeatureRows.of_tables(*tables, in_place=True)
    for table in tables:
        table.grad = torch.zeros_like(table)
    users = torch.arange(1, 11)
    loss_of(loss, rows, users).backward()
    with torch.profiler.profile(profile_memory=True) as profile:
        loss_of(loss, rows, users).backward()
    # 10 users, at most 100 items each, in 4 dimensions.
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 4 * 10 * n


# --- through the trainer -----------------------------------------------------------------------


@every
@pytest.mark.parametrize(("model", "teacher"), [("BPR", "ItemKNN"), ("MultiVAE", "BPR")])
def test_students_are_taught_through_the_trainer(tiny_config, name, model, teacher):
    from recbole_freqd.jobs import run as runs

    recipe, keys = {"model": teacher, "epochs": 1}, {"rd_start": 1} if name == "RD" else {}
    config = tiny_config(model, trainer=name, teacher=recipe, epochs=2, **keys)
    run = runs.run(config, test=False)
    assert set(run.trainer.terms) == {"base", name}
    assert 0 < float(run.trainer.terms[name]) < math.inf
    assert isinstance(run.trainer.distiller.losses[name].teacher_scores, Ranker)


class Killed(Exception):
    """As far as a run can tell, the process is gone."""


@every
def test_a_run_that_was_cut_off_ends_in_the_same_bits(tiny_config, name, tmp_path, monkeypatch):
    from recbole_freqd.jobs import run as runs
    from recbole_freqd.trainer.distiller import Distiller

    def run(folder, **keys):
        recipe = {"model": "BPR", "epochs": 1}
        keys = {"rd_start": 1} | keys if name == "RD" else keys
        folder = str(tmp_path / folder)
        config = tiny_config(trainer=name, teacher=recipe, epochs=4, checkpoint_dir=folder, **keys)
        return runs.run(config, test=False).trainer

    def until_epoch_2(self, epoch, student=None):
        if epoch == 2:
            raise Killed
        begin(self, epoch, student)

    whole, begin = run("whole"), Distiller.start_epoch
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Distiller, "start_epoch", until_epoch_2)
        run("parts")
    resumed = run("parts", resume=True)
    assert len(resumed.train_loss_dict) == 4 and resumed.train_loss_dict == whole.train_loss_dict
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])
