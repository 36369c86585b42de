"""Exported vectors rank as RecBole does, under the original tokens, and never half-written."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import recbole_freqd
from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.vector_files import read_export
from recbole_freqd.features.data import tokens
from recbole_freqd.features.scores import score_users
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.export import export as exporting
from recbole_freqd.jobs.export.files import Form, open_table
from recbole_freqd.jobs.script import main


def load(folder, side):
    with np.load(Path(folder) / f"{side}.npz", allow_pickle=False) as file:
        return file["tokens"], file["vectors"]


def hidden(model, dataset, n=10):
    """RecBole's top n of every user without the training items, best first, from 0."""
    with torch.no_grad():
        scores = score_users(model.eval(), torch.arange(1, model.n_users)).numpy()[:, 1:].copy()
    scores[
        np.asarray(dataset.inter_feat["user_id"]) - 1, np.asarray(dataset.inter_feat["item_id"]) - 1
    ] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :n]


def served(folder, n=10):
    """The same from the files of an export alone."""
    scores = (
        load(folder, "users")[1].astype(np.float32) @ load(folder, "items")[1].astype(np.float32).T
    )
    scores[(sp.load_npz(Path(folder) / "histories.npz") == 1).toarray()] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :n]


@pytest.fixture
def student(tiny_config):
    """A trained run: ``student("BPR")``."""

    def train(model="BPR", **keys):
        return runs.run(tiny_config(model, **keys))

    return train


def exported(run, out="out", **options):
    return recbole_freqd.export(run.trainer.saved_model_file, out, **options)


@pytest.mark.parametrize(
    ("model", "biases", "metric"),
    [
        ("BPR", [], "dot"),
        ("LightGCN", [], "dot"),
        ("FISM", ["user", "item"], "dot"),
        ("MultiVAE", ["item"], "dot"),
        ("SimpleX", [], "cosine"),
    ],
)
def test_the_top_10_are_recboles_for_every_user_and_the_tokens_are_the_datas(
    student, model, biases, metric
):
    run = student(model)
    dataset = run.data[0]._dataset
    manifest = exported(run, histories=True)
    assert np.array_equal(served("out"), hidden(run.model, dataset))
    for side, names in zip(("users", "items"), tokens(dataset)):
        found, vectors = load("out", side)
        assert found.dtype.kind == "U" and found.tolist() == names[1:].tolist()
        assert vectors.shape == (len(found), manifest["dimensions"]) and vectors.dtype == np.float32
        assert manifest[side]["count"] == len(found)
    assert (manifest["biases"]["of"], manifest["metric"]) == (biases, metric)
    assert manifest["score_transform"] == "none" and manifest["approximation"] is None


@pytest.mark.parametrize(
    "model",
    [
        "BPR",
        pytest.param("LightGCN", marks=pytest.mark.slow),
        pytest.param("MultiVAE", marks=pytest.mark.slow),
    ],
)
def test_a_student_of_ml_100k_has_the_same_top_10_as_recbole_for_all_users(host, tmp_path, model):
    from recbole.config import Config

    keys = {"epochs": 1, "embedding_size": 8, "state": "ERROR", "show_progress": False}
    run = runs.run(Config(model, "ml-100k", config_dict=keys))
    manifest = exported(run, histories=True)
    assert (manifest["users"]["count"], manifest["items"]["count"]) == (943, 1682)
    assert np.array_equal(served("out"), hidden(run.model, run.data[0]._dataset))


def test_a_distilled_student_and_its_teacher_are_exported_alike(tiny_config, teacher_recipe):
    run = runs.run(tiny_config(trainer="FreqD", teacher=teacher_recipe))
    manifest = exported(run)
    assert (manifest["trainer"], manifest["dimensions"]) == ("FreqD", 4)
    teacher = recbole_freqd.export(run.trainer.teacher.checkpoint, "teacher")
    assert (teacher["trainer"], teacher["dimensions"]) == (None, 8)
    assert teacher["data"] == manifest["data"]
    assert all(
        np.array_equal(load("teacher", side)[0], load("out", side)[0])
        for side in ("users", "items")
    )


def test_histories_say_which_split_a_pair_is_of(student):
    run = student()
    exported(run, histories=True)
    found = sp.load_npz("out/histories.npz").toarray()
    for value, loader in zip((1, 2, 3), run.data):
        inter = loader._dataset.inter_feat
        assert (found[inter["user_id"] - 1, inter["item_id"] - 1] == value).all()
        assert (found == value).sum() == len(inter)


def test_the_manifest_says_what_the_files_are(student):
    run = student()
    manifest = exported(run, histories=True)
    assert json.loads(Path("out/manifest.json").read_text()) == manifest
    checkpoint = Path(run.trainer.saved_model_file)
    assert manifest["checkpoint"]["file"] == checkpoint.name
    assert manifest["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert set(manifest["sha256"]) == {"users.npz", "items.npz", "histories.npz"}
    for file, known in manifest["sha256"].items():
        assert hashlib.sha256(Path("out", file).read_bytes()).hexdigest() == known
    assert manifest["data"] == recbole_freqd.config.identity.data_fingerprint(run.data[0]._dataset)
    assert manifest["dataset"] == "tiny" and set(manifest["versions"]) >= {
        "recbole",
        "recbole_freqd",
    }


def test_the_same_checkpoint_gives_the_same_files(student):
    run = student()
    assert exported(run, "one", histories=True) == exported(run, "two", histories=True)


def test_float16_is_close_and_half_as_large(student):
    run = student(embedding_size=64)
    exported(run, "exact")
    manifest = exported(run, "half", precision="float16")
    for side in ("users", "items"):
        exact, half = load("exact", side)[1], load("half", side)[1]
        assert half.dtype == np.float16 and half.nbytes * 2 == exact.nbytes
        assert np.abs(half.astype(np.float32) - exact).max() <= 1e-3 * np.abs(exact).max()
    assert manifest["dtype"] == "float16"


@pytest.mark.parametrize("model", ["BPR", "FISM"])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_int8_has_a_scale_for_each_row_and_biases_as_they_are(student, model, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    run = student(model)
    exported(run, "exact")
    manifest = exported(run, "small", formats=kind, precision="int8")
    biases = {"BPR": 0, "FISM": 2}[model]
    found = read_export(Path("small"), "--align")
    assert manifest["dtype"] == "int8" and not manifest["biases"]["folded_in"]
    assert found.n_biases == biases
    for side, vectors in zip(("users", "items"), found.vectors):
        exact = load("exact", side)[1]
        cut = exact.shape[1] - biases
        scale = np.abs(exact[:, :cut]).max(axis=1, keepdims=True) / 127
        assert (np.abs(vectors[:, :cut] - exact[:, :cut]) <= 0.501 * scale).all()
        np.testing.assert_array_equal(vectors[:, cut:], exact[:, cut:])


def test_int8_takes_a_byte_a_number_and_numpy_alone_reads_it(student):
    exported(student("FISM", embedding_size=16), precision="int8")
    with np.load("out/items.npz", allow_pickle=False) as file:
        assert {name: (file[name].dtype.name, file[name].shape) for name in file.files[1:]} == {
            "vectors": ("int8", (40, 16)),
            "scales": ("float32", (40,)),
            "biases": ("float32", (40, 2)),
        }


# --- aligned with an older export -------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "FISM"])
def test_aligned_vectors_score_as_before_and_lie_nearer_to_the_old_ones(student, model):
    old, new = student(model), student(model, seed=7, epochs=4)
    exported(old, "old")
    exported(new, "plain")
    manifest = exported(new, "turned", align="old")
    plain, turned = ([load(f, side)[1] for side in ("users", "items")] for f in ("plain", "turned"))
    np.testing.assert_allclose(turned[0] @ turned[1].T, plain[0] @ plain[1].T, atol=1e-6)
    facts = manifest["aligned"]
    assert 0 < facts["drift_after"] < facts["drift_before"]
    assert facts["shared"] == {"users": 30, "items": 40}
    assert facts["onto"] == json.loads(Path("old/manifest.json").read_text())["checkpoint"]
    cut = plain[0].shape[1] - {"BPR": 0, "FISM": 2}[model]
    for one, other in zip(plain, turned):
        np.testing.assert_array_equal(one[:, cut:], other[:, cut:])


def test_an_export_aligned_with_itself_stays_where_it_is(student):
    run = student()
    exported(run)
    before = load("out", "items")[1]
    facts = exported(run, align="out", overwrite=True)["aligned"]
    assert facts["drift_after"] < 1e-6
    np.testing.assert_allclose(load("out", "items")[1], before, atol=1e-6)


def test_only_shared_tokens_are_compared_and_other_widths_are_refused(student, tiny_data, tmp_path):
    exported(student(), "old")
    exported(student(embedding_size=6), "wide")
    shutil.copytree(tiny_data, tmp_path / "more")
    file = tmp_path / "more" / "tiny" / "tiny.inter"
    file.write_text(file.read_text().replace("u7\t", "new\t").replace("\ti9", "\tnew"))
    run = student(data_path=str(tmp_path / "more"))
    assert exported(run, align="old")["aligned"]["shared"] == {"users": 29, "items": 39}
    with pytest.raises(ConfigError, match="--align: wide has vectors of 6 numbers.* of 4"):
        exported(run, "none", align="wide")
    with pytest.raises(ConfigError, match="--align: nowhere .* holds nothing"):
        exported(run, "none", align="nowhere")
    assert not Path("none").exists()


def test_parquet_holds_the_same(student):
    pq = pytest.importorskip("pyarrow.parquet")
    run = student("FISM")
    for precision in ("float32", "float16"):
        exported(run, precision, formats="npz,parquet", precision=precision)
        for side in ("users", "items"):
            table = pq.read_table(f"{precision}/{side}.parquet")
            names, vectors = load(precision, side)
            assert table["token"].to_pylist() == names.tolist()
            flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            assert np.array_equal(flat.reshape(vectors.shape), vectors)


def test_without_pyarrow_parquet_is_an_error_that_gives_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r'pip install "recbole_freqd\[parquet\]"'):
        recbole_freqd.export("student.pth", "out", formats="parquet")


def test_blocks_of_any_size_give_the_same_file(tmp_path):
    names = np.array(["a", "Ünï", "中文 token", "", "d,e\n"])
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    form = Form(3, vectors.dtype)
    for size in (1, 2, 5):
        with open_table(tmp_path / f"{size}.npz", "npz", names, form) as write:
            for start in range(0, 5, size):
                write(vectors[start : start + size])
    files = [(tmp_path / f"{size}.npz").read_bytes() for size in (1, 2, 5)]
    assert files[0] == files[1] == files[2]
    with np.load(tmp_path / "1.npz", allow_pickle=False) as file:
        assert file["tokens"].tolist() == names.tolist()
        assert np.array_equal(file["vectors"], vectors)


def test_a_model_whose_scores_are_no_products_is_refused_or_marked_as_approximated(student):
    run = student("NeuMF")
    with pytest.raises(ConfigError, match="NeuMF cannot be exported exactly.*--spectral 64"):
        exported(run)
    assert not Path("out").exists()
    good = exported(run, spectral=29, histories=True)["approximation"]
    assert good["rank"] <= 29 and good["energy_kept"] > 0.999
    same = served("out")[:, :, None] == hidden(run.model, run.data[0]._dataset)[:, None, :]
    assert good["top10_overlap"] == pytest.approx(same.sum() / same[:, :, 0].size, abs=1e-3)
    rough = exported(run, "rough", spectral=1)["approximation"]
    assert rough["top10_overlap"] <= good["top10_overlap"] and rough["rank"] == 1
    with pytest.raises(ConfigError, match="--spectral: got 31; allowed: 1 to 30"):
        exported(run, "none", spectral=31)


def test_exact_vectors_are_not_approximated(student):
    with pytest.raises(ConfigError, match="the vectors of BPR are exact"):
        exported(student(), spectral=4)


def test_files_that_are_there_are_replaced_only_where_that_is_asked_for(student):
    run, other = student(), student(embedding_size=6)
    exported(run, histories=True)
    before = {file.name: file.read_bytes() for file in Path("out").iterdir()}
    with pytest.raises(ConfigError, match="out already holds .*manifest.json.*--overwrite"):
        exported(other)
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == before
    assert exported(other, overwrite=True)["dimensions"] == 6
    # What the new export has not is gone: it was of another checkpoint.
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "items.npz",
        "manifest.json",
        "users.npz",
    ]


def test_an_export_that_breaks_off_has_no_manifest_and_no_half_file(student, monkeypatch):
    run = student()
    exported(run)
    rounded = exporting._rounded

    def fails_at_the_items(block, dtype, what):
        if what.startswith("items"):
            raise KeyboardInterrupt
        return rounded(block, dtype, what)

    monkeypatch.setattr(exporting, "_rounded", fails_at_the_items)
    with pytest.raises(KeyboardInterrupt):
        exported(run, overwrite=True)
    assert sorted(file.name for file in Path("out").iterdir()) == ["items.npz", "users.npz"]


def test_a_bad_checkpoint_leaves_an_earlier_export_alone(student):
    run = student()
    manifest = exported(run)
    Path("bad.pth").write_bytes(Path(run.trainer.saved_model_file).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="bad.pth"):
        recbole_freqd.export("bad.pth", "out", overwrite=True)
    assert json.loads(Path("out/manifest.json").read_text()) == manifest


def test_damaged_missing_and_foreign_files_are_our_errors(student):
    run = student()
    whole = Path(run.trainer.saved_model_file).read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    torch.save({"weights": torch.ones(3)}, "foreign.pth")
    for name, content in (("cut", whole[:1000]), ("changed", bytes(changed)), ("text", b"hello")):
        Path(f"{name}.pth").write_bytes(content)
    for name in ("cut", "changed", "text", "foreign", "missing"):
        with pytest.raises(CheckpointError, match=rf"{name}\.pth"):
            recbole_freqd.export(f"{name}.pth", "out")
    assert not Path("out").exists()


def test_vectors_that_are_no_numbers_or_too_large_for_float16_are_refused(student):
    run = student()
    for value, error in ((float("nan"), CheckpointError), (1e6, ConfigError)):
        payload = torch.load(run.trainer.saved_model_file, weights_only=False)
        payload["state_dict"]["item_embedding.weight"][3] = value
        payload["best_valid_score"] = -np.inf  # else it is noticed by its score
        torch.save(payload, "odd.pth")
        with pytest.raises(error, match="NaN or infinite|float16 to 65504"):
            recbole_freqd.export("odd.pth", f"out{value}", precision="float16", trust_data=True)


def test_data_that_has_moved_is_found_and_data_that_has_changed_is_refused(
    student, tiny_data, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tiny_data, tmp_path / "here")
    run = student(data_path=str(tmp_path / "here"))
    at_home = exported(run, "at_home")
    (tmp_path / "here").rename(elsewhere)
    with pytest.raises(CheckpointError, match="tiny.inter is not there.*--data_path") as raised:
        exported(run)
    assert "eacher" not in str(raised.value)
    assert exported(run, data_path=str(elsewhere))["sha256"] == at_home["sha256"]
    file = elsewhere / "tiny" / "tiny.inter"
    file.write_text(file.read_text().replace("u7\ti", "u7\tj"))
    with pytest.raises(CheckpointError, match=r"--data_path|does not fit its data") as raised:
        exported(run, "other", data_path=str(elsewhere))
    assert "eacher" not in str(raised.value).replace("elsewhere", "")


def test_the_script_exports_and_says_what_it_wrote(student, capsys):
    run = student()
    arguments = [
        "export",
        run.trainer.saved_model_file,
        "--out",
        "vectors",
        "--precision",
        "float16",
    ]
    assert main([*arguments, "--histories"]) == 0
    printed = capsys.readouterr().out
    assert "BPR: vectors of 30 users and 40 items, 4 x float16, dot, in vectors/" in printed
    assert load("vectors", "users")[1].dtype == np.float16
    assert main(arguments) == 2
    assert "already holds" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--embedding_size=8"]) == 2
    assert "--embedding_size would change nothing" in capsys.readouterr().err


def test_the_script_aligns_and_prints_the_drift(student, capsys):
    run = student()
    exported(run, "old")
    call = ["export", run.trainer.saved_model_file, "--align", "old", "--precision", "int8"]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "Turned onto old by 30 users and 40 items" in printed and "int8" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "csv"}, "--format: got 'csv'; allowed: npz, parquet"),
        ({"precision": "int4"}, "--precision: got 'int4'; allowed: float32, float16, int8"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        recbole_freqd.export("student.pth", "out", **options)


def test_the_arguments_of_the_script_import_nothing_heavy():
    import subprocess

    code = "import sys, recbole_freqd.jobs.options; print({'torch', 'numpy', 'recbole'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "set()", done.stderr
