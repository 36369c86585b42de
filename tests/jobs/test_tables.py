"""report: tables and sentences say what is in the rows, no more."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recbole_freqd.jobs.tables import as_table, gap_closed, markdown_table
from recbole_freqd.jobs.verdict import best_student, describe_rows

LABELS = {"student_alone": "student alone", "distilled": "FreqD", "cut": "teacher cut to size"}

ndcg = st.floats(0.001, 1)


def a_row(role, ndcg_at_10, size_mb=1.0, latency=10.0, **fields):
    row = {
        "role": role,
        "label": LABELS.get(role, role),
        "trainer": "FreqD" if role == "distilled" else None,
        "model": "LightGCN" if role == "teacher" else "BPR",
        "parameters": 1234567,
        "size_mb": size_mb,
        "valid": {"ndcg@10": ndcg_at_10 / 2},
        "test": {"recall@10": 0.5, "ndcg@10": ndcg_at_10},
        "latency_ms_per_1k_users": latency,
        "seconds_per_epoch": 0.25,
        "seconds_all_in": 12.0,
        "bytes_per_entity": 32.0 * size_mb,
        "coverage": 0.5,
        "gini": 0.9,
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


def test_the_words_have_the_weight_of_every_member_of_a_team_the_teachers_own_too(rows):
    rows.insert(1, a_row("team", 0.26, weights={"BPR": 0.4, "EASE": 0.6}))
    words = describe_rows(rows, "ndcg@10")
    assert words.count("Weights in") == 1 and "in the team: BPR 0.4, EASE 0.6." in words


# --- tables ----------------------------------------------------------------------------------


def test_the_table_has_one_row_per_role_in_their_order_and_every_value_in_its_column(rows):
    head, rule, *body = map(cells, markdown_table(rows, "ndcg@10").split("\n"))
    assert len({len(line) for line in (head, rule, *body)}) == 1
    table = [dict(zip(head, line)) for line in body]
    assert [line[""] for line in table] == ["teacher (LightGCN)", "student alone", "FreqD"]
    assert [line["test ndcg@10"] for line in table] == ["0.2500", "0.2000", "0.2400"]
    assert [line["share"] for line in table] == ["100%", "80%", "96%"]
    assert table[2] == {
        "": "FreqD",
        "MB": "1.00",
        "B/entity": "32",
        "valid ndcg@10": "0.1200",
        "test ndcg@10": "0.2400",
        "test recall@10": "0.5000",
        "share": "96%",
        "coverage": "0.50",
        "gini": "0.90",
        "ms/1k": "10.0",
        "s/epoch": "0.25",
        "s all in": "12.0",
    }


def test_what_was_not_measured_is_left_blank(rows):
    rows[1]["test"] = rows[1]["coverage"] = None
    head, _, teacher, alone, _ = map(cells, markdown_table(rows, "ndcg@10").split("\n"))
    assert teacher[head.index("s/epoch")] == ""
    for name in ("test ndcg@10", "share", "coverage"):
        assert alone[head.index(name)] == ""
    assert alone[head.index("ms/1k")] == "10.0"
    assert "test recall@10" not in markdown_table(rows, "mrr@5")  # it goes with the metric's length


def test_the_table_is_aligned_for_a_terminal_also_where_a_cell_is_blank(rows):
    rows[1]["test"] = None
    head, rule, teacher, alone, distilled = markdown_table(rows, "ndcg@10").split("\n")
    assert len(set(map(len, (head, rule, teacher, alone, distilled)))) == 1 and len(head) <= 145
    for line, name in ((teacher, "teacher"), (alone, "student alone"), (distilled, "FreqD")):
        assert line.startswith(f"| {name}")
        assert line[: head.index("ms/1k") + len("ms/1k")].endswith(".0")
    assert f" {' ' * len('s/epoch')} |     12.0 |" in teacher
    assert alone[head.index("test ndcg@10") :][: len("test ndcg@10")].strip() == ""


def test_a_text_stays_what_it_is_and_html_is_escaped():
    lines = [["", "p"], ["1e5", "0.10"], ["a<b", "007"]]
    assert cells(as_table(lines, 1).split("\n")[2]) == ["1e5", "0.10"]
    html = as_table(lines, 1, "html")
    assert "a&lt;b" in html and ">007" in html.replace(" ", "")


# --- words -----------------------------------------------------------------------------------


def test_the_student_is_chosen_on_validation_and_told_by_test(rows):
    rows.insert(1, a_row("cut", 0.3, valid={"ndcg@10": 0.01}))
    assert best_student(rows, "ndcg@10")["role"] == "distilled"
    assert best_student(rows, "ndcg@10", bigger=False)["role"] == "cut"
    words = describe_rows(rows, "ndcg@10")
    assert "Use FreqD: of all students it has the best validation ndcg@10, 0.1200." in words
    assert "Without distillation, test ndcg@10: teacher cut to size 0.3000, student alone" in words
    for row in rows:
        row["valid"] = {}
    assert best_student(rows, "ndcg@10")["role"] == "distilled"  # the last of the table
    assert "Use" not in describe_rows(rows, "ndcg@10")


def test_the_words_give_size_speed_share_gain_and_gap(rows):
    words = describe_rows(rows, "ndcg@10")
    assert "needs 32 bytes for each user and item, is 8.0 times smaller than the teacher" in words
    assert "ranks 3.0 times faster" in words
    assert "has 96.0% of its test ndcg@10" in words
    assert "Distillation was worth it: the best without it, student alone, has 0.1000" in words
    assert "+0.0200 there, and +20.0% on test" in words
    assert "closes 80% of the gap" in words


def test_where_a_plain_student_is_ahead_the_words_say_that_distillation_was_not_worth_it(rows):
    rows[1].update(valid={"ndcg@10": 0.2})
    words = describe_rows(rows, "ndcg@10", left_out={"teacher in int8": "there is none"})
    assert "Use student alone:" in words
    assert "not worth it here: the best distilled student, FreqD, reaches only 0.1200" in words
    assert "\nLeft out: teacher in int8, since there is none" in words


def test_the_words_say_what_int8_keeps(rows):
    rows.append(a_row("teacher_int8", 0.24, size_mb=2.0))
    assert "In int8 the teacher itself keeps 96.0% of its test ndcg@10, at 64" in describe_rows(
        rows, "ndcg@10"
    )


def test_a_larger_and_slower_student_is_said_to_be_larger_and_slower(rows):
    rows[2].update(bytes_per_entity=512.0, latency_ms_per_1k_users=120.0)
    words = describe_rows(rows, "ndcg@10")
    assert "2.0 times larger than the teacher" in words
    assert "ranks 4.0 times slower" in words
    assert "smaller" not in words
    assert "faster" not in words


def test_where_the_teacher_does_not_win_the_words_say_so_and_claim_no_gap(rows):
    rows[1]["test"]["ndcg@10"] = 0.25
    words = describe_rows(rows, "ndcg@10")
    assert "no gap to close: the teacher does not beat the student alone" in words
    assert "closes" not in words


def test_a_metric_of_zero_is_no_division_by_zero(rows):
    rows[0]["test"]["ndcg@10"] = rows[1]["test"]["ndcg@10"] = 0.0
    words = describe_rows(rows, "ndcg@10")
    assert "smaller" in words
    assert "of its test" not in words
    assert "% on test" not in words


def test_nothing_is_said_of_a_role_that_is_missing_or_not_tested(rows):
    teacher, alone, distilled = rows
    assert describe_rows([alone], "ndcg@10") == (
        "Use student alone: of all students it has the best validation ndcg@10, 0.1000."
    )
    assert "teacher" not in describe_rows([alone, distilled], "ndcg@10")
    words = describe_rows([teacher, alone, {**distilled, "test": None}], "ndcg@10")
    assert "of its test" not in words and "gap" not in words and "on test" not in words
    words = describe_rows([teacher, distilled], "ndcg@10")
    assert "8.0 times smaller" in words
    assert "alone" not in words
