"""The configs of ``properties/recipe/``: how they are written, and that every one of them runs."""

import importlib
import json
from pathlib import Path

import pytest
import yaml

import recbole_freqd
from recbole_freqd.config.make import make_config
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import properties_folder

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SHIPPED = sorted((properties_folder() / "recipe").rglob("*.yaml"))
TEACHER = {"model": "BPR", "embedding_size": 8, "epochs": 1}


@pytest.fixture
def recipes(monkeypatch, host):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("make_recipes")


@pytest.fixture
def compared(host, tiny_keys, tmp_path):
    """``compared(tune=1)``: the results of FreqD and FD+FTD, and their file."""

    def run(more=None, **options):
        keys = {**tiny_keys, "valid_metric": "NDCG@10", "epochs": 1, "teacher": dict(TEACHER)}
        keys.update(more or {})
        results = recbole_freqd.compare(
            ["FreqD", "FD+FTD"], "LightGCN", "tiny", config_dict={**keys, "freqd_k": 3},
            seeds=[1], output_dir=str(tmp_path / "out"), say=lambda _: None, **options,
        )  # fmt: skip
        (file,) = (tmp_path / "out" / "compare-tiny-LightGCN").glob("results-*.json")
        return results, file

    return run


def check(file, folder=""):
    """A recipe names no place, no machine and no seed, and is accepted as it is."""
    keys = yaml.safe_load(file.read_text(encoding="utf-8"))
    unwanted = {"data_path", "checkpoint_dir", "gpu_id", "device", "seed", "state", "resume"}
    assert not unwanted & {*keys, *keys["teacher"]} and "checkpoint" not in keys["teacher"]
    losses = keys["trainer"] if isinstance(keys["trainer"], list) else [keys["trainer"]]
    assert file.stem == f"{keys['teacher']['model']}-{keys['model']}-{'+'.join(losses)}"
    assert file.parent.name == keys["dataset"]
    config = make_config(None, None, [str(file)], {"data_path": folder} if folder else {})
    assert {key: config[key] for key in keys if key != "teacher"} == {
        key: value for key, value in keys.items() if key != "teacher"
    }
    assert config["teacher"] == keys["teacher"]
    return config


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_shipped_recipe_is_accepted_and_has_no_place_in_it(file, host):
    check(file)


def test_a_comparison_becomes_a_recipe_for_each_method_that_runs_as_it_did(
    recipes, compared, tiny_data, tmp_path
):
    from recbole_freqd.jobs import run as runs

    results, file = compared(tune=1)
    written = recipes.write_recipes(file, tmp_path / "recipe")
    assert [path.relative_to(tmp_path / "recipe").as_posix() for path in written] == [
        "tiny/BPR-LightGCN-FreqD.yaml", "tiny/BPR-LightGCN-FD+FTD.yaml",
    ]  # fmt: skip
    text = written[0].read_text(encoding="utf-8")
    assert text.startswith("# tiny: BPR → LightGCN, FreqD. Give data_path") and "1 trials" in text
    row = next(row for row in results["table"] if row["what"] == "FreqD")
    assert f"# Test ndcg@10 {row['test']['ndcg@10']['mean']:.4f} over seeds 1" in text
    for path in written:
        check(path, str(tiny_data))
    keys = yaml.safe_load(text)
    assert keys["freqd_k"] == results["configs"]["FreqD"]["freqd_k"] and "stopping_step" not in keys
    assert keys["reg_weight"] == results["common"]["reg_weight"] and "fd_beta" not in keys
    again = {"data_path": str(tiny_data), "seed": 1, "state": "ERROR", "show_progress": False}
    again["checkpoint_dir"] = str(tmp_path / "saved")
    run = runs.run(make_config(None, None, [str(written[0])], again))
    assert run.test_result == results["cells"]["FreqD"][0]["test"]


def test_what_recbole_derives_from_sampled_evaluation_is_no_key_of_a_recipe(
    recipes, compared, tiny_data, tmp_path, capsys
):
    results, file = compared({"eval_args": {"mode": "uni5"}}, tune=1)
    assert "valid_neg_sample_args" in results["common"]
    written = recipes.write_recipes(file, tmp_path / "recipe")
    for path in written:
        assert check(path, str(tiny_data))["eval_args"]["mode"] == {"valid": "uni5", "test": "uni5"}
    assert "replaces" not in capsys.readouterr().out
    recipes.write_recipes(file, tmp_path / "recipe")
    assert "replaces" not in capsys.readouterr().out  # by itself
    recipes.write_recipes(file, tmp_path / "recipe", "after test")
    said = capsys.readouterr().out
    assert f"{written[0]} replaces another one: Test ndcg@10" in said and file.name in said


def test_what_was_not_tuned_or_failed_or_nobody_can_train_makes_no_recipe(
    recipes, compared, tmp_path
):
    results, file = compared()
    with pytest.raises(ConfigError, match="FreqD makes no recipe: allowed are methods of a compar"):
        recipes.write_recipes(file, tmp_path / "recipe")
    tuned = {**results, "tuning": {"trials": 1, "seeds": [1]}}
    with pytest.raises(ConfigError, match=r"The teacher of FreqD is a\.pth"):
        recipes.recipe_of({**tuned, "teacher": {"checkpoint": "a.pth"}}, "FreqD")
    with pytest.raises(ConfigError, match="RRD makes no recipe"):
        recipes.recipe_of(tuned, "RRD")
    failed = [{**row, "failed": True} for row in tuned["table"]]
    file.write_text(json.dumps({**tuned, "table": failed}))
    with pytest.raises(ConfigError, match="all methods failed"):
        recipes.write_recipes(file, tmp_path / "recipe")
    file.write_text("[]")
    with pytest.raises(ConfigError, match="holds no results of compare"):
        recipes.write_recipes(file, tmp_path / "recipe")
    assert not (tmp_path / "recipe").exists()
