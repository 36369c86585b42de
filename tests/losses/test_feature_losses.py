"""FitNet, VkD, DE, FTD and HTD against their formulas written plainly, and what they promise."""

from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.losses import LOSSES
from recbole_freqd.losses import de as experts_module
from recbole_freqd.losses.de import annealed
from recbole_freqd.losses.draws import distinct, gumbel
from recbole_freqd.losses.topology import group_errors, topology_error
from tests.support.oracles import random_interactions

N_USERS, N_ITEMS, D_S, D_T = 9, 10, 3, 5
NONE = torch.empty(0, dtype=torch.int64)
METHODS = ["FitNet", "VkD", "DE", "FTD", "HTD"]
every_method = pytest.mark.parametrize("name", METHODS)
from_the_catalogue = pytest.mark.parametrize("name", ["FitNet", "VkD"])
of_topology = pytest.mark.parametrize("name", ["FTD", "HTD"])
USERS, POSITIVES, NEGATIVES = (
    torch.tensor(ids) for ids in ([3, 1, 3, 7], [2, 2, 5, 9], [7, 5, 1, 1])
)
BATCH = (USERS, POSITIVES, NEGATIVES)


def tables(width, seed, dtype=torch.float64, grad=False, item_width=None):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, d, generator=generator, dtype=dtype).requires_grad_(grad)
        for n, d in ((N_USERS, width), (N_ITEMS, item_width or width))
    )


def make(name, teacher=None, dims=(D_S, D_S), seed=0, **options):
    teacher = tables(D_T, 1) if teacher is None else teacher
    return LOSSES.get(name)(random_interactions(5), dims, teacher, seed=seed, **options)


def teachers(loss):
    return loss.teacher_user_emb, loss.teacher_item_emb


def cos(a, b):
    lengths = a.norm() * b.norm()
    return (a @ b) / lengths if lengths > 0 else 0.0 * (a @ b)


class Recorder(FeatureRows):
    """Rows of tables, and the ids that were asked for by side."""

    @classmethod
    def over(cls, user_emb, item_emb):
        asked = {"user": [], "item": []}
        rows = cls(
            lambda ids: asked["user"].extend(ids.tolist()) or user_emb[ids],
            lambda ids: asked["item"].extend(ids.tolist()) or item_emb[ids],
        )
        return rows, asked


# --- what is drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "count"), [(6, 3), (14, 2), (40, 1), (7, 6)])
def test_every_candidate_is_as_likely_as_any_other_and_comes_at_most_once(n, count):
    stream, candidates, times = RandomStream(0), 100 + 3 * torch.arange(n), 6000
    seen = torch.zeros(n)
    for _ in range(times):
        drawn = distinct(candidates, count, stream)
        assert len(drawn) == count == len(drawn.unique())
        seen[(drawn - 100) // 3] += 1
    expected = times * count / n
    assert ((seen - expected).abs() < 5 * expected**0.5).all()


def test_every_pair_of_candidates_is_as_likely_too():
    stream, seen, times = RandomStream(1), torch.zeros(9, 9), 7200
    for _ in range(times):
        first, second = distinct(torch.arange(9), 2, stream).sort().values
        seen[first, second] += 1
    counts = seen[tuple(torch.triu_indices(9, 9, 1))]
    assert ((counts - times / 36).abs() < 5 * (times / 36) ** 0.5).all()


def test_all_are_taken_where_there_are_no_more_than_asked_for():
    assert distinct(torch.tensor([4, 2, 9]), 3, RandomStream(0)).tolist() == [4, 2, 9]
    assert distinct(torch.tensor([4]), 5, RandomStream(0)).tolist() == [4]
    assert distinct(NONE, 5, RandomStream(0)).tolist() == []
    assert distinct(torch.arange(5), 0, RandomStream(0)).tolist() == []


def test_a_small_sample_of_many_costs_no_permutation_of_all(monkeypatch):
    monkeypatch.setattr(torch, "randperm", None)
    assert len(distinct(torch.arange(100_000), 500, RandomStream(0)).unique()) == 500


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_noise_has_its_mean_and_spread_and_is_finite(dtype):
    noise = gumbel(torch.empty(200, 500, dtype=dtype), RandomStream(0))
    assert noise.dtype == dtype and noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(np.pi**2 / 6, abs=0.05)


# --- FitNet and VkD --------------------------------------------------------------------------


def by_hand(loss, student, project, distance, centers=(0.0, 0.0)):
    """The loss where the whole catalogue is the sample."""
    total = 0.0
    for place, (own, teacher) in enumerate(zip(student, teachers(loss))):
        side, errors = ("user", "item")[place], []
        for x in range(1, len(own)):
            y, t = project(side, own[x]), teacher[x] - centers[place]
            errors.append((y - t).square().sum() if distance == "squared" else 1 - cos(y, t))
        total = total + sum(errors) / len(errors)
    return total


MANY = torch.ones(50, dtype=torch.int64)


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_fitnet_with_a_line_is_the_mean_error_of_each_side(distance):
    loss, student = make("FitNet", projector="linear", distance=distance), tables(D_S, 2)
    lines = {side: (p.weight, p.bias) for side, p in loss.projectors.items()}
    expected = by_hand(loss, student, lambda side, s: s @ lines[side][0] + lines[side][1], distance)
    torch.testing.assert_close(loss(student, MANY, NONE), expected)


def test_fitnet_with_mlps_is_the_mean_error_of_each_side():
    loss, student = make("FitNet", experts=2, hidden=4).eval(), tables(D_S, 2)

    def project(side, s):
        p, out = loss.projectors[side], 0.0
        for e in range(2):
            inner = torch.relu(s @ p.weight_in[e] + p.bias_in[e, 0])
            out = out + (inner @ p.weight_out[e] + p.bias_out[e]) / 2
        return out

    expected = by_hand(loss, student, project, "squared")
    torch.testing.assert_close(loss(student, MANY, NONE), expected)


@pytest.mark.parametrize("distance", ["squared", "cosine"])
@pytest.mark.parametrize("center", [True, False])
def test_vkd_is_the_mean_error_through_an_orthogonal_map(distance, center):
    loss, student = make("VkD", distance=distance, center=center), tables(D_S, 2)
    W = {side: projector.weight for side, projector in loss.projectors.items()}
    centers = [t[1:].mean(0) if center else torch.zeros(D_T) for t in teachers(loss)]
    expected = by_hand(loss, student, lambda side, s: W[side] @ s, distance, centers)
    torch.testing.assert_close(loss(student, MANY, NONE), expected)
    own = tables(D_S, 3)[0]
    torch.testing.assert_close(loss.projectors["user"](own), own @ W["user"].T)


@from_the_catalogue
@pytest.mark.parametrize("batch", [(USERS, POSITIVES, NEGATIVES), (USERS, NONE, None)])
def test_as_many_entities_are_drawn_as_the_batch_has_rows_whoever_they_are(name, batch):
    draws = []
    for users in (batch[0], torch.ones_like(batch[0])):
        rows, asked = Recorder.over(*tables(D_S, 2))
        loss = make(name)
        loss(rows, users, *batch[1:])
        assert {side: len(set(ids)) for side, ids in asked.items()} == {"user": 4, "item": 4}
        assert min(asked["user"] + asked["item"]) >= 1
        loss(rows, users, *batch[1:])  # and others in the next step
        assert any(ids[4:] != ids[:4] for ids in asked.values())
        draws.append(asked)
    assert draws[0] == draws[1]


@from_the_catalogue
def test_whom_the_teacher_does_not_know_is_never_drawn(name):
    teacher = tables(D_T, 1)
    teacher[0][[2, 5]], teacher[1][3:] = 0.0, 0.0
    rows, asked = Recorder.over(*tables(D_S, 2))
    loss = make(name, teacher=teacher)
    for _ in range(20):
        loss(rows, USERS, POSITIVES, NEGATIVES)
    assert set(asked["user"]) == {1, 3, 4, 6, 7, 8} and set(asked["item"]) == {1, 2}
    if name == "VkD":
        torch.testing.assert_close(loss.user_mean, teacher[0][[1, 3, 4, 6, 7, 8]].mean(0))


@from_the_catalogue
def test_a_teacher_that_knows_nobody_costs_nothing(name):
    student = tables(D_S, 2, grad=True)
    value = make(name, teacher=tuple(torch.zeros_like(t) for t in tables(D_T, 1)))(student, *BATCH)
    value.backward()
    assert value == 0 and all(table.grad.abs().sum() == 0 for table in student)


@from_the_catalogue
def test_on_average_a_small_batch_costs_what_the_whole_catalogue_does(name):
    options = {"projector": "linear"} if name == "FitNet" else {}
    loss, student = make(name, **options), tables(D_S, 2)
    with torch.no_grad():
        values = torch.stack([loss(student, USERS[:2], NONE) for _ in range(800)])
    error = values.std() / len(values) ** 0.5
    assert (values.mean() - loss(student, MANY, NONE)).abs() < 5 * error


def test_the_map_of_vkd_stays_orthogonal_while_it_learns_and_has_no_weight_decay():
    loss, student = (
        make("VkD", teacher=tables(D_T, 1, torch.float32)),
        tables(D_S, 2, torch.float32),
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    start = loss.projectors["user"].weight.detach().clone()
    values = []
    for _ in range(50):
        optimizer.zero_grad()
        values.append(loss(student, MANY, NONE))
        values[-1].backward()
        optimizer.step()
    for projector in loss.projectors.values():
        W = projector.weight.detach()
        torch.testing.assert_close(W.T @ W, torch.eye(D_S), atol=1e-5, rtol=0)
    assert values[-1] < values[0] and (W - start).abs().max() > 0.01
    with pytest.raises(ConfigError, match="VkD has no option 'weight_decay'"):
        make("VkD", weight_decay=0.1)


def test_the_map_of_vkd_comes_back_from_its_state():
    one, other, student = make("VkD", seed=1), make("VkD", seed=2), tables(D_S, 2)
    assert one(student, MANY, NONE) != other(student, MANY, NONE)
    other.load_state_dict(one.state_dict())
    assert one(student, MANY, NONE) == other(student, MANY, NONE)


def test_vkd_needs_a_student_no_wider_than_its_teacher():
    with pytest.raises(ConfigError, match="student's item features have 6 dimensions.*teacher's 5"):
        make("VkD", dims=(D_S, 6))
    value = make("VkD", dims=(D_T, D_T))(tables(D_T, 2), *BATCH)
    assert torch.isfinite(value)


# --- DE --------------------------------------------------------------------------------------


def expert_errors(loss, side, student, teacher, temperature, noise=None):
    """‖t - Σ z_e f_e(s)‖² of every entity, by loops."""
    mixture, result = loss.mixtures[side], []
    n_experts = len(mixture.gate_bias)
    hidden = len(mixture.bias_in) // n_experts
    for x in range(len(teacher)):
        logits = (teacher[x] @ mixture.gate_weight + mixture.gate_bias).softmax(0).log()
        logits = logits if noise is None else logits + noise[x]
        z = (logits / temperature).softmax(0)
        out = torch.zeros_like(teacher[x])
        for e in range(n_experts):
            own = slice(e * hidden, (e + 1) * hidden)
            inner = torch.relu(student[x] @ mixture.weight_in[:, own] + mixture.bias_in[own])
            out = out + z[e] * (inner @ mixture.weight_out[own] + mixture.bias_out[e])
        result.append((teacher[x] - out).square().sum())
    return torch.stack(result)


@pytest.mark.parametrize("n_experts", [1, 3])
@pytest.mark.parametrize("epoch", [0, 40])
def test_de_is_the_mean_error_of_the_chosen_experts(n_experts, epoch):
    loss = make("DE", experts=n_experts, hidden=4, temperature_epochs=200).eval()
    student = tables(D_S, 2)
    loss.start_epoch(epoch)
    temperature = 1e-10 ** (epoch / 200)
    users, items = (
        expert_errors(loss, side, own, teacher, temperature)
        for side, own, teacher in zip(("user", "item"), student, teachers(loss))
    )
    expected = users[[1, 3, 7]].mean() + (items[[2, 5, 9]].mean() + items[[1, 5, 7]].mean()) / 2
    torch.testing.assert_close(loss(student, *BATCH), expected)
    expected = users[[1, 3, 7]].mean() + items[[2, 5, 9]].mean()
    torch.testing.assert_close(loss(student, USERS, POSITIVES, None), expected)


def test_in_training_the_choice_of_experts_has_gumbel_noise_in_its_logarithm(monkeypatch):
    noise = torch.linspace(-2, 3, 12, dtype=torch.float64).view(4, 3)
    monkeypatch.setattr(experts_module, "gumbel", lambda like, stream: noise)
    loss, student = make("DE", experts=3), tables(D_S, 2)
    errors = expert_errors(
        loss, "user", student[0][:4], loss.teacher_user_emb[:4], loss.temperature, noise
    )
    got = loss.errors("user", student[0][:4], loss.teacher_user_emb[:4])
    torch.testing.assert_close(got, errors)


def test_the_temperature_falls_by_equal_ratios_and_stays_at_its_end():
    assert [annealed(epoch, 10) for epoch in (0, 1, 5)] == pytest.approx([1.0, 0.1, 1e-5])
    assert annealed(10, 10) == annealed(500, 10) == pytest.approx(1e-10)


@pytest.mark.parametrize("name", ["DE", "HTD"])
def test_at_the_lowest_temperature_one_expert_is_chosen_and_all_stays_finite(name):
    loss = make(name, tables(D_T, 1, torch.float32), temperature_epochs=1)
    loss.start_epoch(1)
    mixture = loss.mixtures["user"]
    choice = mixture.choose(mixture.gate(loss.teacher_user_emb), loss.temperature)
    assert (choice.max(dim=1).values == 1).all()
    student = tables(D_S, 2, torch.float32, grad=True)
    loss(student, *BATCH).backward()
    parts = [*student, *loss.parameters()]
    assert all(part.grad.isfinite().all() for part in parts)


@pytest.mark.parametrize("name", ["DE", "HTD"])
def test_experts_never_make_an_array_of_entities_times_experts_times_the_teachers_width(name):
    n, count, width = 1000, 20, 200
    loss = make(name, tables(width, 1, torch.float32), hidden=2)
    mixture = experts_module.ExpertMixture(D_S, width, loss.stream, count, hidden=2)
    student, choice = torch.randn(n, D_S), torch.rand(n, count).requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        mixture(student, choice).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 4 * n * width


# --- FTD and HTD -----------------------------------------------------------------------------


def pair_errors(student, teacher):
    """(cos_s - cos_t)² of all ordered pairs of different rows, by loops."""
    return {
        (a, b): (cos(student[a], student[b]) - cos(teacher[a], teacher[b])) ** 2
        for a in range(len(student))
        for b in range(len(student))
        if a != b
    }


@pytest.mark.parametrize("size", [1, 2, 4, 30])  # below and above both widths
@pytest.mark.parametrize("zero", [False, True])
def test_the_sum_over_pairs_is_had_without_the_pairs(size, zero):
    generator = torch.Generator().manual_seed(size)
    student, teacher = (
        torch.randn(size, width, generator=generator, dtype=torch.float64) for width in (D_S, D_T)
    )
    if zero:
        student[0] = teacher[-1] = 0.0
    expected = sum(pair_errors(student, teacher).values(), torch.zeros(()))
    torch.testing.assert_close(
        topology_error(student, teacher), expected, check_dtype=False, atol=1e-12, rtol=1e-9
    )


def stacked(pair):
    """Rows of the entities of BATCH, users first, each once."""
    return torch.cat([pair[0][[1, 3, 7]], pair[1][[1, 2, 5, 7, 9]]])


def test_ftd_is_the_mean_over_all_pairs_of_entities_users_and_items_mixed():
    loss, student = make("FTD"), tables(D_S, 2)
    errors = pair_errors(stacked(student), stacked(teachers(loss)))
    assert len(errors) == 8 * 7
    torch.testing.assert_close(loss(student, *BATCH), sum(errors.values()) / 56)


def test_ftd_keeps_to_one_side_where_there_is_no_cosine_between_the_two():
    teacher = tables(D_T, 1, item_width=4)
    loss, student = make("FTD", teacher=teacher), tables(D_S, 2)
    parts = [
        pair_errors(own[ids], theirs[ids])
        for own, theirs, ids in zip(student, teacher, ([1, 3, 7], [1, 2, 5, 7, 9]))
    ]
    expected = sum(sum(part.values()) for part in parts) / (3 * 2 + 5 * 4)
    torch.testing.assert_close(loss(student, *BATCH), expected)


def test_ftd_is_blind_to_rotation_and_lengths_and_0_for_a_copy_of_the_teacher():
    loss, student = make("FTD", dims=(D_T, D_T)), tables(D_T, 2)
    rotation = torch.linalg.qr(torch.randn(D_T, D_T, dtype=torch.float64))[0]
    turned = tuple(3.0 * table @ rotation for table in student)
    torch.testing.assert_close(loss(turned, *BATCH), loss(student, *BATCH))
    assert abs(loss(teachers(loss), *BATCH)) < 1e-12


def test_the_mean_of_ftd_over_all_smaller_batches_is_that_of_the_large_one():
    loss, student = make("FTD"), tables(D_S, 2)
    values = [
        loss(student, torch.tensor(part), NONE, NONE) for part in combinations(range(1, 8), 3)
    ]
    torch.testing.assert_close(sum(values) / len(values), loss(student, torch.arange(1, 8), NONE))


def test_ftd_makes_nothing_of_the_size_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2000, width, generator=generator) for width in (4, 16))
    student.requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        topology_error(student, teacher).backward()
    assert max(event.self_cpu_memory_usage for event in profile.events()) <= 4 * 2000 * 16


def htd_by_hand(loss, student, alpha):
    everyone = [[1, 3, 7], [1, 2, 5, 7, 9]]
    rows, groups, aligned = [], [], 0.0
    for place, side in enumerate(("user", "item")):
        own, theirs = student[place][everyone[place]], teachers(loss)[place][everyone[place]]
        aligned = aligned + expert_errors(loss, side, own, theirs, loss.temperature).mean()
        mixture = loss.mixtures[side]
        for s, t in zip(own, theirs):
            best = (t @ mixture.gate_weight + mixture.gate_bias).argmax().item()
            rows.append((s, t))
            groups.append((side, best))
    entity = [
        (cos(rows[a][0], rows[b][0]) - cos(rows[a][1], rows[b][1])) ** 2
        for a in range(8)
        for b in range(8)
        if a != b and groups[a] == groups[b] and cos(rows[a][1], rows[b][1]) > 0
    ]
    group = []
    for one in set(groups):
        members = [row for row, own in zip(rows, groups) if own == one]
        middle = [sum(member[model] for member in members) / len(members) for model in (0, 1)]
        group += [(cos(middle[0], s) - cos(middle[1], t)) ** 2 for s, t in rows]
    entity = sum(entity) / max(1, len(entity))
    return alpha * (entity + sum(group) / len(group)) + (1 - alpha) * aligned


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("n_groups", [1, 2, 30])
def test_htd_is_cosines_in_groups_and_to_their_middles_and_the_errors_of_experts(alpha, n_groups):
    loss = make("HTD", alpha=alpha, groups=n_groups, hidden=4).eval()
    student = tables(D_S, 2, grad=True)
    loss.start_epoch(100)
    value, expected = loss(student, *BATCH), htd_by_hand(loss, student, alpha)
    torch.testing.assert_close(value, expected)
    # The same gradients, so that of the prototypes is among them.
    ours, plain = (torch.autograd.grad(each, student) for each in (value, expected))
    for own, other in zip(ours, plain):
        torch.testing.assert_close(own, other)


def test_a_group_of_one_and_cosines_that_are_not_positive_are_no_pairs():
    student, teacher = torch.randn(3, 2), torch.tensor([[1.0, 0.0], [-1.0, 0.1], [1.0, 0.0]])
    total, count = group_errors(student, teacher, torch.tensor([4, 4, 9]))
    assert total == 0 and count == 0
    total, count = group_errors(student, teacher, torch.tensor([4, 9, 4]))
    assert count == 2
    expected = 2 * (cos(student[0], student[2]) - 1) ** 2
    torch.testing.assert_close(total, expected)


@of_topology
def test_a_teacher_of_one_dimension_has_no_cosines_to_teach(name):
    teacher = tables(D_T, 1)
    with pytest.raises(ConfigError, match=f"{name} teaches cosines, but.*item features have one"):
        make(name, teacher=(teacher[0], teacher[1][:, :1]))


@of_topology
def test_a_batch_of_one_entity_has_no_pairs_and_costs_no_topology(name):
    options = {"alpha": 1.0} if name == "HTD" else {}
    student = tables(D_S, 2, grad=True)
    value = make(name, **options)(student, USERS[:1], NONE, NONE)
    value.backward()
    assert value.abs() < 1e-12 and student[0].grad.abs().max() < 1e-12


# --- all of them -----------------------------------------------------------------------------


@every_method
def test_the_gradient_is_that_of_the_value(name):
    loss = make(name).eval()
    sample = MANY if name in ("FitNet", "VkD") else USERS  # the same one every time
    assert torch.autograd.gradcheck(
        lambda *student: loss(student, sample, POSITIVES, NEGATIVES),
        tables(D_S, 2, grad=True),
        fast_mode=True,
    )


@every_method
def test_gradients_in_place_are_those_of_autograd(name):
    grads = []
    for in_place in (True, False):
        student = tables(D_S, 2, torch.float32, grad=True)
        for table in student:
            table.grad = torch.zeros_like(table)
        loss = make(name, tables(D_T, 1, torch.float32))
        loss(FeatureRows.of_tables(*student, in_place=in_place), *BATCH).backward()
        grads.append([table.grad for table in student])
    for ours, plain in zip(*grads):
        assert plain.abs().sum() > 0
        torch.testing.assert_close(ours, plain)


@every_method
def test_nothing_of_the_size_of_the_catalogue_is_made_in_a_step(name):
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(n, 4, generator=generator).requires_grad_() for _ in range(2)]
    teacher = tuple(torch.randn(n, 8, generator=generator) for _ in range(2))
    options = {"groups": 5} if name == "HTD" else {}
    loss = LOSSES.get(name)(sp.csr_array((n, n)), (4, 4), teacher, **options)
    for table in student:
        table.grad = torch.zeros_like(table)
    batch = [torch.arange(start, start + 50) for start in (1, 100, 200)]
    rows = FeatureRows.of_tables(*student, in_place=True)
    loss(rows, *batch).backward()
    with torch.profiler.profile(profile_memory=True) as profile:
        loss(rows, *batch).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 2 * n  # bytes; one number per entity is 4 n


@every_method
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_features_and_zero_rows_give_numbers(name, scale):
    student = tuple(scale * table for table in tables(D_S, 2, torch.float32))
    student[0][1], student[1][2] = 0.0, 0.0
    student = tuple(table.requires_grad_() for table in student)
    teacher = tuple(scale * table for table in tables(D_T, 1, torch.float32))
    teacher[0][3], teacher[1][5] = 0.0, 0.0
    loss = make(name, teacher=teacher)
    value = loss(student, *BATCH)
    value.backward()
    parts = [*student, *loss.parameters()]
    assert value.isfinite() and all(part.grad.isfinite().all() for part in parts)


@every_method
def test_under_autocast_and_for_half_precision_all_is_computed_in_single(name):
    teacher = tables(D_T, 1, torch.float32)
    student = tables(D_S, 2, torch.float32)
    exact = make(name, teacher).eval()(student, *BATCH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = make(name, teacher).eval()(student, *BATCH)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact)
    half = make(name, tuple(table.half() for table in teacher)).eval()
    value = half(tuple(table.half() for table in student), *BATCH)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.02, atol=0.02)


@every_method
def test_a_loss_goes_on_from_its_state_as_if_it_had_not_stopped(name):
    student, first = tables(D_S, 2), make(name)
    first(student, *BATCH)
    second = make(name, seed=0)
    second.load_state_dict(first.state_dict())
    second.stream.load_state_dict(first.stream.state_dict())
    for loss in (first, second):
        loss.start_epoch(3)
    assert [first(student, *BATCH) for _ in range(3)] == [second(student, *BATCH) for _ in range(3)]


@every_method
def test_padding_is_never_read(name):
    rows, asked = Recorder.over(*tables(D_S, 2))
    loss = make(name)
    for _ in range(5):
        loss(rows, *BATCH)
    assert 0 not in asked["user"] + asked["item"]


@every_method
@pytest.mark.parametrize("model", ["BPR", "MultiVAE"])
def test_a_student_is_trained_with_it_on_recboles_batches(tiny_config, teacher_recipe, name, model):
    from recbole_freqd.jobs import run as runs

    own = {"MultiVAE": {"latent_dimension": 4, "mlp_hidden_size": [8]}}.get(model, {})
    config = tiny_config(model, trainer=name, teacher=teacher_recipe, epochs=2, **own)
    run = runs.run(config, saved=False, test=False)
    loss = run.trainer.distiller.losses[name]
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    assert not torch.isnan(torch.tensor(list(run.best_valid_result.values()))).any()
