"""On CUDA: the same job, on the configured device, within tolerance of the CPU's."""

import numpy as np
import pytest
import torch

from recbole_freqd.losses import LOSSES
from tests.support.oracles import SHORT_LISTS, random_interactions

pytestmark = pytest.mark.gpu


@pytest.fixture
def distil(tiny_config, teacher_recipe):
    from recbole_freqd.jobs import run as runs

    def run(gpu_id, model="BPR", **keys):
        keys = {"trainer": "FreqD", "teacher": teacher_recipe, "epochs": 4, **keys}
        return runs.run(tiny_config(model, gpu_id=gpu_id, **keys))

    return run


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_the_main_job_on_cuda_is_near_the_cpus(distil, model):
    on_gpu = distil("0", model, freqd_keep_prob=1.0, freqd_dropout=0.0)
    on_cpu = distil("", model, freqd_keep_prob=1.0, freqd_dropout=0.0)
    for name, value in on_cpu.model.state_dict().items():
        torch.testing.assert_close(
            on_gpu.model.state_dict()[name].cpu(), value, rtol=1e-2, atol=1e-3
        )


def test_everything_is_on_the_configured_device(distil):
    trainer = distil("0").trainer
    tensors = [*trainer.model.parameters(), *trainer.teacher.features]
    tensors += [*trainer.distiller.parameters(), *trainer.distiller.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cuda"}


def test_masks_and_dropout_draw_on_the_device(distil):
    trainer = distil("0", freqd_keep_prob=0.5, freqd_dropout=0.2).trainer
    loss = trainer.distiller.losses["FreqD"]
    assert any(name.startswith("cuda") for name in loss.stream.state_dict())


def test_a_teacher_checkpoint_of_cuda_teaches_on_the_cpu(distil):
    path = distil("0", trainer=None, teacher=None).trainer.saved_model_file
    trainer = distil("", teacher={"checkpoint": path}).trainer
    assert {tensor.device.type for tensor in trainer.teacher.features} == {"cpu"}


def test_amp_trains_on_cuda(distil):
    run = distil("0", enable_amp=True, enable_scaler=True)
    assert all(torch.isfinite(value).all() for value in run.model.state_dict().values())


@pytest.mark.parametrize("gpu_id", ["0", ""])
def test_a_run_cut_off_on_cuda_goes_on_there_and_on_the_cpu(distil, monkeypatch, gpu_id):
    from recbole_freqd.runtime.trainer import PartsTrainer

    epoch = PartsTrainer._train_epoch

    def cut_off(trainer, data, number, *args, **more):
        if number == 3:
            raise KeyboardInterrupt
        return epoch(trainer, data, number, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(PartsTrainer, "_train_epoch", cut_off)
        with pytest.raises(KeyboardInterrupt):
            distil("0", learning_rate=0.0011)
    done = distil(gpu_id, learning_rate=0.0011, resume=True)
    assert done.trainer.start_epoch == 2
    if gpu_id:
        whole = distil("0", learning_rate=0.0011).model.state_dict()
        for name, value in done.model.state_dict().items():
            torch.testing.assert_close(value, whole[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("trainer", ["KD", "RD", "CD", "UnKD"])
@pytest.mark.parametrize("teacher", ["BPR", "ItemKNN"])
def test_scores_are_taught_on_the_device(distil, trainer, teacher):
    keys = {"rd_start": 0} if trainer == "RD" else {}
    run = distil("0", trainer=trainer, teacher={"model": teacher, "epochs": 1}, **keys).trainer
    assert {buffer.device.type for buffer in run.distiller.buffers()} == {"cuda"}
    assert 0 < float(run.terms[trainer]) < float("inf")


@pytest.mark.parametrize("exact", [True, False])
def test_energies_by_band_are_those_of_the_cpu(exact):
    from recbole_freqd.graph.cooccurrence import cooccurrence_graph
    from recbole_freqd.graph.spectrum import GraphSpectrum, band_losses
    from tests.support.oracles import random_interactions

    graph = cooccurrence_graph(random_interactions(5), side="item", k=3)
    spectrum = GraphSpectrum(graph, 5, exact=exact)
    student, teacher = (torch.randn(10, d, generator=torch.manual_seed(d)) for d in (3, 6))
    here = band_losses(spectrum, student, teacher)
    there = band_losses(spectrum, student.cuda(), teacher.cuda())
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_made_on_the_cpu_by_hand_can_be_moved(name):
    generator = torch.Generator().manual_seed(0)
    sizes = ((9, 5), (10, 5), (9, 3), (10, 3))
    *teacher, users, items = (torch.randn(size, generator=generator) for size in sizes)
    options = SHORT_LISTS.get(name, {})
    loss = LOSSES.get(name)(random_interactions(5), (3, 3), tuple(teacher), **options).to("cuda")
    loss.start_epoch(0)
    batch = [torch.tensor(ids, device="cuda") for ids in ([1, 2, 3, 4], [5, 6, 7, 8], [1, 9, 2, 3])]
    student = [part.cuda().requires_grad_() for part in (users, items)]
    loss(tuple(student), *batch).backward()
    assert all(part.grad.isfinite().all() for part in student)
