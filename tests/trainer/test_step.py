"""What a distilled step costs and leaves: allocations, gradients in place, autocast, scaling."""

import pytest
import torch
from torch.nn import functional as F

from recbole_freqd.core.rows import FeatureRows, empty_rows, is_mapped
from recbole_freqd.losses import FreqDLoss
from tests.support.oracles import random_interactions

N_USERS, N_ITEMS, WIDTH, TEACHER = 9, 10, 3, 7


def parameters(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(scale * torch.randn(n, WIDTH, generator=generator))
        for n in (N_USERS, N_ITEMS)
    ]


def loss_of(**options):
    generator = torch.Generator().manual_seed(1)
    teacher = tuple(torch.randn(n, TEACHER, generator=generator) for n in (N_USERS, N_ITEMS))
    options = {"projector": "linear", **options}
    return FreqDLoss(random_interactions(5), (WIDTH, WIDTH), teacher, **options)


def base(tables, ids):
    return (F.embedding(ids, tables[0]) * F.embedding(ids, tables[1])).sum().square()


IDS = torch.tensor([1, 2, 5])
BATCH = (IDS, IDS, IDS + 1)


def gradients(in_place, with_base=True, backward=lambda value: value.backward(), **options):
    tables, loss = parameters(), loss_of(**options)
    value = loss(FeatureRows.of_tables(*tables, in_place=in_place), *BATCH)
    backward(value + base(tables, IDS) if with_base else value)
    return [table.grad for table in tables] + [part.grad for part in loss.parameters()]


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_gradients_in_place_are_those_of_autograd(with_base, distance):
    ours, plain = (gradients(way, with_base, distance=distance) for way in (True, False))
    for own, other in zip(ours, plain):
        torch.testing.assert_close(own, other)


def test_gradients_in_place_accumulate_over_backward_passes():
    def twice(value):
        value.backward(retain_graph=True)
        value.backward()

    once, both = gradients(True), gradients(True, backward=twice)
    for one, two in zip(once, both):
        torch.testing.assert_close(two, 2 * one)


def test_gradients_in_place_are_scaled_with_the_loss():
    scaled = gradients(True, backward=lambda value: (1024.0 * value).backward())
    for own, plain in zip(scaled, gradients(False)):
        torch.testing.assert_close(own, 1024.0 * plain)


def test_two_losses_on_the_same_tables_both_arrive():
    tables, losses = parameters(), (loss_of(seed=0), loss_of(seed=1, alpha=0.0))
    sum(loss(FeatureRows.of_tables(*tables, in_place=True), *BATCH) for loss in losses).backward()
    parts = [
        gradients(False, with_base=False, **keys)
        for keys in ({"seed": 0}, {"seed": 1, "alpha": 0.0})
    ]
    for table, first, second in zip(tables, *parts):
        torch.testing.assert_close(table.grad, first + second)


@pytest.mark.parametrize("projector", ["linear", "mlp"])
def test_under_autocast_the_loss_is_that_of_single_precision(projector):
    options = {"projector": projector, "keep_prob": 1.0}
    options |= {} if projector == "linear" else {"dropout": 0.0}
    tables, loss = parameters(), loss_of(**options)
    exact = loss(tables, *BATCH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(FeatureRows.of_tables(*tables, in_place=True), *BATCH)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact)
    value.backward()
    assert all(
        table.grad.dtype == torch.float32 and table.grad.isfinite().all() for table in tables
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_of_a_student_are_summed_in_single(dtype):
    tables, loss = [table.detach().to(dtype) for table in parameters()], loss_of(keep_prob=1.0)
    torch.testing.assert_close(
        loss(tables, *BATCH), loss([table.float() for table in tables], *BATCH)
    )


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_a_step_allocates_nothing_of_the_size_of_the_catalogue(distance):
    """Neither forward nor backward, once the base loss has made its gradient."""
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    tables = [torch.nn.Parameter(torch.randn(n, 4, generator=generator)) for _ in range(2)]
    teacher = tuple(torch.randn(n, 8, generator=generator) for _ in range(2))
    ids = torch.randint(1, n, (2, 20_000), generator=generator)
    import numpy as np
    import scipy.sparse as sp

    user_items = sp.csr_array((np.ones(20_000), tuple(ids.numpy())), shape=(n, n))
    loss = FreqDLoss(user_items, (4, 4), teacher, projector="linear", distance=distance)
    batch = [torch.arange(start, start + 50) for start in (1, 100, 200)]
    for table in tables:
        table.grad = torch.zeros_like(table)

    def step():
        loss(FeatureRows.of_tables(*tables, in_place=True), *batch).backward()

    step()  # H T of the epoch is made here
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < n  # bytes; a table has 16 n


def test_a_new_epoch_reuses_the_memory_of_the_filtered_teacher():
    loss = loss_of(keep_prob=0.5)
    places = []
    for epoch in range(3):
        loss.start_epoch(epoch)
        loss(parameters(), *BATCH)
        places.append([loss._filtered[side].teacher_emb.data_ptr() for side in ("user", "item")])
    assert places[0] == places[1] == places[2]
    assert not torch.equal(loss._filtered["user"].teacher_emb, loss.teacher_user_emb)


def test_without_a_filter_the_teacher_is_not_copied():
    loss = loss_of(alpha=0.0)
    loss(parameters(), *BATCH)
    assert loss._filtered["user"].teacher_emb is loss.teacher_user_emb
    assert loss._filtered["user"].memory is None


@pytest.mark.parametrize("projector", ["linear", "mlp"])
@pytest.mark.parametrize("mask", ["epoch", "step"])
def test_a_teacher_in_half_precision_or_in_a_file_teaches_nearly_the_same(projector, mask):
    generator = torch.Generator().manual_seed(1)
    teacher = tuple(torch.randn(n, TEACHER, generator=generator) for n in (N_USERS, N_ITEMS))
    options = {"projector": projector, "mask": mask, "keep_prob": 0.5}
    values = []
    for dtype, mapped in ((torch.float32, False), (torch.float32, True), (torch.float16, True)):
        kept = [empty_rows(*part.shape, dtype, "cpu", mapped=mapped) for part in teacher]
        for place, part in zip(kept, teacher):
            place.copy_(part)
        loss = FreqDLoss(random_interactions(5), (WIDTH, WIDTH), kept, **options)
        tables = parameters()
        values.append(loss(tables, *BATCH))
        values[-1].backward()
        assert values[-1].dtype == torch.float32 and is_mapped(kept[0]) == mapped
        if mask == "epoch":
            assert loss._filtered["user"].teacher_emb.dtype == dtype
            assert is_mapped(loss._filtered["user"].teacher_emb) == mapped
    assert values[0] == values[1]
    torch.testing.assert_close(values[2], values[0], rtol=2e-3, atol=2e-3)


def test_a_file_of_features_has_no_name_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = empty_rows(100, 4, torch.float32, "cpu", mapped=True).fill_(2.0)
    assert is_mapped(rows) and list(tmp_path.iterdir()) == [] and rows.sum() == 800
