"""Several processes train one student: two of them, on the CPU with gloo, started as by --nproc 2.

They run all of :func:`jobs` in one go; each test looks at what both processes saw.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

import recbole_freqd
from recbole_freqd import compat
from recbole_freqd.compat.processes import only_nccl
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.jobs.script import main
from recbole_freqd.losses import LOSSES
from recbole_freqd.runtime.processes import Processes
from recbole_freqd.runtime.trainer import PartsTrainer
from recbole_freqd.trainer.launch import Launch
from tests.laws.test_models import KEYS, can_be_student, general_models, marks, subset  # noqa: F401
from tests.support import many

ROOT = Path(recbole_freqd.__file__).resolve().parents[1]
STUDENTS = ("BPR", "LightGCN")
# Its best epoch is not the first one, so that there are earlier ones to keep.
TEACHER = {"model": "BPR", "embedding_size": 8, "epochs": 4, "keep_every": 1}
TEACHER.update(train_batch_size=32, learning_rate=0.03)
LINEAR = {"freqd_projector": "linear", "freqd_k": 3}


def a_port():
    with socket.socket() as free:
        free.bind(("", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def odd_data(tiny_data, tmp_path_factory):
    """``tiny`` less one user: 29 cannot be dealt out to two processes evenly."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "tiny").mkdir()
    lines = (tiny_data / "tiny" / "tiny.inter").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("u29\t")]
    (folder / "tiny" / "tiny.inter").write_text("".join(kept))
    return folder


@pytest.fixture(scope="module")
def keys(odd_data, tmp_path_factory):
    return {
        "data_path": str(odd_data),
        "checkpoint_dir": str(tmp_path_factory.mktemp("saved")),
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": 4,
        "train_batch_size": 64,
        "learning_rate": 0.02,
        "epochs": 2,
        "show_progress": False,
        "state": "ERROR",
        "metrics": ["Recall", "NDCG", "ShannonEntropy"],
        "valid_metric": "NDCG@10",
        "trainer": "FreqD",
        "teacher": TEACHER,
    }


def wanted(keys):
    found = {model: (model, {**keys, **LINEAR}, None) for model in STUDENTS}
    found["per step"] = ("BPR", {**keys, **LINEAR, "freqd_mask": "step"}, None)
    mapped = {**keys["teacher"], "memory_map": True, "precision": "float16"}
    found["mapped"] = ("BPR", {**keys, "epochs": 1, **LINEAR, "teacher": mapped}, None)
    for broken in many.BROKEN:
        found[broken] = ("BPR", {**keys, "epochs": 1, **LINEAR}, broken)
    for name in LOSSES.names():
        short = {"hetcomp_k": 10} if name == "HetComp" else {}  # there are 40 items
        found[name] = ("BPR", {**keys, "epochs": 1, "trainer": name, **short}, None)
    team = [keys["teacher"], {"model": "ShrunkKNN"}, "panel"]
    few = {"panel_models": ["GFCF"], "teacher_filter": "auto", "warm_start": "lists"}
    of_team = {"trainer": ["FreqRank", "FreqD"], "teacher": team, **few, **LINEAR}
    found["team"] = ("BPR", {**keys, "epochs": 1, **of_team}, None)
    return found


@pytest.fixture(scope="module")
def seen(keys, tmp_path_factory):
    """What both processes saw of every run, by name and rank; once for all workers of xdist."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    file = folder / "ddp" / "seen.pt"
    with FileLock(folder / "ddp.lock"):
        if not file.is_file():
            file.parent.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(file.parent)
                patch.setattr(sys, "argv", ["pytest"])
                patch.setenv("CUDA_VISIBLE_DEVICES", "")
                Launch(2, port=a_port()).run(many.jobs, wanted(keys), str(file))
    return torch.load(file, weights_only=False)


def assert_equal(one, other):
    assert list(one) == list(other) and len(one) > 0
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("run", [*STUDENTS, "per step", "nothing", *LOSSES.names()])
def test_student_and_projectors_are_the_same_bits_in_both_processes(seen, run):
    first, second = seen[run]
    assert (first["rank"], second["rank"]) == (0, 1)
    assert_equal(first["student"], second["student"])
    if first["own"]:
        assert_equal(first["own"], second["own"])
    assert any(parameter.abs().sum() > 0 for parameter in first["averaged"])


@pytest.mark.parametrize("run", [*STUDENTS, "nothing", *LOSSES.names()])
def test_a_step_takes_the_mean_of_both_gradients_of_base_plus_distillation(seen, run):
    first, second = seen[run]
    for mine, yours, taken in zip(first["local"], second["local"], first["averaged"]):
        expected = (mine + yours) / 2
        torch.testing.assert_close(
            taken, expected, rtol=1e-4, atol=1e-7 * float(1 + expected.abs().max())
        )
    assert any(not torch.equal(a, b) for a, b in zip(first["local"], second["local"]))


@pytest.mark.parametrize("student", STUDENTS)
def test_graphs_and_teacher_are_made_in_one_process_and_are_the_same_in_both(seen, student):
    first, second = seen[student]
    made = [(each["graphs"], each["extracted"]) for each in (first, second)]
    assert made == [(2, 1), (0, 0)]
    assert_equal(first["buffers"], second["buffers"])


def test_a_recipe_is_trained_once_for_both_processes_and_all_runs(seen):
    trained = [
        [each["trained"] for each in both]
        for run, both in seen.items()
        if "trained" in both[0] and run != "team"
    ]
    assert trained == [[1, 0]] + [[0, 0]] * (len(trained) - 1)
    assert [each["trained"] for each in seen["team"]] == [2, 0]  # those that BPR is not


def test_a_team_is_chosen_in_one_process_and_teaches_both_the_same(seen, keys):
    first, second = seen["team"]
    assert_equal(first["student"], second["student"])
    assert_equal(first["buffers"], second["buffers"])
    assert first["valid"] == second["valid"] and first["teacher"] == second["teacher"]
    folder = Path(keys["checkpoint_dir"])
    names = [json.loads(file.read_text())["identity"].get("teachers") for file in
             folder.glob("taught-tiny-*.json")]  # fmt: skip
    of_team = [sorted(name for name, *_ in members) for members in names if len(members) > 1]
    assert of_team == [["BPR", "GFCF", "ShrunkKNN"]]
    assert len(list(folder.glob("panel-tiny-*.json"))) == 1


def test_features_that_are_to_be_paged_in_are_so_in_every_process(seen):
    assert [each["mapped"] for each in seen["mapped"]] == [True, True]
    assert [each["mapped"] for each in seen["BPR"]] == [False, False]
    assert_equal(*(each["buffers"] for each in seen["mapped"]))


def test_an_epochs_mask_is_shared_and_another_in_the_next_epoch(seen):
    first, second = (each["epoch_masks"] for each in seen["BPR"])
    users, later = first[0], first[2]  # a mask for each side and epoch
    assert len(first) == 4 and all(map(torch.equal, first, second))
    assert len(users) != len(later) or not torch.equal(users, later)


def test_a_steps_mask_follows_from_seed_epoch_step_and_rank(seen):
    for rank, each in enumerate(seen["per step"]):
        masks = each["step_masks"]
        stream = RandomStream(2020)
        stream.restart(0, 0, rank, 1)  # of the first loss; 0 is where batches are drawn from
        assert torch.equal(masks[0], stream.bernoulli(tuple(masks[0].shape), 0.5, masks[0].float()))
    first, second = (each["step_masks"][0] for each in seen["per step"])
    shared = min(len(first), len(second))
    assert not torch.equal(first[:shared], second[:shared])


def test_an_error_of_one_process_is_an_error_of_both(seen):
    for run, kind, words in (
        ("nan", "TrainingError", "Training loss is nan in step 2 of epoch 0"),
        ("disk", "CheckpointError", "no space left"),
    ):
        for each in seen[run]:
            assert each["error"][0] == kind and words in each["error"][1]


@pytest.mark.parametrize("student", STUDENTS)
def test_the_checkpoint_is_of_one_process_and_plain_recbole_gets_the_same_metrics(
    seen, host, student
):
    """Metrics of 29 users in two unequal shares; entropy is no mean over users."""
    from recbole.quick_start import load_data_and_model
    from recbole.trainer import Trainer

    first, second = seen[student]
    assert first["checkpoint"] == second["checkpoint"]
    host.unregister()
    compat.install_shims()
    config, model, _, train, valid, test = load_data_and_model(first["checkpoint"])
    assert not {"nproc", "world_size", "ip", "port", "offset"} & set(config.final_config_dict)
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train)
    for name, loader in (("valid", valid), ("test", test)):
        alone = trainer.evaluate(loader, load_best_model=False)
        assert first[name] == second[name] == {key: float(value) for key, value in alone.items()}


def test_teacher_is_evaluated_on_all_users(seen):
    first, second = seen["BPR"]
    assert first["teacher"] == second["teacher"] and "ndcg@10" in first["teacher"]


def test_only_the_first_process_writes_and_no_state_is_kept(seen):
    folder = Path(seen["BPR"][0]["checkpoint"]).parent
    assert not list(folder.glob("*.last.pt*"))
    runs = sum("checkpoint" in both[0] for both in seen.values())
    assert (
        len([file for file in folder.glob("BPR-*.pth") if "teacher" not in file.name]) == runs - 1
    )


def test_a_process_that_dies_ends_the_others(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    start = time.monotonic()
    with pytest.raises(TrainingError, match="process 1 terminated with signal SIGKILL"):
        Launch(2, port=a_port()).run(many.one_dies)
    assert time.monotonic() - start < 60


def test_a_result_of_any_size_comes_back_from_the_first_process():
    assert Launch(2, port=a_port()).run(many.much) == many.much({})


def test_processes_of_loaders_are_refused_beside_others(monkeypatch):
    monkeypatch.setattr(Processes, "of", lambda config: Processes(0, 0, 2, 2))
    with pytest.raises(ConfigError, match="worker: got 3 in 2 processes; allowed: 0"):
        PartsTrainer({"single_spec": False, "resume": False, "worker": 3}, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nproc", "2", "compare", "FreqD"], "compare works in one process; got --nproc 2"),
        (["--nproc", "2", "tune", "FreqD"], "tune works in one process"),
        (["--nproc", "2", "export", "a.pth"], "export works in one process"),
        (["--nproc", "2", "analyze", "a.pth"], "analyze works in one process"),
        (["--nproc", "2", "sweep", "freqd_k=1,2"], "sweep works in one process"),
        (["--nproc", "2", "--world_size", "4"], "--world_size: got 4 with --nproc 2 and --ip"),
        (["--nproc", "2", "--world_size", "1"], "ranks of this machine"),
        (["--nproc", "2", "--group_offset", "1"], "ranks of this machine"),
        (["--nproc", "2", "--port", "x"], "--port: got 'x'; allowed: 1 to 65535"),
        (["--nproc", "2", "--resume"], "--resume works in one process"),
    ],
)
def test_what_several_processes_cannot_do_is_said(capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_is_said():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port: got {port}, which cannot be used"):
            Launch(2, port=str(port)).check()


# --- RecBole's launch ------------------------------------------------------------------------


@pytest.fixture
def launched(tiny_config, monkeypatch):
    """Makes the Config of a process that is launched alone: ``launched(gpu_id="0")``."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield lambda **keys: tiny_config(**{**Launch(port=a_port()).keys(0), **keys})
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_recbole_itself_launches_with_nccl_only(host):
    host.unregister()
    assert only_nccl()  # else compat/launch.py is no longer needed
    host.register()


def test_without_gpus_processes_meet_over_gloo_and_a_second_config_joins_them(launched):
    one, other = launched(), launched()
    assert (one["device"], one["single_spec"]) == (torch.device("cpu"), False)
    assert torch.distributed.get_backend() == "gloo" and other["device"] == one["device"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == one["gpu_id"] == "0"


def test_fewer_gpus_than_processes_are_said(launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"gpu_id: got '0' for 2 processes; .* gpu_id: '0,1'"):
        launched(nproc=2, world_size=2, gpu_id="0")


def test_loaders_of_another_process_and_resume_are_refused(launched, teacher_recipe):
    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.trainer.distillation import FreqDTrainer

    config = launched(trainer="FreqD", teacher=teacher_recipe)
    train, *_ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train._dataset)
    trainer = FreqDTrainer(config, model)
    train.sampler.rank = 3
    with pytest.raises(ConfigError, match="Process 0 has the training data of process 3"):
        trainer.fit(train)
    config["resume"] = True
    with pytest.raises(ConfigError, match="resume: got true in 1 processes"):
        FreqDTrainer(config, model)


OWN = """
def main():
    import json, recbole_freqd
    recbole_freqd.register()
    from recbole.quick_start import run
    keys = json.loads({keys!r})
    print("RESULT", json.dumps(run("BPR", "tiny", config_dict=keys, nproc=2, port={port!r})["test_result"]))

if __name__ == "__main__":
    main()
"""


def started(arguments, folder):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments], cwd=folder, text=True,
        env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_recboles_own_run_starts_processes_that_know_us(keys, tmp_path):
    script = tmp_path / "own.py"
    script.write_text(OWN.format(keys=json.dumps({**keys, **LINEAR}), port=a_port()))
    process = started([str(script)], tmp_path)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "RESULT" in said, said[-3000:]
    assert len(list(Path(keys["checkpoint_dir"]).glob("BPR-FreqD-*.distiller.pt"))) >= 1


@pytest.mark.slow
def test_script_in_two_processes_leaves_what_one_leaves(keys, tmp_path):
    """A log and a TensorBoard folder for each training, and nothing of the second process."""
    (tmp_path / "keys.yaml").write_text(
        yaml.safe_dump({**keys, **LINEAR, "checkpoint_dir": "saved"})
    )
    options = ["--nproc", "2", "--port", a_port(), "-d", "tiny", "--config_files", "keys.yaml"]
    process = started([str(ROOT / "run_recbole_freqd.py"), *options], tmp_path)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "student alone" in said, said[-3000:]
    # Four trainings; the cut and the student that goes on from it may begin in the same second.
    assert len(list(tmp_path.glob("log/BPR/*.log"))) in (3, 4)
    assert len(list(tmp_path.glob("log_tensorboard/*"))) in (4, 5)  # and that of the teacher
    assert len(list(tmp_path.glob("saved/BPR-*.pth"))) == 4
    (saved,) = tmp_path.glob("freqd_runs/*/results.json")
    rows = {row["role"]: row for row in json.loads(saved.read_text())["rows"]}
    assert list(rows) == [
        "teacher", "teacher_int8", "cut", "student_alone", "student_warm", "distilled",
    ]  # fmt: skip
    assert rows["student_warm"]["valid"]["ndcg@10"] >= rows["cut"]["valid"]["ndcg@10"]
    assert all(0 < row["coverage"] <= 1 for row in rows.values())


@pytest.mark.slow
def test_script_on_two_machines_hands_teacher_and_checkpoints_over(keys, tmp_path):
    port, processes = a_port(), []
    for rank in (0, 1):
        folder = tmp_path / str(rank)
        folder.mkdir()
        (folder / "keys.yaml").write_text(
            yaml.safe_dump({**keys, **LINEAR, "checkpoint_dir": str(folder / "saved")})
        )
        options = ["--nproc", "1", "--world_size", "2", "--ip", "127.0.0.1", "--port", port]
        options += ["--group_offset", str(rank), "-d", "tiny", "--config_files", "keys.yaml"]
        processes.append(started([str(ROOT / "run_recbole_freqd.py"), *options], folder))
    for process in processes:
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said[-3000:]
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / rank / "saved").iterdir()}
        for rank in "01"
    )
    assert {name: first[name] for name in second} == second
    assert {Path(name).suffix for name in second} == {".pth", ".json"} and len(second) >= 4
    assert len(list(tmp_path.glob("*/freqd_runs/*/results.json"))) == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_end_with_the_same_bits(subset, keys):  # noqa: F811
    kept = {key: value for key, value in keys.items() if key != "load_col"}
    settings = {name: {**kept, **LINEAR, "data_path": str(subset)} for name in STUDENTS}
    assert Launch(2, port=a_port()).run(many.every, settings) == []


@pytest.mark.slow
def test_every_student_is_the_same_bits_in_both_processes(subset, keys, tmp_path):  # noqa: F811
    kept = {key: value for key, value in keys.items() if key not in ("embedding_size", "load_col")}
    common = {**kept, **LINEAR, "data_path": str(subset), "train_batch_size": 512}
    names = [name for name in general_models() if can_be_student(name)]
    names = [name for name in names if not any(mark.name == "skip" for mark in marks(name))]
    settings = {name: {**common, **KEYS.get(name, {})} for name in names}
    assert len(names) > 20 and Launch(2, port=a_port()).run(many.every, settings) == []
