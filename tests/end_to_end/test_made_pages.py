"""The scripts that make pages from results/: what they show of rows, old ones and new ones."""

import importlib
import json
import re
from dataclasses import replace

import pytest

from tests.support.doc_blocks import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module


@pytest.fixture
def comparison(script):
    def row(what, value, rank, **more):
        test = {"ndcg@10": {"mean": value}}
        return {"what": what, "test": test, "rank": rank, "gap_closed": None, **more}

    rows = [
        row("teacher", 0.5, None),
        row("alone", 0.1, 12),
        row("int8", 0.4, 1, bytes_per_entity=10),
    ]
    rows += [row(f"M{rank}", 0.4 - rank / 100, rank) for rank in range(2, 9)]
    rows += [row(name, 0.2 - n / 100, 9 + n) for n, name in enumerate(("FreqRank", "FreqD", "FD"))]
    results = {
        "dataset": "d", "model": "BPR", "teacher_model": "BPR", "table": rows,
        "teacher": {"embedding_size": 64}, "common": {"embedding_size": 8},
    }  # fmt: skip
    return script("results_files").Comparison(results, "section", "a note")


def test_a_row_is_drawn_at_the_bytes_of_its_width(script, rows):
    picture = script("make_picture")
    points = picture.points_of(rows)
    assert {name: size for name, (size, _) in points.items()} == {
        "BPR": 256, "FreqRank by the team": 32, "alone": 32,
    }  # fmt: skip
    drawn = picture.draw(points, "a title")
    assert drawn.count("<circle") == 3
    for words in (">student alone  0.1000<", ">teacher (BPR)  0.2000<", ">32<", ">256<"):
        assert words in drawn


def test_names_of_equal_quality_do_not_lie_on_each_other(script):
    points = {f"M{n}": (32.0, 0.4 + n / 1e4) for n in range(6)} | {"alone": (16.0, 0.1)}
    drawn = script("make_picture").draw(points, "a title")
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" .*?>\S.*  0\.\d{4}<', drawn)
    assert len(labels) == 7
    for x in {x for x, _ in labels}:
        heights = sorted(float(y) for at, y in labels if at == x)
        assert all(low + 14 < high for low, high in zip(heights, heights[1:]))


def test_a_column_of_many_names_makes_the_picture_higher_and_none_lies_below_its_floor(script):
    picture = script("make_picture")
    points = {f"M{n}": (80.0, 0.1 + n / 1e5) for n in range(40)} | {"alone": (24.0, 0.5)}
    drawn, floor = picture.draw(points, "a title"), picture.Axes(points).floor
    assert floor > picture.LOWEST
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" [^>]*>M\d+  ', drawn)]
    assert len(heights) == 40 and max(heights) < floor and min(heights) > picture.TOP - picture.LINE
    assert picture.spread_out([10.0, 12.0, 99.0], 15, 96) == [10.0, 25.0, 96.0]


def test_a_long_name_does_not_reach_the_next_column(script):
    picture = script("make_picture")
    points = {"6d": (24.0, 0.3), "20d": (80.0, 0.2), "teacher": (512.0, 0.4)}
    at = picture.Axes(points).columns
    assert min(at[80.0] - at[24.0], at[512.0] - at[80.0]) >= picture.NAME
    assert at[24.0] > picture.LEFT and at[512.0] <= picture.WIDTH - picture.RIGHT


def test_there_is_a_picture_for_every_dataset_that_has_runs(script, monkeypatch, rows):
    picture = script("make_picture")
    monkeypatch.setattr(picture, "read_rows", lambda: [rows, replace(rows, dataset="e")])
    drawn = picture.pages()
    assert [file.name for file in drawn] == ["quality-size-d.svg", "quality-size-e.svg"]
    assert "d: test NDCG@10, mean of 2 seeds" in drawn[picture.picture_of("d")]
    assert "docs/images/quality-size-d.svg" in script("make_rows").section(rows)


def test_the_table_of_comparisons_has_the_teacher_first_and_the_student_alone_last(
    script, comparison
):
    make = script("make_results")
    whats = make.order([comparison])
    assert (whats[0], whats[1], whats[-1]) == ("teacher", "int8", "alone")
    table = make.table([comparison], whats, "page.md")
    assert "[d<br>BPR 64 → BPR 8<br>a note](page.md#section)" in table
    assert "| int8 | **0.4000** |" in table and "| **FreqD** | 0.1900 |" in table


@pytest.fixture
def rows(script, tmp_path):
    """Rows of two seeds, and one that lacks a seed."""

    def result(value):
        metrics = {"ndcg@10": value, "itemcoverage@10": 0.5, "giniindex@10": 0.9}
        return {"valid": metrics, "test": metrics}

    def run(row, seed, value, **more):
        keys = {"embedding_size": 8, "epochs": 50, "teacher": {"embedding_size": 64}}
        return {"row": row, "seed": seed, "keys": keys, "epochs": 50, **result(value), **more}

    members = [{"name": "BPR", "weight": 0.4, **result(0.2)}]
    members += [{"name": "EASE", "weight": 0.6, **result(0.4)}]
    taught = {"members": members, "teacher_valid": result(0.5)["valid"]}
    taught["teacher_test"] = taught["teacher_valid"]
    runs = [run("FreqRank by the team", seed, 0.3 + seed / 10, **taught) for seed in (1, 2)]
    runs += [run("alone", seed, 0.1) for seed in (2, 1)] + [run("FreqD", 1, 0.9)]
    runs += [run("team without filter", seed, 0.3) for seed in (1, 2)]
    file = tmp_path / "d" / "runs.jsonl"
    file.parent.mkdir()
    file.write_text("".join(f"{json.dumps(one)}\n" for one in runs))
    return script("rows_files")._read(file)


def test_a_row_that_lacks_a_seed_is_in_no_table(script, rows):
    assert rows.seeds == (1, 2) and "FreqD" not in rows.students and rows.best == "EASE"
    text = script("make_rows").section(rows)
    assert "**0.4500 ± 0.0707**" in text and "| EASE, weight 0.60 |" in text and "FreqD" not in text
    assert "| alone | 32 | 0.1000 | 0.1000 ± 0.0000 | 0.500 | 0.250 |" in text


def test_what_a_part_is_worth_is_the_mean_over_pairs_of_one_seed(script, rows):
    text = script("make_rows").section(rows)
    assert "| the filter | 0.3000 ± 0.0000 | +0.1500 | 2 of 2 | 50 |" in text


def test_the_short_table_has_the_rows_there_are_and_shares_of_the_teacher(script, rows):
    lines = script("make_rows").short([rows]).strip().split("\n")
    assert len(lines) == 7  # two of the head; the teacher, the best, the team, and two students
    assert "| best single teacher | 0.4000 (2.00), EASE |" in lines
    assert "| **FreqRank by the team** | **0.4500 (2.25)** |" in lines


def test_a_dataset_without_teacher_or_student_alone_waits(script, rows, monkeypatch, tmp_path):
    files = script("rows_files")
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    monkeypatch.setattr(files, "DATASETS", ("d", "e"))
    runs = (tmp_path / "d" / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "e").mkdir()
    for kept, names in (("alone", ["d"]), ("FreqRank by", ["d"]), ("", ["d", "e"])):
        some = [line for line in runs if f'"row": "{kept}' in line]
        (tmp_path / "e" / "runs.jsonl").write_text("".join(some))
        assert [one.dataset for one in files.read_rows()] == names


def test_without_a_team_the_teacher_is_that_of_another_row(script, rows):
    students = {"alone": rows.students["alone"], "RCE-KD": rows.students["FreqRank by the team"]}
    assert script("rows_files")._teachers(students) == rows.teachers
    for run in students["RCE-KD"]:
        run["members"] = run["members"][:1]
    assert list(script("rows_files")._teachers(students)) == ["BPR"]
    assert script("rows_files")._teachers({"alone": students["alone"]}) == {}


@pytest.fixture
def shares(script, comparison, tmp_path, monkeypatch):
    """The table of shares of a dataset ``d``, from rows and a comparison."""
    made = script("shares")
    file = tmp_path / "published.yaml"
    file.write_text("source: A paper\nurl: https://x\nd: {M2: 58, RCE-KD: 95}\n")
    monkeypatch.setattr(made, "PUBLISHED", file)
    comparison.rows["M2"]["gap_closed"] = 0.37
    compared = replace(comparison, section="d")
    return lambda *rows: made.tables(list(rows), [compared]).splitlines()


def test_published_shares_stand_beside_those_of_the_comparison(shares):
    lines = shares()
    assert "[A paper](https://x)" in lines[0]
    config = "[comparisons/d](../results/comparisons/d/frozen.yaml)"
    assert lines[4:6] == [f"| M2 | 58 % | 37 % | {config} |", "| RCE-KD | 95 % | not run |  |"]


def test_new_rows_take_the_place_of_the_comparison_method_by_method(shares, rows):
    students = {**rows.students, "RCE-KD": rows.students["team without filter"]}
    lines = shares(replace(rows, students=students))
    config = "[rows](../experiments/rows/d.yaml)"
    assert lines[4].startswith("| M2 | 58 % | 37 % | [comparisons/d]")
    assert lines[5] == f"| RCE-KD | 95 % | 200 % | {config} |"
    assert lines[8] == f"| FreqRank by the team |  | 350 % | {config} |"


def test_where_the_teacher_is_no_better_than_the_student_alone_there_is_no_share(shares, rows):
    students = {**rows.students, "alone": rows.students["FreqRank by the team"]}
    students["RCE-KD"] = students["alone"]
    assert shares(replace(rows, students=students))[5].startswith("| RCE-KD | 95 % | no gap | [")


def test_a_page_without_its_marks_is_an_error(script):
    put = script("results_files").put_between
    page = "a\n<!-- made: x, by `make docs` -->\nold\n<!-- end of x -->\nb"
    assert "old" not in put(page, "x", "new") and put(page, "x", "new").endswith("\nb")
    with pytest.raises(RuntimeError, match="one line"):
        put(page, "y", "new")
