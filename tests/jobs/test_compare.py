"""Comparing methods: what is run, kept and taken again; the statistics; the table and the plot."""

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import yaml

import recbole_freqd
from recbole_freqd.core.errors import CheckpointError, ConfigError, TrainingError
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.comparison import command as comparing
from recbole_freqd.jobs.comparison import plan as comparison
from recbole_freqd.jobs.comparison.per_user import by_token, load_users, recording
from recbole_freqd.jobs.comparison.plan import read_methods
from recbole_freqd.jobs.comparison.plot import comparison_figure, comparison_plot
from recbole_freqd.jobs.comparison.report import describe_outcome, markdown, summarise, table_lines
from recbole_freqd.jobs.comparison.significance import holm, paired_test, user_differences
from recbole_freqd.jobs.comparison.store import CellStore, check_shared_teacher
from recbole_freqd.jobs.fairness import check_seeds
from recbole_freqd.jobs.script import main, parse

TEACHER = {"model": "BPR", "embedding_size": 8, "epochs": 2, "train_batch_size": 64}


def names(*users):
    return np.array(users)


# --- statistics ------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted: 0.01 * 4 = 0.04; 0.012 * 3 = 0.036, raised to 0.04; 0.03 * 2 = 0.06; 0.9 * 1
    found = holm({"a": 0.03, "b": 0.01, "c": 0.9, "d": 0.012})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.9, "d": 0.04})
    assert holm({"a": 0.8, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {} and holm({"a": 0.2}) == {"a": 0.2}


def test_the_paired_test_is_scipys():
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(50), rng.random(50)
    expected = scipy.stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    found = paired_test(ours - theirs)
    assert found["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["difference"] == pytest.approx(np.mean(ours - theirs)) and found["users"] == 50


def test_equal_methods_have_p_one_and_one_user_has_none():
    assert paired_test(np.zeros(5))["p"] == 1.0
    assert paired_test(np.full(5, 0.25))["p"] == 0.0
    assert paired_test(np.array([0.5])) == {
        "difference": 0.5, "low": None, "high": None, "p": None, "users": 1,
    }  # fmt: skip
    assert paired_test(np.array([]))["difference"] is None


def test_a_user_is_averaged_over_the_seeds_that_rank_for_it():
    ours = [(names("a", "b"), np.array([1.0, 0.5])), (names("b", "c"), np.array([0.7, 0.2]))]
    its = [(names("a", "b"), np.array([0.5, 0.5])), (names("b", "c"), np.array([0.1, 0.3]))]
    np.testing.assert_allclose(user_differences(ours, its), [0.5, (0.0 + 0.6) / 2, -0.1])
    np.testing.assert_allclose(user_differences(ours, ours), [0, 0, 0])


# --- per user --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "uni10"])
def test_the_means_over_users_are_recboles(tiny_config, mode):
    with recording() as users:
        run = runs.run(
            tiny_config(
                topk=[3, 10],
                metrics=["NDCG", "Recall", "MRR"],
                eval_args={"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user", "mode": mode},
            )
        )
    assert set(users) == {f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in (3, 10)}
    for metric, values in users.items():
        assert values.dtype == np.float32
        assert run.test_result[metric] == pytest.approx(values.mean(), abs=5.1e-5)
    tokens, values = by_token(run.data[2], users["ndcg@10"])
    assert list(tokens) == sorted(tokens) and len(set(tokens)) == len(tokens) == len(values)
    loader, ids = run.data[2], run.data[2]._dataset.field2id_token["user_id"]
    first = list(tokens).index(ids[int(loader.uid_list[0])])
    assert values[first] == users["ndcg@10"][0]


def test_recboles_metrics_are_as_before_when_recording_ends(host):
    from recbole.evaluator.base_metric import TopkMetric

    before = TopkMetric.topk_result
    with pytest.raises(RuntimeError), recording():
        assert TopkMetric.topk_result is not before
        raise RuntimeError
    assert TopkMetric.topk_result is before


# --- the comparison --------------------------------------------------------------------------


@pytest.fixture
def compare(host, tiny_keys, tmp_path):
    """``compare(["FreqD"], seeds=[1])`` on the tiny data; ``compare.said`` are its lines."""

    def run(methods=("FreqD", "FD"), seeds=(1, 2), keys=None, **options):
        defaults = {**tiny_keys, "valid_metric": "NDCG@10", "epochs": 1, "teacher": dict(TEACHER)}
        run.said = []
        return recbole_freqd.compare(
            methods, "BPR", "tiny", config_dict={**defaults, **(keys or {})},
            seeds=seeds, output_dir=str(tmp_path / "out"), say=run.said.append, **options,
        )  # fmt: skip

    run.folder = tmp_path / "out" / "compare-tiny-BPR"
    return run


@pytest.fixture
def counted(monkeypatch):
    """The runs that were really run, but for the warm baselines: ``(trainer, seed)``."""
    found, run = [], runs.run

    def counting(config, **options):
        if config["freqrank_beta"] != 0:
            found.append((config["trainer"], config["seed"]))
        return run(config, **options)

    monkeypatch.setattr(runs, "run", counting)
    return found


def test_two_methods_two_seeds_one_teacher_each_and_nothing_is_run_twice(compare, counted):
    results = compare()
    assert counted == [(None, 1), ("FreqD", 1), ("FD", 1), (None, 2), ("FreqD", 2), ("FD", 2)]
    table = {row["what"]: row for row in results["table"]}
    baselines = ["teacher_int8", "alone", "cut", "warm"]
    assert list(table) == ["teacher", *baselines, "FreqD", "FD"]
    assert [row["role"] for row in results["table"]] == [
        "teacher", "teacher_int8", "student_alone", "cut", "student_warm", "distilled", "distilled",
    ]  # fmt: skip
    for seed in range(2):
        of_seed = {what: results["cells"][what][seed] for what in table}
        assert {of_seed[what]["teacher"] for what in ("FreqD", "FD")} == {
            of_seed["teacher"]["checkpoint"]
        }
        assert of_seed["alone"]["teacher"] is None
    assert results["cells"]["FD"][0]["teacher"] != results["cells"]["FD"][1]["teacher"]
    for what, row in table.items():
        tests = [cell["test"]["ndcg@10"] for cell in results["cells"][what]]
        assert row["test"]["ndcg@10"]["mean"] == pytest.approx(np.mean(tests))
        assert row["test"]["ndcg@10"]["sd"] == pytest.approx(np.std(tests, ddof=1))
    assert table["FD"]["seconds_per_epoch"] > 0 and table["FD"]["epochs"] == 1
    check_significance(compare, results, table)
    check_conditions(results)
    check_files(compare, results)

    again = compare()
    assert len(counted) == 6 and "12 of them finished already" in compare.said[0]
    assert again["table"] == results["table"] and again["cells"] == results["cells"]
    compare(["FD"], seeds=[2])
    assert len(counted) == 6 and "5 of them finished already" in compare.said[0]


def check_significance(compare, results, table):
    """From the files, with scipy."""
    users = {}
    for what in ("alone", "cut", "warm", "FreqD", "FD"):
        files = [next((compare.folder / "cells").glob(f"{what}-{seed}-*.npz")) for seed in (1, 2)]
        loaded = [load_users(file) for file in files]
        for (tokens, values), cell in zip(loaded, results["cells"][what]):
            assert values.mean() == pytest.approx(cell["test"]["ndcg@10"], abs=5.1e-5)
            assert list(tokens) == sorted(f"u{user}" for user in range(30))
        users[what] = np.mean([values for _, values in loaded], axis=0)
    assert results["reference"] == "FreqD" and table["FreqD"]["against"] is None
    assert table["teacher"]["against"] is None
    rivals = {
        what: scipy.stats.ttest_rel(users[what], users["FreqD"]).pvalue
        for what in ("alone", "cut", "warm", "FD")
    }
    corrected = holm(rivals)
    for what, p in rivals.items():
        found = table[what]["against"]
        assert found["p"] == pytest.approx(p, rel=1e-4) and found["users"] == 30
        assert found["p_holm"] == pytest.approx(corrected[what], rel=1e-4)
        wins = sum(
            ours["test"]["ndcg@10"] > its["test"]["ndcg@10"]
            for ours, its in zip(results["cells"][what], results["cells"]["FreqD"])
        )
        assert found["wins"] == wins
    ranks = sorted(row["rank"] for row in table.values() if row["rank"])
    assert ranks[0] == 1 and len(ranks) == 5 and table["teacher"]["rank"] is None


def check_conditions(results):
    """The same for all, and what differs is the method."""
    assert results["common"]["epochs"] == 1 and results["common"]["embedding_size"] == 4
    assert results["common"]["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert results["configs"]["alone"] == {}
    assert {key for key in results["configs"]["FD"] if not key.startswith("fd_")} == {"trainer"}
    assert results["configs"]["FreqD"]["freqd_keep_prob"] == 0.5
    assert results["teacher"] == TEACHER and results["tuning"] is None
    assert results["seeds"] == [1, 2] and results["metric"] == "ndcg@10"


def check_files(compare, results):
    (file,) = compare.folder.glob("results-*.json")
    assert json.loads(file.read_text())["table"] == results["table"]
    text = file.with_suffix(".md").read_text()
    assert re.search(r"\| student alone +\| BPR +\|", text) and "paired t-test over users" in text
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert yaml.safe_load(blocks[0])["epochs"] == 1
    assert yaml.safe_load(blocks[1])["FD"]["fd_beta"] == 1.0
    said = "\n".join(compare.said)
    assert "[12/12] FD, seed 2: test ndcg@10" in said and "about" in said and str(file.stem) in said


def test_a_changed_key_is_run_anew_and_it_is_said_why(compare, counted):
    compare(["FreqD", "FD"], seeds=[1])
    del counted[:]
    compare(["FreqD", "FD"], seeds=[1], keys={"fd_beta": 0.25})
    assert counted == [("FD", 1)]
    assert any(re.search(r"FD, seed 1: anew, .* fd_beta was 1.0, is 0.25", x) for x in compare.said)
    del counted[:]
    compare(["FD"], seeds=[1], keys={"teacher": {**TEACHER, "embedding_size": 6}})
    assert counted == [("FD", 1)]  # the student alone has no teacher that could have changed


def test_changed_data_is_another_comparison(compare, counted, tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / "data")
    keys = {"data_path": str(tmp_path / "data")}
    compare(["FD"], seeds=[1])
    del counted[:]
    compare(["FD"], seeds=[1], keys=keys)
    assert counted == []  # the same files in another place
    with open(tmp_path / "data" / "tiny" / "tiny.inter", "a") as file:
        file.write("u0\ti39\nu1\ti39\n")
    compare(["FD"], seeds=[1], keys=keys)
    assert counted == [(None, 1), ("FD", 1)]
    assert any("data changed" in line for line in compare.said)


def test_a_teacher_that_is_trained_again_to_the_same_weights_is_the_same(compare, tmp_path):
    compare(["FD"], seeds=[1])
    shutil.rmtree(tmp_path / "saved")
    cells = compare(["FD", "FreqD"], seeds=[1])["cells"]
    hashes = {cells[what][0]["teacher_hash"] for what in ("teacher", "FD", "FreqD")}
    assert len(hashes) == 1 and None not in hashes
    assert cells["alone"][0]["teacher_hash"] is None


@pytest.mark.parametrize("weights", [("a", "a", "b"), ("a", None, "b")])
def test_teachers_of_one_name_and_other_weights_are_refused(weights):
    records = shared(("t.pth", "t.pth", "t.pth"), weights)
    with pytest.raises(ConfigError, match="seed 7 had different teachers: .*FreqD: t.pth, weights"):
        check_shared_teacher(records)


def test_teachers_of_older_cells_go_by_the_name_of_their_file():
    check_shared_teacher(shared(("saved/t.pth", "t.pth", "moved/t.pth"), ("a", None, "a")))
    check_shared_teacher(shared(("t.pth", "s.pth", "t.pth"), ("a", "a", "a")))
    with pytest.raises(ConfigError, match="seed 7 had different teachers"):
        check_shared_teacher(shared(("t.pth", "s.pth", "t.pth"), ("a", None, "a")))


def shared(files, weights):
    """Records of a teacher and two methods; without weights they are of an older version."""
    records = [
        {"what": what, "seed": 7, "teacher": file, "teacher_hash": hashed}
        for what, file, hashed in zip(("teacher", "FD", "FreqD"), files, weights)
    ]
    return [{key: each[key] for key in each if each[key] is not None} for each in records]


@pytest.fixture
def untrained(monkeypatch):
    """Cells are run without training; ``(what, seed)`` of each that was."""
    ran = []

    def run(cell, metric, hindrance=None):
        ran.append((cell.what, cell.seed))
        teacher = None if cell.what == "alone" else f"teacher-{cell.seed}.pth"
        return a_run(0.3, teacher=teacher, teacher_hash=teacher, size_mb=1.0), None

    monkeypatch.setattr(comparison, "run_cell", run)
    return ran


def test_what_another_process_is_at_is_left_for_the_end_and_with_a_teacher_all_it_teaches(
    compare, untrained, monkeypatch
):
    """The other process is at the teacher of seed 1, and ends while we run FD of seed 2."""
    other, make, run = ExitStack(), comparison.cell_of, comparison.run_cell
    store, held = CellStore(compare.folder / "cells", print), []

    def cell_of(base, what, methods, seed, frozen):
        cell = make(base, what, methods, seed, frozen)
        if (what, seed) == ("teacher", 1):
            held.append(cell)
            assert other.enter_context(store.working_on(cell.name, wait=False))
        return cell

    def run_cell(cell, *rest):
        if (cell.what, cell.seed) == ("FD", 2):
            record = store.record_of(held[0], *run(held[0], *rest))
            store.keep(held[0].name, record, "cpu")
            del untrained[-1]
            other.close()
        return run(cell, *rest)

    monkeypatch.setattr(comparison, "cell_of", cell_of)
    monkeypatch.setattr(comparison, "run_cell", run_cell)
    results = compare(["FD"])
    of_a_teacher = ("cut", "warm", "FD")
    assert untrained == [
        *(("alone", 1), ("teacher", 2), ("alone", 2)),
        *((what, seed) for seed in (2, 1) for what in of_a_teacher),
    ]
    assert (
        results["failed"] == [] and [len(found) for found in results["cells"].values()] == [2] * 5
    )
    assert any("[10/10] FD, seed 1" in line for line in compare.said)
    assert not list((compare.folder / "cells").glob("*.lock"))


def test_runs_of_another_commit_are_taken_and_mentioned_in_a_line(compare, untrained):
    compare(["FD"], seeds=[1])
    assert not [line for line in compare.said if "other commits" in line]
    (file,) = (compare.folder / "cells").glob("FD-1-*.json")
    record = json.loads(file.read_text())
    record["made_with"]["commit"] = "abc"
    file.write_text(json.dumps(record))
    compare(["FD"], seeds=[1])
    (line,) = [line for line in compare.said if "other commits" in line]
    assert "1 of the finished runs come from other commits of this package: abc (1);" in line
    assert len(untrained) == 5


def test_what_was_interrupted_goes_on(compare, counted, monkeypatch):
    run, failing = runs.run, [True]

    def broken(config, **options):
        if config["trainer"] == "FD" and failing[0]:
            raise KeyboardInterrupt
        return run(config, **options)

    monkeypatch.setattr(runs, "run", broken)
    with pytest.raises(KeyboardInterrupt):
        compare(seeds=[1])
    assert counted == [(None, 1), ("FreqD", 1)]
    failing[0] = False
    results = compare(seeds=[1])
    assert counted == [(None, 1), ("FreqD", 1), ("FD", 1)]
    assert [row["test"]["ndcg@10"]["sd"] for row in results["table"]] == [None] * 7


def test_a_run_that_fails_stops_no_other_is_named_and_is_tried_again(compare, counted, monkeypatch):
    run, failing = runs.run, [("FreqD", 2), ("FD", 1), ("FD", 2)]

    def broken(config, **options):
        if (config["trainer"], config["seed"]) in failing:
            raise (
                CheckpointError("no checkpoint")
                if config["seed"] == 1
                else RuntimeError("bad\nluck")
            )
        return run(config, **options)

    monkeypatch.setattr(runs, "run", broken)
    results = compare(["FreqD", "FD", "FTD"])
    assert results["failed"] == [
        {"what": "FD", "seed": 1, "error": "no checkpoint"},
        {"what": "FreqD", "seed": 2, "error": "RuntimeError: bad luck"},
        {"what": "FD", "seed": 2, "error": "RuntimeError: bad luck"},
    ]
    assert results["reference"] == "FTD"  # FreqD lacks a seed
    lines = {line[0]: line for line in table_lines(results)}
    place = lines[""].index("rank")
    assert [lines[name][place] for name in ("FreqD", "FD")] == ["failed", "failed"]
    whole = ("student alone", "teacher cut to size", "student alone, warm", "FTD")
    assert {lines[name][place] for name in whole} <= {"1", "2", "3", "4"}
    assert len(results["cells"]["FreqD"]) == 1 and results["cells"]["FD"] == []
    text = next(compare.folder.glob("results-*.md")).read_text()
    assert "FD, seed 1, failed: no checkpoint" in text
    (note,) = (compare.folder / "cells").glob("FD-1-*.failed")
    assert "Traceback" in note.read_text() and "CheckpointError: no checkpoint" in note.read_text()

    del failing[:], counted[:]
    results = compare(["FreqD", "FD", "FTD"])
    assert counted == [("FD", 1), ("FreqD", 2), ("FD", 2)] and results["failed"] == []
    assert results["reference"] == "FreqD" and not list((compare.folder / "cells").glob("*.failed"))


def test_what_a_failed_teacher_would_have_taught_has_failed_with_it(compare, counted, monkeypatch):
    def broken(config, *data):
        raise RuntimeError("no teacher")

    monkeypatch.setattr("recbole_freqd.jobs.comparison.plan.find_teacher", broken)
    results = compare(["FD"], seeds=[1])
    assert counted == [(None, 1)]
    assert [each["what"] for each in results["failed"]] == ["teacher", "cut", "warm", "FD"]
    for each in results["failed"][1:]:
        assert "The teacher of seed 1 failed: RuntimeError: no teacher" in each["error"]
    monkeypatch.setattr(runs, "run", broken)
    with pytest.raises(TrainingError, match="No run finished. The first error: Runtime"):
        compare(["FD"], seeds=[2])


def test_the_script_ends_with_an_error_where_a_run_failed(tiny_data, tmp_path, host, capsys):
    """HetComp without a checkpoint from before the teacher's best epoch."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"data_path: {tiny_data}\nload_col: {{inter: [user_id, item_id]}}\nembedding_size: 4\n"
        "epochs: 1\ntrain_batch_size: 64\nhetcomp_k: 5\n"
        "teacher: {model: BPR, embedding_size: 8, epochs: 2, keep_every: 50}\n"
    )
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", str(file), "--state=ERROR"]
    assert main([*arguments, "compare", "HetComp,FD", "--seeds", "5"]) == 2
    said = capsys.readouterr()
    assert "Failed: HetComp, seed 5. All other runs are finished and kept" in said.err
    assert "HetComp, seed 5, failed: HetComp follows the teacher's training" in said.out


def test_ranks_and_seeds_won_go_by_what_rounding_hides():
    results = some_results()
    cells = {**results["cells"], "FD": [a_run(0.35)]}  # as good as FreqD to four decimals
    users = {
        what: [(names(*"ab"), np.full(2, cells[what][0]["test"]["ndcg@10"]))] for what in cells
    }
    users["FD"][0][1][:] += 1e-5
    table = {row["what"]: row for row in summarise(cells, users, "FreqD", "ndcg@10")}
    assert (table["FD"]["rank"], table["FreqD"]["rank"]) == (2, 3)
    assert table["FD"]["against"]["wins"] == 1


def test_a_run_that_was_interrupted_goes_on_inside_with_resume(compare, monkeypatch):
    from recbole_freqd.trainer.fold import Distillation

    begin, epochs, failing = Distillation.begin_epoch, [], [True]

    def broken(self, epoch):
        if not self.distiller.losses:  # the student alone, warm
            return begin(self, epoch)
        epochs.append(epoch)
        if epoch == 2 and failing[0]:
            raise KeyboardInterrupt
        begin(self, epoch)

    monkeypatch.setattr(Distillation, "begin_epoch", broken)
    keys = {"epochs": 3, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        compare(["FD"], seeds=[1], keys=keys)
    failing[0] = False
    resumed = compare(["FD"], seeds=[1], keys=keys)
    assert epochs == [0, 1, 2, 2] and resumed["table"][-1]["epochs"] == 3
    for file in (compare.folder / "cells").glob("FD-*"):
        file.unlink()
    again = compare(["FD"], seeds=[1], keys={"epochs": 3})
    assert epochs == [0, 1, 2, 2, 0, 1, 2]
    assert again["cells"]["FD"][0]["test"] == resumed["cells"]["FD"][0]["test"]


def test_losses_add_up_under_one_name_and_the_first_named_is_the_reference(compare):
    results = compare(["FD+FreqD", "fd"], seeds=[1])
    assert results["methods"] == ["FD+FreqD", "FD"] and results["reference"] == "FD+FreqD"
    assert results["configs"]["FD+FreqD"]["trainer"] == ["FD", "FreqD"]
    assert list((compare.folder / "cells").glob("FD+FreqD-1-*.json"))


def test_without_ndcg_at_10_the_metric_of_validation_decides(compare):
    keys = {"metrics": ["Recall"], "topk": [5], "valid_metric": "Recall@5"}
    results = compare(["FD"], seeds=[1], keys=keys)
    assert results["metric"] == "recall@5"
    keys = {"metrics": ["ItemCoverage"], "topk": [5], "valid_metric": "ItemCoverage@5"}
    with pytest.raises(ConfigError, match="Add NDCG to metrics and 10 to topk"):
        compare(["FD"], seeds=[1], keys=keys)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["FreqX"], "Unknown trainer 'FreqX'. Did you mean 'FreqD'?"),
        (["FD", "fd"], "got FD twice"),
        (["FD+FreqD", "FreqD+FD"], "got FreqD\\+FD twice"),
        (["FD", ""], "got ''; allowed: names of trainers"),
        ([], "got no method"),
    ],
)
def test_methods_that_are_none_are_refused(methods, message):
    with pytest.raises(ConfigError, match=message):
        read_methods(methods)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], ["a"], [True]])
def test_seeds_are_whole_numbers_and_each_is_there_once(seeds):
    with pytest.raises(ConfigError, match="--seeds: got .* allowed: whole numbers"):
        check_seeds(seeds, "--seeds")


def test_a_trainer_or_seed_of_the_config_is_not_passed_over_in_silence(compare, counted):
    nothing_to_test = {"metrics": ["ItemCoverage"], "topk": [5], "valid_metric": "ItemCoverage@5"}
    for keys, words in (({"trainer": "DE", "seed": 7}, "trainer: DE, seed: 7"), ({}, "")):
        with pytest.raises(ConfigError, match="Add NDCG to metrics"):
            compare(["FD"], keys={**nothing_to_test, **keys})
        assert len(compare.said) == bool(words) and words in "".join(compare.said)
    assert counted == []


def test_mistakes_are_found_before_the_first_run(compare, counted):
    with pytest.raises(ConfigError, match="there is no teacher"):
        compare(keys={"teacher": None})
    with pytest.raises(ConfigError, match="fd_beta: got -1"):
        compare(keys={"fd_beta": -1})
    with pytest.raises(ConfigError, match="Unknown key 'teacher.embedding_sise'"):
        compare(keys={"teacher": {**TEACHER, "embedding_sise": 3}})
    assert counted == []


# --- baselines, members, rows of a file -----------------------------------------------------


def test_every_row_has_bytes_coverage_gini_and_seconds_and_the_warm_one_is_not_below_the_cut(
    compare,
):
    results = compare(["FreqD", "FreqRank"], seeds=[1])
    (file,) = compare.folder.glob("results-*.json")
    assert json.loads(file.read_text())["cells"] == results["cells"]
    for what, (cell,) in results["cells"].items():
        assert cell["bytes_per_entity"] > 0 and 0 < cell["coverage"] <= 1 and 0 <= cell["gini"] < 1
        assert cell["role"] and cell["label"] and Path(cell["checkpoint"]).is_file(), what
    cells = {what: found[0] for what, found in results["cells"].items()}
    assert cells["warm"]["valid"]["ndcg@10"] >= cells["cut"]["valid"]["ndcg@10"]
    assert cells["cut"]["epochs"] == 0 and cells["warm"]["epochs"] == 1
    assert cells["cut"]["seconds_all_in"] > 0 and cells["cut"]["bytes_per_entity"] == 16
    assert (cells["teacher"]["bytes_per_entity"], cells["teacher_int8"]["bytes_per_entity"]) == (
        32,
        12,
    )
    table = {row["what"]: row for row in results["table"]}
    assert table["cut"]["rank"] and table["warm"]["against"] and not table["teacher_int8"]["rank"]
    assert table["teacher"]["share"] == 1 and table["teacher_int8"]["share"] > 0.9
    head, *body = table_lines(results)
    assert {"share", "B/entity", "coverage", "gini", "s all in"} <= set(head)
    assert "teacher in int8" in {line[0] for line in body}
    # FreqRank has its own defaults in a comparison, whatever the others have
    assert results["configs"]["FreqRank"]["warm_start"] == "lists"
    assert results["configs"]["FreqD"]["warm_start"] == "none"


def test_the_members_of_a_team_have_rows_and_int8_is_left_out_with_the_reason(compare):
    team = [dict(TEACHER), {"model": "ShrunkKNN"}]
    results = compare(["FD"], seeds=[1, 2], keys={"teacher": team, "teacher_weights": [1, 1]})
    table = {row["what"]: row for row in results["table"]}
    assert list(table)[:3] == ["teacher", "member BPR", "member ShrunkKNN"]
    assert "teacher_int8" not in table and table["member BPR"]["test"]["ndcg@10"]["sd"] is not None
    assert table["member BPR"]["rank"] is None and table["member BPR"]["share"] > 0
    assert table_lines(results)[1][0] == "team"
    assert "Weights in the team: BPR 0.5, ShrunkKNN 0.5." in describe_outcome(results)
    assert (
        "Left out: teacher in int8, since the team's scores are not products"
        in describe_outcome(results)
    )


def test_a_student_that_cannot_start_warm_has_no_row_of_that_and_it_is_said_why(
    host, tiny_keys, tmp_path
):
    said, keys = [], {**tiny_keys, "valid_metric": "NDCG@10", "epochs": 1, "teacher": dict(TEACHER)}
    del keys["embedding_size"]
    results = recbole_freqd.compare(
        ["FD"], "MultiVAE", "tiny", config_dict={**keys, "train_neg_sample_args": None},
        seeds=[1], output_dir=str(tmp_path / "out"), say=said.append,
    )  # fmt: skip
    assert [row["what"] for row in results["table"]] == ["teacher", "teacher_int8", "alone", "FD"]
    assert any("Left out: teacher cut to size" in line for line in said)


def test_rows_of_a_file_have_keys_of_their_own_and_may_have_another_teacher(compare, tmp_path):
    file = tmp_path / "rows.yaml"
    knn = {"trainer": "FreqRank", "teacher": {"model": "ShrunkKNN"}, "teacher_filter": "none"}
    rows = {"by neighbours": knn, "plain/FreqRank": {"trainer": "FreqRank", "warm_start": "none"}}
    file.write_text(yaml.safe_dump(rows))
    results = compare(["FreqRank"], seeds=[1], rows=str(file))
    cells = {what: found[0] for what, found in results["cells"].items()}
    assert results["methods"] == ["FreqRank", "by neighbours", "plain/FreqRank"]
    assert "ShrunkKNN" in cells["by neighbours"]["teacher"]
    assert cells["FreqRank"]["teacher_hash"] == cells["plain/FreqRank"]["teacher_hash"]
    assert cells["FreqRank"]["teacher_hash"] == cells["teacher"]["teacher_hash"]
    assert cells["by neighbours"]["teacher_hash"] != cells["teacher"]["teacher_hash"]
    assert results["configs"]["plain/FreqRank"]["warm_start"] == "none"
    assert results["configs"]["by neighbours"]["teacher"] == {"model": "ShrunkKNN"}
    tested = {row["what"]: row["against"] for row in results["table"] if row["against"]}
    assert {"by neighbours", "plain/FreqRank", "cut"} <= set(tested)
    own = cells["teacher of by neighbours"]
    assert own["model"] == "ShrunkKNN" and own["test"]["ndcg@10"] > 0
    assert own["teacher_hash"] == cells["by neighbours"]["teacher_hash"]
    shown = {row["what"]: row for row in results["table"]}
    assert shown["teacher of by neighbours"]["role"] == "teacher"
    assert shown["teacher of by neighbours"]["rank"] is None
    assert "teacher of plain/FreqRank" not in shown  # it has the teacher of all others
    again = compare(["FreqRank"], seeds=[1], rows=str(file))
    assert "7 of them finished already" in compare.said[0] and again["cells"] == results["cells"]


def test_a_team_of_rows_of_a_file_is_shown_once_without_the_members_that_are_shown_already(
    compare, tmp_path
):
    file = tmp_path / "rows.yaml"
    team = {"teacher": [dict(TEACHER), {"model": "ShrunkKNN"}], "teacher_weights": [3, 1]}
    rows = {name: {"trainer": name, "teacher_filter": "none", **team} for name in ("FD", "FTD")}
    file.write_text(yaml.safe_dump({f"{name} by two": row for name, row in rows.items()}))
    results = compare(["FD"], seeds=[1, 2], rows=str(file))
    table = [row["what"] for row in results["table"]]
    both = "FD by two, FTD by two"
    assert [what for what in table if " of " in what] == [
        f"teacher of {both}", f"member ShrunkKNN of {both}",
    ]  # fmt: skip
    assert f"team of {both}" in [line[0] for line in table_lines(results)]
    words = describe_outcome(results)
    assert f"Weights in the team of {both}: BPR 0.75, ShrunkKNN 0.25." in words
    assert results["methods"] == ["FD", "FD by two", "FTD by two"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("teacher of FD: {trainer: FreqD}", "another row has the name teacher of FD"),
        ("x: {teacher: {model: BPR}}", "allowed: keys that include trainer"),
        ("x: FreqD", "allowed: keys that include trainer"),
        ("cut: {trainer: FreqD}", "another row has the name cut"),
        ("FD: {trainer: FreqD}", "a method has the name FD"),
        ("x: {trainer: FreqD, seed: 3}", "x sets seed. That key has to be the same for all"),
        ("x: {trainer: FreqX}", "Unknown trainer 'FreqX'"),
        ("x: {trainer: FreqD, epochs: 7}", "x sets epochs. That key has to be the same for all"),
    ],
)
def test_rows_that_cannot_be_are_refused_before_any_run(compare, counted, tmp_path, row, message):
    file = tmp_path / "rows.yaml"
    file.write_text(row)
    with pytest.raises(ConfigError, match=message):
        compare(["FD"], seeds=[1], rows=str(file))
    assert counted == []


# --- the script ------------------------------------------------------------------------------


def test_the_script_compares(tiny_data, tmp_path, host, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"data_path: {tiny_data}\nload_col: {{inter: [user_id, item_id]}}\ntrainer: FD\n"
        "embedding_size: 4\nepochs: 2\ntrain_batch_size: 64\n"
        "teacher: {model: BPR, embedding_size: 8, epochs: 2}\n"
    )
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", str(file), "--state=ERROR"]
    assert main([*arguments, "compare", "FreqD,FD", "--seeds", "5", "--fd_beta=0.5"]) == 0
    (results,) = tmp_path.glob("freqd_runs/compare-tiny-BPR/results-*.json")
    configs = json.loads(results.read_text())["configs"]
    assert configs["FD"]["fd_beta"] == 0.5
    # what the main job has tuned for FreqD is not used: nobody else's keys are tuned
    assert configs["FreqD"]["freqd_projector"] == "mlp" and configs["FreqD"]["freqd_beta"] == 1.0
    said = capsys.readouterr().out
    assert "student alone" in said and "The comparison ignores of the config: trainer: FD." in said
    assert main([*arguments, "compare", "FreqX"]) == 2
    assert "Unknown trainer 'FreqX'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tune", "3"], "--tune goes with compare"),
        (["--tune=3"], "--tune goes with compare"),
        (["--seeds", "1,2"], "--seeds goes with compare or sweep"),
        (["compare", "FD", "--seeds", "a"], "got 'a'; allowed: 2020,2021 or 2020-2024"),
        (["compare", "FD", "--seeds", "2024-2020"], "got '2024-2020'; allowed: 2020,2021 or"),
        (["compare", "FD,,DE"], "got 'FD,,DE'; allowed: names between commas"),
        (["sweep", "freqd_k=5,10", "--seeds", "2-1"], "got '2-1'; allowed: 2020,2021 or"),
        (["compare", "FD", "tune", "FD"], "'tune' is not of the form --key=value"),
        (["tune"], "arguments are required: SPACE"),
        (["--max_evals", "3"], "--max_evals goes with tune"),
        (["compare", "FD", "--tune", "3", "--algo=random"], "--algo goes with tune"),
        (["sweep", "freqd_k=5,10", "--tool", "ray"], "--tool goes with tune"),
        (["--keep_checkpoints"], "--keep_checkpoints goes with tune"),
        (["tune", "FD", "--overwrite"], "--overwrite goes with export"),
        (["-m", "BPR", "export", "a.pth"], "export takes no --model"),
        (["--resume", "sweep", "freqd_k=5,10"], "sweep takes no --resume"),
        (["analyze", "a.pth", "--nproc=2"], "--nproc goes with a call without a command"),
    ],
)
def test_options_that_do_not_go_together_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "form"),
    [
        ("compare", "compare FreqD,FD"),
        ("hyper", "tune SPACE"),
        ("sweep", "sweep KEY=VALUES"),
        ("analyze", "analyze STUDENT.pth,... --teacher"),
        ("export", "export STUDENT.pth --out DIR"),
    ],
)
def test_a_flag_of_earlier_versions_names_the_command_of_today(flag, form, capsys):
    for words in ([f"--{flag}", "a"], [f"--{flag}=a"], ["-m", "BPR", f"--{flag}"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"--{flag} is a command now: run_recbole_freqd {form}" in said


@pytest.mark.parametrize(
    ("command", "own", "others"),
    [
        ("compare", {"--seeds", "--tune", "--frozen", "--model", "--resume"}, {"--algo", "--out"}),
        ("tune", {"--algo", "--tool", "--max_evals", "--dataset"}, {"--seeds", "--resume"}),
        ("sweep", {"--seeds", "--config_files"}, {"--tune", "--out", "--nproc"}),
        ("analyze", {"--teacher", "--bands", "--output_dir"}, {"--model", "--seeds"}),
        ("export", {"--out", "--histories"}, {"--model", "--output_dir", "--nproc"}),
    ],
)
def test_a_commands_help_lists_what_it_takes_and_nothing_else(command, own, others, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    options = set(re.findall(r"^  (?:-\w \w+, |-\w, )?(--\w+)", capsys.readouterr().out, re.M))
    assert own <= options and not others & options and "--help" in options


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "NeuMF", "--output_dir", "tune", "compare", "FD", "--embedding_size=3"],
        ["--embedding_size=3", "compare", "FD", "--output_dir", "tune", "-m", "NeuMF"],
        ["compare", "--output_dir=tune", "-mNeuMF", "--embedding_size=3", "FD"],
        ["--embedding_size= 3", "compare", "FD", "-m", "NeuMF", "--output_dir", "tune"],
        ["--embedding_size= 3", "-m", "NeuMF", "compare", "FD", "--output_dir=tune"],
        ["compare", "--embedding_size= 3", "FD", "-m", "NeuMF", "--output_dir", "tune"],
    ],
)
def test_what_a_command_takes_may_stand_before_or_after_its_name(words):
    options, keys = parse(words)
    assert (options.command, options.methods, options.model) == ("compare", ["FD"], "NeuMF")
    assert options.output_dir == "tune"
    assert [key.replace(" ", "") for key in keys] == ["--embedding_size=3"]


@pytest.mark.parametrize("tune", [None, 2])
def test_failed_trials_are_an_error_of_the_search_not_of_who_takes_its_file(
    host, monkeypatch, tune
):
    failed = {"FD": {"runs": 1, "error": "none left"}}
    monkeypatch.setattr(comparing, "compare", lambda *given, **options: some_results(failed=failed))
    arguments = ["compare", "FD", *(["--tune", "2"] if tune else ["--frozen", "frozen.yaml"])]
    options, keys = parse(arguments)
    if tune is None:
        comparing.run(options, keys)
    else:
        with pytest.raises(TrainingError, match="Failed: 1 trial runs of FD. All other runs are"):
            comparing.run(options, keys)


# --- table, words, plot ----------------------------------------------------------------------


def a_run(ndcg, **fields):
    metrics = {"recall@10": 0.5, "ndcg@10": ndcg}
    row = {"model": "BPR", "parameters": 9, "valid": metrics, "test": metrics, "epochs": 3}
    return {**row, "seconds_per_epoch": 0.5, **fields}


def some_results(teacher=0.5, failed=None):
    values = {"teacher": teacher, "alone": 0.2, "FreqD": 0.35, "FD": 0.3, "DE": 0.36}
    users = {
        what: [(names(*"abcdefgh"), value + 0.01 * np.arange(8) * (-1) ** np.arange(8) * (what == "DE"))]
        for what, value in values.items()
    }  # fmt: skip
    cells = {what: [a_run(value)] for what, value in values.items()}
    cells["teacher"][0]["epochs"] = cells["teacher"][0]["seconds_per_epoch"] = None
    return {
        "dataset": "tiny", "model": "BPR", "teacher_model": "BPR", "metric": "ndcg@10",
        "reference": "FreqD", "seeds": [1], "cells": cells, "common": {"epochs": 3},
        "tuning": failed and {"trials": 2, "seeds": [1], "tuned": ["FD"], "failed": failed},
        "configs": {"FD": {"fd_beta": 0.3}}, "teacher": {"model": "BPR"}, "version": "0",
        "commits": ["abc"], "cells_folder": "cells", "failed": [], "left_out": {},
        "table": summarise(cells, users, "FreqD", "ndcg@10"),
    }  # fmt: skip


def test_the_table_has_rank_gap_difference_and_time_and_blanks_where_there_is_nothing():
    head, *body = table_lines(some_results())
    table = {line[0]: dict(zip(head, line)) for line in body}
    assert list(table) == ["teacher", "student alone", "FreqD", "FD", "DE"]
    assert [table[name]["rank"] for name in table] == ["", "4", "2", "3", "1"]
    assert [table[name]["gap closed"] for name in table] == ["", "", "50%", "33%", "52%"]
    assert table["FD"]["Δ to FreqD"] == "-0.0500" and table["FD"]["p (Holm)"] == "< 0.001"
    assert table["FD"]["seeds won"] == "0 of 1" and table["DE"]["seeds won"] == "1 of 1"
    assert table["FreqD"]["Δ to FreqD"] == table["FreqD"]["p (Holm)"] == ""
    assert table["teacher"]["epochs"] == table["teacher"]["s / epoch"] == ""
    assert table["FD"]["test ndcg@10"] == "0.3000" and table["FD"]["s / epoch"] == "0.50"


def test_the_words_say_who_is_first_also_when_it_is_another():
    words = describe_outcome(some_results())
    assert "First by mean test ndcg@10: DE. FreqD is number 2 of 4." in words
    assert "FreqD is better than student alone, FD; not told apart from DE." in words
    assert "no gap" not in words
    without_gap = some_results(teacher=0.1)
    assert "There is no gap to close" in describe_outcome(without_gap)
    assert "Tuning: none" in markdown(without_gap)
    failed = some_results()  # no method has a gap then, but there is one
    for row in failed["table"]:
        row["gap_closed"] = None
    assert "no gap" not in describe_outcome(failed)
    for row in without_gap["table"][:2]:  # a mean over other seeds says nothing of a gap
        row["failed"] = True
        assert "no gap" not in describe_outcome(without_gap)
        row["failed"] = False


def test_a_teacher_that_cannot_be_tested_leaves_its_cells_blank():
    results = some_results()
    cells = {**results["cells"], "teacher": [a_run(0.5, test={}, valid={})]}
    users = {what: [None] for what in cells}
    table = summarise(cells, users, "FreqD", "ndcg@10")
    assert table[0]["test"] == {} and table[2]["gap_closed"] is None and table[3]["against"] is None
    assert table_lines({**results, "table": table})[1][2:6] == ["", "", "", ""]
    assert "There is no gap" not in describe_outcome({**results, "table": table})


def test_the_plot_is_made(tmp_path):
    pytest.importorskip("matplotlib")
    axes = comparison_figure(some_results()).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["student alone", "FD", "FreqD", "DE", "teacher"]
    assert "NDCG@10" in axes.get_xlabel() and axes.get_ylabel()
    for kind in ("png", "svg"):
        comparison_plot(some_results(), tmp_path / f"a.{kind}")
        assert (tmp_path / f"a.{kind}").stat().st_size > 1000


def test_without_matplotlib_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'A plot needs .*pip install "recbole_freqd\[plot\]"'):
        comparison_plot(some_results(), tmp_path / "a.png")
    assert not list(Path(tmp_path).glob("*.png"))
