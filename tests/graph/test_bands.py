"""Band losses that are logged while a student trains."""

import numpy as np
import pytest
import torch

from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.graph.spectrum import GraphSpectrum, relative_to, with_lengths_of
from recbole_freqd.losses import FDLoss, FreqDLoss
from tests.support.oracles import random_interactions
from tests.trainer.test_distillation import assert_equal_states, started  # noqa: F401


def features(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


TEACHER = features(9, 6, 1), features(10, 6, 2)
STUDENT = features(9, 3, 3), features(10, 3, 4)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
@pytest.mark.parametrize("projector", ["mlp", "linear"])
def test_what_is_logged_is_the_smooth_band_loss_on_the_whole_graph(distance, projector):
    R = random_interactions(5)
    loss = FreqDLoss(
        R, (3, 3), TEACHER, distance=distance, projector=projector, k=3, log_bands=4, alpha=0.0
    )
    before = loss.stream.state_dict()
    found = loss.relative_band_losses(STUDENT)
    assert set(found) == {"user", "item"} and loss.training
    for key, state in loss.stream.state_dict().items():
        assert torch.equal(state, before[key])  # no dropout was drawn
    loss.eval()
    for place, side in enumerate(("user", "item")):
        teacher = TEACHER[place]
        rows = loss.projectors[side](STUDENT[place]).detach()
        if distance == "cosine":
            rows = with_lengths_of(rows, teacher)
        graph = cooccurrence_graph(R, side=side, k=3)
        exact = GraphSpectrum(graph, 4, exact=True, degree=64)
        expected = relative_to(exact.energies(rows - teacher), exact.energies(teacher))
        np.testing.assert_allclose(found[side], expected, rtol=1e-3)


def test_entities_that_the_teacher_does_not_know_are_left_out():
    R = random_interactions(5)
    teacher = TEACHER[0], TEACHER[1].clone()
    teacher[1][9] = 0.0  # item 9 has no interaction, so no edge
    found = {}
    for scale in (1.0, 1000.0):
        loss = FreqDLoss(R, (3, 3), teacher, distance="squared", projector="linear", log_bands=3)
        student = STUDENT[0], STUDENT[1].clone()
        student[1][9] *= scale
        found[scale] = loss.relative_band_losses(student)["item"]
    np.testing.assert_allclose(found[1.0], found[1000.0], rtol=1e-5)


def test_rows_get_the_lengths_of_the_teachers_and_zero_rows_stay_zero():
    rows, teacher = features(5, 4, 0), features(5, 3, 1)
    rows[2], teacher[3] = 0.0, 0.0
    found = with_lengths_of(rows, teacher)
    expected = torch.linalg.vector_norm(teacher, dim=1)
    expected[2] = 0.0
    torch.testing.assert_close(torch.linalg.vector_norm(found, dim=1), expected)
    assert torch.nn.functional.cosine_similarity(found[:2], rows[:2]).min() > 1 - 1e-6


def test_nothing_is_computed_where_it_is_not_asked_for():
    R = random_interactions(5)
    for loss in (FreqDLoss(R, (3, 3), TEACHER), FDLoss(R, (3, 3), TEACHER)):
        assert loss.relative_band_losses(STUDENT) == {}


@pytest.mark.parametrize("model", ["BPR", "MultiVAE"])
def test_bands_are_logged_every_fifth_epoch_and_at_the_end_and_change_nothing(started, model):  # noqa: F811
    states, logged = [], []
    for bands in (0, 3):
        trainer, train_data, valid_data, _ = started(model, freqd_log_bands=bands, epochs=7)
        add = trainer.tensorboard.add_scalar

        def record(tag, value, epoch, *args, add=add):
            if tag.startswith("Bands/"):
                logged.append((tag, epoch, value))
            add(tag, value, epoch, *args)

        trainer.tensorboard.add_scalar = record
        trainer.fit(train_data, valid_data)
        states.append(trainer.model.state_dict())
    assert_equal_states(*states)
    assert {epoch for _, epoch, _ in logged} == {0, 5, 6}
    expected = {f"Bands/FreqD/{side}/{band}" for side in ("user", "item") for band in (1, 2, 3)}
    assert {tag for tag, _, _ in logged} <= expected and len(logged) >= 9
    assert all(value >= 0 for _, _, value in logged)
