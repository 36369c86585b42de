"""The scripts that make pages from results/: what they show of rows, old ones and new ones."""

import importlib
import re

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


def test_a_row_is_drawn_at_its_own_bytes_and_else_at_those_of_its_width(script, comparison):
    assert [comparison.bytes_per_entity(what) for what in ("teacher", "alone", "int8")] == [
        256, 32, 10,
    ]  # fmt: skip
    picture = script("make_picture").draw(comparison)
    assert picture.count("<circle") == len(comparison.rows)
    for words in (">int8  0.4000<", ">teacher  0.5000<", ">10<", ">32<", ">256<"):
        assert words in picture
    places = dict(
        re.findall(r'<text x="([\d.]+)" y="[\d.]+" fill="#\w+" .*?>(10|32|256)<', picture)
    )
    assert [places[x] for x in sorted(places, key=float)] == ["10", "32", "256"]


def test_names_of_equal_quality_do_not_lie_on_each_other(script, comparison):
    picture = script("make_picture").draw(comparison)
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" .*?>\S.*  0\.\d{4}<', picture)
    for x in {x for x, _ in labels}:
        heights = sorted(float(y) for at, y in labels if at == x)
        assert all(low + 14 < high for low, high in zip(heights, heights[1:]))


def test_the_short_table_has_eight_rows_the_ends_ours_and_the_best(script, comparison):
    make = script("make_results")
    whats = make.shorten(make.order([comparison]))
    assert whats == ["teacher", "int8", "M2", "M3", "FreqRank", "FreqD", "FD", "alone"]
    table = make.table([comparison], whats, "page.md")
    assert "[d<br>BPR 64 → BPR 8<br>a note](page.md#section)" in table
    assert "| int8 | **0.4000** |" in table and "| **FreqD** | 0.1900 |" in table


def test_a_page_without_its_marks_is_an_error(script):
    put = script("results_files").put_between
    page = "a\n<!-- made: x, by `make docs` -->\nold\n<!-- end of x -->\nb"
    assert "old" not in put(page, "x", "new") and put(page, "x", "new").endswith("\nb")
    with pytest.raises(RuntimeError, match="one line"):
        put(page, "y", "new")
