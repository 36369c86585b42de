"""The losses: laws that hold for every one of the registry, and FreqD against the oracle."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.rows import as_rows
from recbole_freqd.core.schema import method_keys
from recbole_freqd.filters import PolynomialFilter
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.graph.similarity import cosine_graph
from recbole_freqd.losses import LOSSES, FDLoss, FreqDLoss
from recbole_freqd.losses.distances import projected_distance, row_distance
from tests.support.oracles import (
    SHORT_LISTS,
    WITHOUT_CHANCE,
    dense_filter,
    dense_laplacian,
    random_interactions,
)

N_USERS, N_ITEMS, D_S, D_T = 9, 10, 3, 5
EVERYONE, EVERYTHING = torch.arange(N_USERS), torch.arange(N_ITEMS)
PLAIN = {"distance": "squared", "projector": "linear", "keep_prob": 1.0}
FROM_THE_CATALOGUE = {"FitNet", "VkD"}  # of a batch, only the number of rows counts
every_loss = pytest.mark.parametrize("name", LOSSES.names())
# Options by which something is drawn from the first epoch on, in data as small as this.
DRAWING = {"RD": {"start": 0}, "UnKD": {"groups": 1}}


def features(user_dim, item_dim, seed, dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(n, d, generator=generator, dtype=dtype).requires_grad_(grad)
        for n, d in ((N_USERS, user_dim), (N_ITEMS, item_dim))
    )


def make(
    name="FreqD",
    dtype=torch.float32,
    teacher=None,
    seed=0,
    graph_seed=5,
    dims=(D_S, D_S),
    **options,
):
    teacher = features(D_T, D_T, 1, dtype) if teacher is None else teacher
    options = {**SHORT_LISTS.get(name, {}), **options}
    return LOSSES.get(name)(random_interactions(graph_seed), dims, teacher, seed=seed, **options)


def batch(seed=0, size=20):
    generator = torch.Generator().manual_seed(seed)
    limits = (N_USERS, N_ITEMS, N_ITEMS)
    return [torch.randint(1, limit, (size,), generator=generator) for limit in limits]


# --- laws of every loss ----------------------------------------------------------------------


@every_loss
def test_a_loss_is_a_finite_scalar_whose_gradient_reaches_student_and_projectors_only(name):
    loss, student = make(name), features(D_S, D_S, 2, grad=True)
    value = loss(student, *batch())
    assert value.shape == () and torch.isfinite(value) and value > 0
    value.backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in student)
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert not loss.teacher_user_emb.requires_grad and not loss.teacher_item_emb.requires_grad


@every_loss
def test_the_teacher_is_neither_changed_nor_in_the_state_of_the_loss(name):
    teacher = features(D_T, D_T, 1)
    before = [tensor.clone() for tensor in teacher]
    loss = make(name, teacher=teacher)
    loss(features(D_S, D_S, 2, grad=True), *batch()).backward()
    assert all(torch.equal(old, new) for old, new in zip(before, teacher))
    assert not any("teacher" in key or "graph" in key for key in loss.state_dict())


@every_loss
def test_what_a_loss_keeps_of_the_teacher_moves_with_it(name):
    loss = make(name).to("meta")
    assert {tensor.device.type for tensor in loss.buffers()} == {"meta"}
    assert loss.teacher_scores.device.type == "meta"
    assert loss.teacher_scores.item_emb.data_ptr() == loss.teacher_item_emb.data_ptr()


@every_loss
def test_the_seed_alone_decides_and_torchs_global_stream_is_left_alone(name):
    before = torch.random.get_rng_state()
    student = features(D_S, D_S, 2)
    options = DRAWING.get(name, {})
    values = [make(name, seed=seed, **options)(student, *batch()).item() for seed in (1, 1, 2)]
    assert values[0] == values[1]
    assert (values[1] != values[2]) == (name not in WITHOUT_CHANCE)
    assert torch.equal(before, torch.random.get_rng_state())


@every_loss
def test_user_and_item_widths_are_free(name):
    if LOSSES.get(name).reads_scores:
        pytest.skip("dot products need one width; scores of other kinds have a scorer")
    teacher = features(6, 4, 1)
    loss = make(name, teacher=teacher, dims=(2, 3))
    assert torch.isfinite(loss(features(2, 3, 2), *batch()))


@pytest.mark.parametrize("name", [n for n in LOSSES.names() if n not in FROM_THE_CATALOGUE])
def test_order_and_repetition_of_ids_do_not_count(name):
    users, positives, negatives = batch()
    student = features(D_S, D_S, 2)
    counted = users if LOSSES.get(name).counts_rows else users.unique()
    once = make(name).eval()(student, counted, positives.unique(), negatives.unique())
    again = make(name).eval()(
        student, users.repeat(2).flip(0), positives.flip(0), negatives.repeat(3)
    )
    torch.testing.assert_close(once, again)


@every_loss
def test_empty_sides_cost_nothing_and_have_gradient_zero(name):
    student, none = features(D_S, D_S, 2, grad=True), torch.empty(0, dtype=torch.int64)
    value = make(name)(student, none, none, none)
    value.backward()
    assert value == 0 and all(tensor.grad.abs().sum() == 0 for tensor in student)
    assert make(name)(student, none, none, None) == 0


@every_loss
def test_extreme_features_stay_finite(name):
    for scale in (1e-30, 1e4, 0.0):
        student = tuple((tensor * scale).requires_grad_() for tensor in features(D_S, D_S, 2))
        teacher = tuple(tensor * scale for tensor in features(D_T, D_T, 1))
        value = make(name, teacher=teacher)(student, *batch())
        value.backward()
        assert torch.isfinite(value) and all(tensor.grad.isfinite().all() for tensor in student)


@every_loss
def test_unknown_options_and_values_out_of_range_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} has no option 'betta'.*'beta'"):
        make(name, betta=1.0)
    with pytest.raises(ConfigError, match="beta: got -1; allowed: float >= 0"):
        make(name, beta=-1)


@every_loss
def test_a_teacher_of_other_users_or_items_is_refused(name):
    with pytest.raises(TeacherError, match="8 user rows and 10 item rows.*9 users and 10 items"):
        make(name, teacher=(torch.randn(8, D_T), torch.randn(10, D_T)))


@every_loss
def test_every_loss_documents_its_source_and_has_its_keys(name):
    assert "Source:" in LOSSES.get(name).__doc__
    prefix = LOSSES.get(name).prefix
    assert f"{prefix}_beta" in method_keys(name)
    assert all(key.startswith(f"{prefix}_") for key in method_keys(name))


# --- FreqD against the eigendecomposition ----------------------------------------------------


def identity_projectors(loss):
    """P = identity, so that S alone decides P(S)."""
    for projector in loss.projectors.values():
        with torch.no_grad():
            projector.weight.copy_(torch.eye(D_T))
            projector.bias.zero_()
    return loss


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "options", [{"alpha": 0.3}, {"alpha": 0.9}, {"alpha": 0.5, "filter": "quadratic"},
                {"filter": [0.5, -1.0, 0.3, 0.1]}]
)  # fmt: skip
@pytest.mark.parametrize("side", ["user", "item"])
def test_an_error_in_one_eigenvector_costs_h_of_its_lambda_squared(seed, options, side):
    teacher = features(D_T, D_T, seed)
    loss = identity_projectors(
        make(teacher=teacher, graph_seed=seed, dims=(D_T, D_T), k=2, **PLAIN, **options)
    )
    place, n = (0, N_USERS) if side == "user" else (1, N_ITEMS)
    adjacency = cooccurrence_graph(random_interactions(seed), side=side, k=2).toarray()
    values, vectors = np.linalg.eigh(dense_laplacian(adjacency))
    w = np.random.default_rng(seed).normal(size=D_T)
    for lam, u in zip(values, vectors.T):
        student = list(teacher)
        student[place] = (teacher[place].double() + torch.from_numpy(np.outer(u, w))).float()
        got = loss(student, EVERYONE, EVERYTHING).item() * n
        expected = loss.filter.response(lam) ** 2 * (w @ w)
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-5 * (w @ w))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distance", ["squared", "cosine"])
@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"filter": [0.2, 0.4, -0.6]}])
def test_a_batch_equals_the_rows_of_u_h_ut_under_the_stated_reduction(seed, distance, options):
    options = {**options, "distance": distance, "projector": "linear", "keep_prob": 1.0, "k": 3}
    loss = make(graph_seed=seed, **options)
    student = features(D_S, D_S, 3, grad=True)
    users, positives, negatives = batch(seed)
    value = loss(student, users, positives, negatives)
    value.backward()

    exact = [tensor.detach().double().requires_grad_() for tensor in student]
    rows = []
    for side, own, teacher in zip(
        ("user", "item"), exact, (loss.teacher_user_emb, loss.teacher_item_emb)
    ):
        adjacency = cooccurrence_graph(random_interactions(seed), side=side, k=3).toarray()
        H = torch.from_numpy(dense_filter(adjacency, loss.filter.response))
        projector = loss.projectors[side]
        projected = own @ projector.weight.detach().double() + projector.bias.detach().double()
        left, right = H @ projected, H @ teacher.double()
        if distance == "squared":
            rows.append((left - right).square().sum(1))
        else:
            cosine = torch.nn.functional.cosine_similarity(left, right, dim=1)
            rows.append(1 - cosine)
    expected = rows[0][users.unique()].mean() + 0.5 * (
        rows[1][positives.unique()].mean() + rows[1][negatives.unique()].mean()
    )
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, reference in zip(student, exact):
        scale = reference.grad.abs().max().item()
        torch.testing.assert_close(own.grad.double(), reference.grad, rtol=1e-5, atol=1e-5 * scale)


def test_theorem_1_all_knowledge_weighs_the_same_without_a_filter():
    seed = 2
    teacher, student = features(D_T, D_T, seed), features(D_T, D_T, 9)
    options = {"distance": "squared", "projector": "linear"}
    loss = identity_projectors(make("FD", teacher=teacher, dims=(D_T, D_T), **options))
    got = loss(student, EVERYONE, torch.empty(0, dtype=torch.int64)).item() * N_USERS
    adjacency = cooccurrence_graph(random_interactions(seed), side="user", k=2).toarray()
    _, vectors = np.linalg.eigh(dense_laplacian(adjacency))
    knowledge = vectors.T @ (student[0] - teacher[0]).double().numpy()
    assert got == pytest.approx((knowledge**2).sum(), rel=1e-5)


def test_gradients_pass_gradcheck_with_the_mlp_and_the_cosine():
    loss = make(dtype=torch.float64, keep_prob=1.0, dropout=0.0, experts=2, hidden=4)
    student = features(D_S, D_S, 4, dtype=torch.float64, grad=True)
    users, positives, negatives = batch()
    assert torch.autograd.gradcheck(
        lambda *s: loss(s, users, positives, negatives), student, fast_mode=True
    )


@pytest.mark.parametrize("order", ["project_first", "filter_first"])
@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("layers", [{"experts": 2, "hidden": 4}, {"experts": 2, "hidden": 1}])
@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_the_order_says_whether_an_mlp_sees_rows_before_or_after_the_filter(
    order, side, layers, distance
):
    """Hidden layers that are narrower than the teacher have a form of their own."""
    loss = make(dropout=0.0, keep_prob=1.0, distance=distance, order=order, **layers)
    student, place = features(D_S, D_S, 2), ["user", "item"].index(side)
    projector = loss.projectors[side]
    adjacency = cooccurrence_graph(random_interactions(5), side=side, k=5)
    filtered = torch.from_numpy(dense_filter(adjacency.toarray(), loss.filter.response)).float()
    ids = torch.arange(1, len(student[place]))
    projected = {
        "project_first": filtered @ projector(student[place]),
        "filter_first": projector(filtered @ student[place]),
    }
    teacher = filtered @ (loss.teacher_user_emb, loss.teacher_item_emb)[place]
    for name, rows in projected.items():
        expected = row_distance(rows, teacher, distance)[ids]
        found = loss.distances(side, as_rows(student), ids)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6) == (name == order)


def test_an_mlp_that_sees_filtered_rows_reads_no_neighbour_by_itself():
    loss = make(projector="mlp", order="filter_first")
    seen = []
    for projector in loss.projectors.values():
        projector.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    loss(features(D_S, D_S, 2), *batch(size=3))
    assert sum(seen) <= 9


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_freqd_with_alpha_0_is_fd_to_the_last_bit(distance):
    student = features(D_S, D_S, 2)
    freqd = make("FreqD", alpha=0.0, distance=distance)(student, *batch())
    assert torch.equal(freqd, make("FD", distance=distance)(student, *batch()))


def test_without_negatives_the_items_are_one_mean_with_weight_1():
    loss, student = make(**PLAIN), features(D_S, D_S, 2)
    none = torch.empty(0, dtype=torch.int64)
    with_negatives = loss(student, none, EVERYTHING, EVERYTHING)
    torch.testing.assert_close(loss(student, none, EVERYTHING, None), with_negatives)
    torch.testing.assert_close(loss(student, none, EVERYTHING, none), with_negatives / 2)


def test_a_mask_per_step_is_one_for_student_and_teacher_positives_and_negatives(monkeypatch):
    loss = make(**{**PLAIN, "keep_prob": 0.5, "mask": "step"})
    draws = []
    drawn = loss.stream.bernoulli
    monkeypatch.setattr(
        loss.stream,
        "bernoulli",
        lambda shape, p, like: draws.append(shape) or drawn(shape, p, like),
    )
    loss(features(D_S, D_S, 2), *batch())
    assert len(draws) == 2  # one for users, one for items


def test_a_mask_per_epoch_is_the_same_in_every_step_and_again_after_a_restart():
    options, student = {**PLAIN, "keep_prob": 0.4}, features(D_S, D_S, 2)
    loss, values = make(**options), []
    for epoch in (0, 1, 2, 1):
        loss.start_epoch(epoch)
        values.append([loss(student, *batch()).item() for _ in range(2)])
    assert all(first == second for first, second in values)
    assert values[1] == values[3] and len({value for value, _ in values}) == 3
    resumed = make(**options)
    resumed.start_epoch(2)
    assert resumed(student, *batch()).item() == values[2][0]


def test_a_mask_per_step_needs_a_filter_of_one_hop():
    with pytest.raises(ConfigError, match="freqd_mask: got 'step' with a filter of degree 2"):
        make(filter="quadratic", mask="step", keep_prob=0.5)


def test_a_bound_on_the_degree_needs_a_mask_per_epoch():
    with pytest.raises(ConfigError, match="freqd_max_degree: got 3 together with freqd_mask: step"):
        make(max_degree=3, mask="step")


def test_a_bound_on_the_degree_is_drawn_per_epoch_in_training_for_student_and_teacher_alike():
    teacher = features(D_T, D_T, 1)
    for kind in ("linear", "quadratic"):
        options = {**PLAIN, "max_degree": 1, "k": 4, "filter": kind}
        loss = identity_projectors(make(teacher=teacher, dims=(D_T, D_T), **options))
        assert loss(teacher, *batch()) < 1e-10
        values = []
        for epoch in (0, 1, 0):
            loss.start_epoch(epoch)
            values.append(loss(features(D_T, D_T, 2), *batch()).item())
        assert values[0] == values[2] != values[1]
        loss.eval()
        whole = identity_projectors(
            make(teacher=teacher, dims=(D_T, D_T), **{**options, "max_degree": None})
        )
        assert loss(features(D_T, D_T, 2), *batch()) == whole(features(D_T, D_T, 2), *batch())


def test_masks_and_dropout_are_of_training_only():
    loss, student = make(keep_prob=0.3, mask="step"), features(D_S, D_S, 2)
    loss.eval()
    assert loss(student, *batch()) == loss(student, *batch())
    loss.train()
    assert loss(student, *batch()) != loss(student, *batch())


def test_a_step_never_touches_rows_outside_the_batch_and_its_neighbours():
    teacher = features(D_T, D_T, 1)
    adjacency = cooccurrence_graph(random_interactions(5), side="item", k=2).toarray()
    user, item = 2, 3
    student = features(D_S, D_S, 2, grad=True)
    loss = make(teacher=teacher, k=2, **PLAIN)
    loss(student, torch.tensor([user]), torch.tensor([item]), torch.tensor([item])).backward()
    reached = set(student[1].grad.abs().sum(1).nonzero().flatten().tolist())
    assert reached == {item} | set(np.flatnonzero(adjacency[item]).tolist())


def test_the_graph_is_by_counts_or_by_shrunk_cosine_as_the_option_says():
    user_items = random_interactions(0)
    by_counts = cooccurrence_graph(user_items, side="item", k=2)
    by_cosine = cosine_graph(user_items, side="item", k=2, shrinkage=3.0)
    unshrunk = cosine_graph(user_items, side="item", k=2, shrinkage=0.0)
    assert (by_counts != by_cosine).nnz and (by_cosine != unshrunk).nnz  # else this shows nothing
    for options, expected in (
        ({}, by_counts),
        ({"graph": "counts"}, by_counts),
        ({"graph": "cosine"}, by_cosine),
        ({"graph": "cosine", "graph_shrinkage": 0.0}, unshrunk),
    ):
        found = reached_items(make(graph_seed=0, k=2, **options, **PLAIN))
        linked = expected.toarray() + np.eye(N_ITEMS)
        assert found == [set(np.flatnonzero(row).tolist()) for row in linked[1:]]


def reached_items(loss):
    """Of each item from 1 on: which items have a gradient from a step on it alone."""
    found = []
    for item in range(1, N_ITEMS):
        student = features(D_S, D_S, 2, grad=True)
        loss(student, torch.tensor([2]), torch.tensor([item])).backward()
        found.append(set(student[1].grad.abs().sum(1).nonzero().flatten().tolist()))
    return found


def test_a_shrinkage_without_a_cosine_graph_is_said_to_have_no_effect(caplog):
    make(graph="cosine", graph_shrinkage=1.0)
    assert "no effect" not in caplog.text
    make(graph_shrinkage=1.0)
    assert "freqd_graph_shrinkage: no effect without freqd_graph: cosine" in caplog.text


def test_coefficients_and_alpha_together_are_refused():
    with pytest.raises(ConfigError, match="freqd_filter: got coefficients.*one of the two"):
        make(filter=[1.0, -0.5], alpha=0.5)
    assert make(filter=[1.0, -0.5]).filter.coefficients == (1.0, -0.5)


@pytest.mark.parametrize("zeros", [[0], [0.0, -0.0, 0]])
def test_a_filter_of_zeros_is_refused_since_it_teaches_nothing(zeros):
    with pytest.raises(ConfigError, match="freqd_filter: got .* at least one coefficient"):
        make(filter=zeros)


def test_fd_builds_no_graph(monkeypatch):
    def never(*_args, **_kwargs):
        raise RuntimeError("a graph was built")

    monkeypatch.setattr("recbole_freqd.losses.freqd.cooccurrence_graph", never)
    assert torch.isfinite(make("FD")(features(D_S, D_S, 2), *batch()))
    make("FreqD", alpha=0.0)
    with pytest.raises(RuntimeError, match="a graph was built"):
        make("FreqD")


def test_freqd_and_fd_are_related_but_differ_in_keys_by_the_graph_only():
    freqd, fd = (
        {key.split("_", 1)[1]: spec.default for key, spec in method_keys(name).items()}
        for name in ("FreqD", "FD")
    )
    of_the_graph = {
        "alpha",
        "k",
        "graph",
        "graph_shrinkage",
        "max_pairs",
        "keep_prob",
        "mask",
        "order",
        "max_degree",
        "filter",
        "log_bands",
    }
    assert set(freqd) - set(fd) == of_the_graph
    assert {key: freqd[key] for key in fd} == fd
    assert issubclass(FDLoss, FreqDLoss)


# --- distances -------------------------------------------------------------------------------


def test_a_zero_row_has_cosine_0_and_no_gradient():
    zero = torch.zeros(2, 3, requires_grad=True)
    distance = row_distance(zero, torch.ones(2, 3), "cosine")
    distance.sum().backward()
    assert distance.tolist() == [1.0, 1.0] and zero.grad.abs().sum() == 0
    assert row_distance(torch.ones(1, 3), torch.zeros(1, 3), "cosine").tolist() == [1.0]


def test_cosine_does_not_depend_on_lengths_and_squared_sums_over_dimensions():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    y = torch.tensor([[5.0, 0.0], [0.0, -1.0]])
    torch.testing.assert_close(row_distance(x, y, "cosine"), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(row_distance(x, y, "squared"), torch.tensor([16.0, 9.0]))


def test_half_precision_rows_are_measured_in_single_precision():
    x = torch.full((1, 4), 300.0, dtype=torch.float16)
    assert row_distance(x, -x, "squared").tolist() == [4 * 600.0**2]


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_the_narrow_form_equals_the_wide_one_in_value_and_gradient(distance):
    generator = torch.Generator().manual_seed(0)
    rows, weight, teacher = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((6, 3), (3, 7), (6, 7))
    )
    rows[2], teacher[4] = 0.0, 0.0  # rows without a direction
    found = []
    for narrow in (True, False):
        x, w = rows.clone().requires_grad_(), weight.clone().requires_grad_()
        norm = teacher.norm(dim=1)
        value = (
            projected_distance(x, w, teacher, norm, distance)
            if narrow
            else row_distance(x @ w, teacher, distance)
        )
        (value * torch.arange(1.0, 7.0)).sum().backward()
        found.append((value.detach(), x.grad, w.grad))
    for narrow, wide in zip(*found):
        torch.testing.assert_close(narrow, wide, rtol=1e-10, atol=1e-12)


def test_an_unknown_distance_is_refused():
    with pytest.raises(ConfigError, match="distance: got 'l1'"):
        row_distance(torch.ones(1, 1), torch.ones(1, 1), "l1")


def test_isolated_vertices_keep_their_whole_error():
    nothing_shared = sp.csr_array(np.eye(N_USERS, N_ITEMS))
    teacher = features(D_T, D_T, 1)
    loss = FreqDLoss(nothing_shared, (D_T, D_T), teacher, alpha=0.9, **PLAIN)
    student = tuple(tensor + 1 for tensor in teacher)
    value = identity_projectors(loss)(student, EVERYONE, torch.empty(0, dtype=torch.int64))
    assert value.item() == pytest.approx(D_T, rel=1e-5)
    assert PolynomialFilter.linear(0.9).response(0.0) == 1.0


@pytest.mark.parametrize("side", [0, 1])
def test_a_cosine_of_one_dimension_teaches_nothing_and_is_refused(side):
    teacher = list(features(D_T, D_T, 1))
    teacher[side] = teacher[side][:, :1]
    with pytest.raises(ConfigError, match="freqd_distance: got cosine.*one dimension.*squared"):
        make(teacher=tuple(teacher))
    loss, student = (
        make(teacher=tuple(teacher), distance="squared"),
        features(D_S, D_S, 2, grad=True),
    )
    loss(student, *batch()).backward()
    assert student[side].grad.abs().max() > 1e-3


def test_with_a_mask_per_step_an_entity_has_one_mask_however_often_it_occurs():
    loss = make(keep_prob=0.3, mask="step", projector="linear")
    ids = torch.tensor([5, 6, 7, 5, 6, 7])
    from recbole_freqd.core.rows import as_rows

    distances = loss.distances("item", as_rows(features(D_S, D_S, 2)), ids)
    assert torch.equal(distances[:3], distances[3:])


# --- some rows of a batch --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FreqD", "FD"])
def test_a_step_computes_so_many_rows_of_each_kind_and_the_same_loss_on_average(name):
    student, kinds = features(D_S, D_S, 2), batch()

    def loss_of(most):
        loss = make(name, projector="linear", step_rows=most)
        loss.start_epoch(0)
        return loss

    some, seen = loss_of(2), []
    compute = some.distances
    some.distances = lambda side, rows, ids: seen.append((side, ids)) or compute(side, rows, ids)
    values = torch.stack([some(student, *kinds).detach() for _ in range(1500)])
    assert all(len(ids) == (2 if side == "user" else 4) for side, ids in seen)
    assert values.std() > 0
    assert abs(values.mean() - loss_of(None)(student, *kinds)) < 4 * values.std() / 1500**0.5
    assert torch.equal(loss_of(None)(student, *kinds), loss_of(9)(student, *kinds))
