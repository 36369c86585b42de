"""The scripts of examples/, on small data."""

import runpy
import sys
from pathlib import Path

import pytest

from recbole_freqd.core.errors import TeacherError
from recbole_freqd.jobs import run as runs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_sasrec_writes_lists_of_the_training_pairs_that_a_small_student_learns_from(
    tiny_data, tiny_config, tmp_path, monkeypatch
):
    folder = tmp_path / "timed" / "timed"
    folder.mkdir(parents=True)
    pairs = (tiny_data / "tiny" / "tiny.inter").read_text().splitlines()[1:]
    head = "user_id:token\titem_id:token\ttimestamp:float"
    lines = [f"{pair}\t{time}" for time, pair in enumerate(pairs)]
    (folder / "timed.inter").write_text("\n".join([head, *lines]) + "\n")
    keys = {"state": "ERROR", "show_progress": False, "epochs": 1, "data_path": "timed"}
    small = {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "MAX_ITEM_LIST_LENGTH": 5}
    words = [f"--{key}={value}" for key, value in {**keys, **small}.items()]
    arguments = ["sasrec_lists.py", "--dataset", "timed", "--top", "5", *words]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLES / "sasrec_lists.py"), run_name="__main__")
    lists = [line.split(",")[:2] for line in Path("lists.csv").read_text().splitlines()[1:]]
    assert len(lists) == 5 * 30
    monkeypatch.setattr(sys, "argv", ["pytest"])
    run = runs.run(tiny_config(trainer="FreqRank", teacher={"lists": "lists.csv"}))
    dataset = run.data[0]._dataset
    users, items = (
        dataset.id2token(field, dataset.inter_feat[field]) for field in ("user_id", "item_id")
    )
    assert not {tuple(pair) for pair in lists} & set(zip(users, items))
    # they say which split they are of, so a student on another one does not take them
    with pytest.raises(TeacherError, match="on other pairs.*allow_leakage"):
        runs.run(tiny_config(trainer="FreqRank", teacher={"lists": "lists.csv"}, seed=7))
