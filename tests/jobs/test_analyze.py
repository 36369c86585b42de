"""analyze: the numbers, what is refused, and what is written."""

import csv
import json
import re
import sys

import numpy as np
import pytest
import torch

from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.graph.similarity import cosine_graph
from recbole_freqd.graph.spectrum import least_squares
from recbole_freqd.jobs.analysis import analyze
from recbole_freqd.jobs.analysis import report as spectrum_report
from recbole_freqd.jobs.analysis.own_teacher import find_own_teacher
from recbole_freqd.jobs.script import main
from tests.support.oracles import dense_laplacian


@pytest.fixture
def checkpoints(tiny_config, tiny_keys):
    """Trains a teacher, a student alone and one with FreqD; their paths and the Config."""
    from recbole_freqd.jobs import run as runs

    def train(**keys):
        def one(**more):
            return runs.run(tiny_config(**{"epochs": 2, **keys, **more}), test=False).trainer

        teacher = one(embedding_size=8).saved_model_file
        recipe = {"trainer": "FreqD", "freqd_k": 3, "teacher": {"checkpoint": teacher}}
        return teacher, one().saved_model_file, one(**recipe).saved_model_file

    return train


@pytest.fixture
def analysed(checkpoints, tiny_config):
    """Results for teacher and students of the tiny data: ``analysed("alone", "distilled")``."""
    paths = dict(zip(("teacher", "alone", "distilled"), checkpoints()))
    loaded = {name: analyze.load_with_data(path, tiny_config()) for name, path in paths.items()}

    def results(*students):
        return analyze.measure_bands(
            loaded["teacher"], [loaded[name] for name in students], bands=4
        )

    results.loaded, results.paths = loaded, paths
    return results


def test_the_numbers_are_those_of_eigenvectors_and_least_squares(analysed):
    found = analysed("alone", "distilled")
    assert "least squares" in found["projection"]
    teacher, student = (analysed.loaded[name].features[1] for name in ("teacher", "alone"))
    R = analyze.training_matrix(analysed.loaded["teacher"].home.train)
    graph = cooccurrence_graph(R, side="item", k=3)  # the k of the student that has one
    values, vectors = np.linalg.eigh(dense_laplacian(graph.toarray()))
    error = (least_squares(student, teacher)(student) - teacher).double().numpy()
    error[0] = 0.0
    parts = np.square(vectors.T @ error).sum(axis=1)
    band = np.clip(np.floor((values + 1e-9) / 0.5), 0, 3)
    own = found["students"][0]["sides"]["item"]
    np.testing.assert_allclose(
        own["loss"], [parts[band == b].sum() for b in range(4)], rtol=1e-5, atol=1e-6
    )
    whole = float(teacher[1:].double().square().sum())
    assert sum(found["sides"]["item"]["teacher_energy"]) == pytest.approx(whole, rel=1e-6)
    assert sum(found["sides"]["item"]["eigenvalues"]) == pytest.approx(40)
    assert [each["name"] for each in found["students"]] == [
        "BPR alone", "BPR with FreqD (α = 0.5, β = 1)"
    ]  # fmt: skip
    assert {"recall@20", "ndcg@10"} <= set(found["teacher"]["valid"])


def test_one_student_with_a_sidecar_is_seen_through_its_own_projector(analysed):
    found = analysed("distilled")
    assert found["projection"] == "the projector trained with it"
    assert "least squares" in analysed("alone")["projection"]
    state = load_plain(sidecar_path(analysed.paths["distilled"]))["distiller"]
    weights = {name.split("user.")[1]: value for name, value in state.items() if ".user." in name}
    projector = analyze._projector(weights)
    for name, value in projector.state_dict().items():
        assert torch.equal(value, weights[name])
    student, teacher = (analysed.loaded[name].features[0] for name in ("distilled", "teacher"))
    with torch.no_grad():
        rows = projector.eval()(student)[1:].double()
    t = teacher[1:].double()
    rows *= t.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)  # cosine teaches no length
    own = found["students"][0]["sides"]["user"]
    assert sum(own["loss"]) == pytest.approx(float((rows - t).square().sum()), rel=1e-4)


def test_the_teacher_is_drawn_before_and_after_its_filter(tiny_config, checkpoints, tmp_path):
    pytest.importorskip("matplotlib")
    from recbole_freqd.jobs import run as runs

    teacher, alone, _ = checkpoints()
    keys = {"teacher": {"checkpoint": teacher}, "teacher_filter": 0.4}
    keys |= {"teacher_filter_side": "item", "teacher_filter_k": 3}
    student = runs.run(tiny_config(trainer="FreqRank", **keys), test=False).trainer.saved_model_file
    loaded = [analyze.load_with_data(path, tiny_config()) for path in (teacher, alone, student)]
    found = analyze.measure_bands(loaded[0], loaded[1:], bands=4)
    facts = found["filter"]
    assert (facts["side"], facts["alpha"], facts["student"]) == ("item", 0.4, "BPR with FreqRank")
    R = analyze.training_matrix(loaded[0].home.train)
    graph = cosine_graph(R, side="item", k=3, shrinkage=3.0)
    values, vectors = np.linalg.eigh(dense_laplacian(graph.toarray()))
    items = loaded[0].features[1].double().numpy().copy()
    items[1:] -= items[1:].mean(axis=0)
    items[0] = 0
    parts = np.square(vectors.T @ items).sum(axis=1)
    band = np.clip(np.floor((values + 1e-9) / 0.5), 0, 3)
    after = parts * (1 - 0.4 * values) ** 2
    for key, energy in (("before", parts), ("after", after)):
        expected = [energy[band == b].sum() for b in range(4)]
        np.testing.assert_allclose(facts[key], expected, rtol=1e-4, atol=1e-6)
    report = spectrum_report.write(found, tmp_path / "report")
    page = report.read_text()
    assert "The teacher before and after its filter" in page and "Numbers: the filter" in page
    assert report.with_name("filter.png").is_file() and "with α = 0.4" in page
    plain = analyze.measure_bands(loaded[0], loaded[1:2], bands=4)
    assert plain["filter"] is None
    page = spectrum_report.write(plain, tmp_path / "plain").read_text()
    assert "before and after" not in page


def test_a_linear_projector_is_read_from_its_tensors_as_well():
    from recbole_freqd.core.rng import RandomStream
    from recbole_freqd.losses.projectors import LinearProjector

    own = LinearProjector(3, 5, RandomStream(7))
    read = analyze._projector(dict(own.state_dict()))
    assert torch.equal(read(torch.ones(2, 3)), own(torch.ones(2, 3)))


def test_models_of_another_split_or_of_other_data_are_refused(tiny_config):
    from recbole_freqd.jobs import run as runs

    def trained(**keys):
        path = runs.run(tiny_config(epochs=1, **keys), test=False).trainer.saved_model_file
        return analyze.load_with_data(path, tiny_config())

    teacher = trained()
    analyze.check_same_data(teacher, trained(embedding_size=3))
    with pytest.raises(TeacherError, match="but other training interactions"):
        analyze.check_same_data(teacher, trained(seed=7))
    with pytest.raises(TeacherError, match="other users or items"):
        analyze.check_same_data(teacher, trained(item_inter_num_interval="[8,inf)"))


def test_equal_names_are_told_apart():
    configs = [{"model": "BPR", "trainer": None}] * 2
    assert analyze._names(configs) == ["BPR alone, no. 1", "BPR alone, no. 2"]


def test_the_script_writes_figures_numbers_and_one_report_that_needs_no_other(
    checkpoints, tiny_data, tmp_path, capsys
):
    pytest.importorskip("matplotlib")
    teacher, alone, distilled = checkpoints()
    arguments = ["analyze", f"{alone},{distilled}", "--teacher", teacher]
    assert main([*arguments, "--bands", "5", "--output_dir", "out", "--state=ERROR"]) == 0
    (home,) = (tmp_path / "out").glob("analysis-tiny-*")
    names = {path.name for path in home.iterdir()}
    figures = {
        f"{name}.{kind}" for name in ("losses", "energy", "response") for kind in ("png", "svg")
    }
    assert names == figures | {"analysis.json", "bands.csv", "report.html"}
    assert str(home / "report.html").endswith(re.search(r"out/\S+", capsys.readouterr().out)[0])
    page = (home / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not re.search(r"\bnan\b", re.sub(r'base64,[^"]+', "", page), re.IGNORECASE)
    lines = list(csv.DictReader((home / "bands.csv").open()))
    assert len(lines) == 2 * 5 * 2 and lines[0]["side"] == "user"
    found = json.loads((home / "analysis.json").read_text())
    assert float(lines[0]["loss"]) == found["students"][0]["sides"]["user"]["loss"][0]


def test_the_report_says_of_every_model_how_it_ranks_what_it_lacks_and_by_which_filter(analysed):
    alone, both = analysed("alone"), analysed("alone", "distilled")
    head, teacher, student = spectrum_report.metrics_table(alone)
    assert "valid recall@20" in head and teacher[0] == "BPR" and student[0] == "BPR alone"
    assert teacher[-1] == "–" and 0 < float(student[-1]) < 1
    assert len({len(head), len(teacher), len(student)}) == 1
    assert [each["name"] for each in both["responses"]] == ["FreqD, linear, α = 0.5"]
    assert len(alone["responses"]) == 3  # of the defaults, since no student has a filter


def test_without_students_or_without_matplotlib_it_says_what_to_do(monkeypatch, capsys, trained):
    with pytest.raises(SystemExit, match="2"):
        main(["analyze", "--teacher", "t.pth"])
    assert "arguments are required: STUDENT.pth,..." in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match='pip install "recbole_freqd\\[plot\\]"'):
        analyze.analyze("t.pth", ["s.pth"], None, None)


def test_the_teacher_of_a_student_is_found_and_another_one_is_named_as_such(
    tiny_config, checkpoints, caplog
):
    """Its own by checkpoint; others: of another width, of the same width, of another model."""
    from recbole_freqd.jobs import run as runs

    teacher, alone, distilled = checkpoints()
    assert find_own_teacher([alone, distilled]) == teacher
    student = analyze.load_with_data(distilled, tiny_config())
    for keys in ({"embedding_size": 6}, {"embedding_size": 8}, {"model": "LightGCN"}):
        other = runs.run(tiny_config(epochs=1, **keys), test=False).trainer.saved_model_file
        found = analyze.load_with_data(other, tiny_config())
        with pytest.raises(TeacherError, match=f"was taught by the checkpoint {teacher}, not by"):
            analyze.measure_bands(found, [student], bands=2)
        many = [student, analyze.load_with_data(alone, tiny_config())]
        assert "least squares" in analyze.measure_bands(found, many, bands=2)["projection"]
        assert f"was taught by the checkpoint {teacher}, not by {other}" in caplog.text
    with pytest.raises(ConfigError, match="no teacher taught them.*--teacher TEACHER.pth"):
        find_own_teacher([alone])


def test_a_teacher_by_recipe_is_told_by_its_keys(tiny_config, teacher_recipe):
    from recbole_freqd.jobs import run as runs

    def taught(**keys):
        config = tiny_config(trainer="FD", teacher={**teacher_recipe, **keys}, epochs=1)
        trainer = runs.run(config, test=False).trainer
        return trainer.saved_model_file, trainer.teacher.checkpoint

    student, own = taught()
    _, wider = taught(embedding_size=9)
    assert find_own_teacher([student]) == own
    loaded = {path: analyze.load_with_data(path, tiny_config()) for path in (student, own, wider)}
    analyze.measure_bands(loaded[own], [loaded[student]], bands=2)
    with pytest.raises(TeacherError, match=r"taught by a BPR trained by its recipe \(embedding_si"):
        analyze.measure_bands(loaded[wider], [loaded[student]], bands=2)


@pytest.mark.parametrize("bands", [0, -1, 100_000])
def test_numbers_of_bands_that_nobody_could_draw_are_refused(bands, monkeypatch):
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=f"bands: got {bands}; allowed: a whole number from 1 to"):
        analyze.analyze("t.pth", ["s.pth"], None, None, bands)
