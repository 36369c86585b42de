"""report: tables and sentences say what is in the rows, no more."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recbole_freqd.jobs.tables import as_table, describe_gains, gap_closed, markdown_table

ndcg = st.floats(0.001, 1)


def a_row(role, ndcg_at_10, size_mb=1.0, latency=10.0, **fields):
    row = {
        "role": role,
        "trainer": "FreqD" if role == "distilled" else None,
        "model": "LightGCN" if role == "teacher" else "BPR",
        "parameters": 1234567,
        "size_mb": size_mb,
        "valid": {"ndcg@10": 0.9},
        "test": {"recall@10": 0.5, "ndcg@10": ndcg_at_10},
        "latency_ms_per_1k_users": latency,
        "seconds_per_epoch": 0.25,
        "checkpoint": "saved/a.pth",
    }
    return {**row, **fields}


@pytest.fixture
def rows():
    return [
        a_row("teacher", 0.25, size_mb=8.0, latency=30.0, seconds_per_epoch=None),
        a_row("student_alone", 0.20),
        a_row("distilled", 0.24),
    ]


def cells(line):
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


# --- gap -------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", [0.20, 0.19, 0.0])
def test_no_gap_is_closed_where_the_teacher_does_not_win(teacher):
    assert gap_closed(teacher, 0.20, 0.30) is None


@settings(deadline=None, database=None)
@given(teacher=ndcg, alone=ndcg, distilled=ndcg)
def test_the_gap_closed_is_below_zero_at_a_loss_and_above_one_past_the_teacher(
    teacher, alone, distilled
):
    assume(teacher > alone + 1e-3)
    gap = gap_closed(teacher, alone, distilled)
    assert alone + gap * (teacher - alone) == pytest.approx(distilled, abs=1e-5)
    assert gap_closed(teacher, alone, alone) == 0
    assert gap_closed(teacher, alone, teacher) == 1


# --- tables ----------------------------------------------------------------------------------


def test_the_table_has_one_row_per_role_in_their_order_and_every_value_in_its_column(rows):
    head, rule, *body = map(cells, markdown_table(rows, ["ndcg@10"]).split("\n"))
    assert len({len(line) for line in (head, rule, *body)}) == 1
    table = [dict(zip(head, line)) for line in body]
    assert [line[""] for line in table] == ["teacher", "student alone", "distilled (FreqD)"]
    assert [line["test ndcg@10"] for line in table] == ["0.2500", "0.2000", "0.2400"]
    assert "test recall@10" not in head
    assert table[2] == {
        "": "distilled (FreqD)",
        "model": "BPR",
        "parameters": "1,234,567",
        "MB": "1.00",
        "test ndcg@10": "0.2400",
        "ms / 1k users": "10.0",
        "s / epoch": "0.25",
    }


def test_what_was_not_measured_is_left_blank(rows):
    rows[1]["test"] = None
    head, _, teacher, alone, _ = map(cells, markdown_table(rows, ["ndcg@10", "mrr@5"]).split("\n"))
    assert teacher[head.index("s / epoch")] == ""
    assert teacher[head.index("test mrr@5")] == ""
    assert alone[head.index("test ndcg@10")] == ""
    assert alone[head.index("ms / 1k users")] == "10.0"


def test_the_table_is_aligned_for_a_terminal_also_where_a_cell_is_blank(rows):
    rows[1]["test"] = None
    head, rule, teacher, alone, distilled = markdown_table(rows, ["ndcg@10"]).split("\n")
    assert len(set(map(len, (head, rule, teacher, alone, distilled)))) == 1
    for line, name, model in (
        (teacher, "teacher", "LightGCN"),
        (alone, "student alone", "BPR"),
        (distilled, "distilled (FreqD)", "BPR"),
    ):
        assert line.startswith(f"| {name}")
        assert line[head.index("model") :].startswith(model)
        assert line[: head.index(" ms / 1k users") + len(" ms / 1k users")].endswith(".0")
    assert teacher.endswith(f"{' ' * len('s / epoch')} |")
    assert alone[head.index("test ndcg@10") :][: len("test ndcg@10")].strip() == ""


def test_a_text_stays_what_it_is_and_html_is_escaped():
    lines = [["", "p"], ["1e5", "0.10"], ["a<b", "007"]]
    assert cells(as_table(lines, 1).split("\n")[2]) == ["1e5", "0.10"]
    html = as_table(lines, 1, "html")
    assert "a&lt;b" in html and ">007" in html.replace(" ", "")


# --- words -----------------------------------------------------------------------------------


def test_the_words_give_size_speed_share_gain_and_gap(rows):
    words = describe_gains(rows, "ndcg@10")
    assert "8.0 times smaller than its teacher" in words
    assert "ranks 3.0 times faster" in words
    assert "keeps 96.0% of the teacher's test ndcg@10" in words
    assert "1.200 times what it reaches alone" in words
    assert "closes 80% of the gap" in words


def test_a_larger_and_slower_student_is_said_to_be_larger_and_slower(rows):
    rows[2].update(size_mb=16.0, latency_ms_per_1k_users=120.0)
    words = describe_gains(rows, "ndcg@10")
    assert "2.0 times larger than its teacher" in words
    assert "ranks 4.0 times slower" in words
    assert "smaller" not in words
    assert "faster" not in words


def test_where_the_teacher_does_not_win_the_words_say_so_and_claim_no_gap(rows):
    rows[1]["test"]["ndcg@10"] = 0.25
    words = describe_gains(rows, "ndcg@10")
    assert "no gap to close: the teacher does not beat the student alone" in words
    assert "closes" not in words


def test_a_metric_of_zero_is_no_division_by_zero(rows):
    rows[0]["test"]["ndcg@10"] = rows[1]["test"]["ndcg@10"] = 0.0
    words = describe_gains(rows, "ndcg@10")
    assert "smaller" in words
    assert "keeps" not in words
    assert "reaches alone" not in words


def test_nothing_is_said_of_a_role_that_is_missing_or_not_tested(rows):
    teacher, alone, distilled = rows
    assert describe_gains([alone], "ndcg@10") == ""
    assert describe_gains([alone, distilled], "ndcg@10") == ""
    assert describe_gains([teacher, alone, {**distilled, "test": None}], "ndcg@10") == ""
    words = describe_gains([teacher, distilled], "ndcg@10")
    assert "8.0 times smaller" in words
    assert "alone" not in words
