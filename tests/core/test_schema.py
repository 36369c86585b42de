"""settings: the lines of properties/, and what a value must be to pass."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recbole_freqd.core import schema as settings
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import (
    Key,
    method_keys,
    properties_folder,
    read_keys,
    resolve,
    run_defaults,
)

FILES = [
    "recbole.yaml",
    "run.yaml",
    "teacher.yaml",
    *(f"trainer/{file.name}" for file in sorted((properties_folder() / "trainer").glob("*.yaml"))),
]
KEYS = [key for file in FILES for key in read_keys(file).values()]
NOT_FINITE = [math.nan, math.inf, -math.inf]


def a_key(types, limits="", default=None):
    return Key(
        "freqd_x", default, tuple(types.split(" or ")), limits, "what it is", "trainer/X.yaml"
    )


def passes(key, value):
    try:
        key.check(value)
    except ConfigError:
        return False
    return True


# --- the files -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_every_line_is_read_with_the_value_that_yaml_reads(file):
    text = (properties_folder() / file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    defaults = {name: key.default for name, key in read_keys(file).items()}
    if file.startswith("trainer/"):
        defaults.update(run_defaults(file.removeprefix("trainer/").removesuffix(".yaml")))
    assert defaults == yaml.safe_load(text)
    assert len(defaults) == len(lines)
    assert list(defaults) == list(yaml.safe_load(text))


def test_what_we_say_of_recboles_keys_starts_from_recboles_own_defaults():
    import recbole
    from recbole.config.configurator import Config

    stock, folder = {}, Path(recbole.__file__).parent / "properties"
    for file in ("overall", "dataset/sample", "model/BPR"):
        text = (folder / f"{file}.yaml").read_text(encoding="utf-8")
        stock.update(yaml.load(text, Config._build_yaml_loader(None)))
    ours = {name: key.default for name, key in read_keys("recbole.yaml").items()}
    assert ours == {**{name: stock[name] for name in ours}, "state": stock["state"].lower()}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_default_passes_its_own_check(key):
    checked = key.check(key.default)
    assert checked == key.default
    assert type(checked) is type(key.default)
    assert key.meaning


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_documented_type_is_one_that_a_value_can_be_of(key):
    example = {
        "int": 2,
        "float": 0.5,
        "bool": True,
        "str": "saved/a.pth",
        "null": None,
        "dict": {"a": 1},
        "list": [],
        "list of float": [1.0, -0.5],
        "list of int": [1, 2],
        "list of str": ["a"],
    }
    for kind in key.types:
        assert key.check(example.get(kind, kind)) == example.get(kind, kind)


# --- kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "value", "result"),
    [
        ("int", 3, 3),
        ("int", 3.0, 3),
        ("int", np.int64(3), 3),
        ("int", np.float64(3), 3),
        ("float", 0.25, 0.25),
        ("float", 1, 1.0),
        ("float", np.float32(0.25), 0.25),
        ("float", np.int64(1), 1.0),
        ("bool", False, False),
        ("str", "None of it", "None of it"),
        ("null", None, None),
        ("null or int", "None", None),
        ("null or str", "null", None),
        ("null or int", 2, 2),
        ("list of float", [1, -0.5], [1.0, -0.5]),
        ("list of float", (1,), [1.0]),
        ("linear or quadratic", "Quadratic", "quadratic"),
        ("linear or list of float", [2], [2.0]),
    ],
)
def test_a_value_of_the_kind_is_returned_in_its_type(types, value, result):
    checked = a_key(types).check(value)
    assert checked == result
    assert type(checked) is type(result)
    if isinstance(result, list):
        assert [type(number) for number in checked] == [float] * len(result)


@pytest.mark.parametrize(
    ("types", "refused"),
    [
        ("int", [*NOT_FINITE, 3.5, True, "3", None, [3], np.bool_(True), 1j]),
        ("float", [*NOT_FINITE, np.float32("nan"), False, "0.5", None, [0.5]]),
        ("bool", [1, 0, "true", None]),
        ("str", [3, None, True, ["a"]]),
        ("null", [0, "", False, "nothing", []]),
        ("list of float", [[], 1.0, "[1.0]", [True], ["a"], [1.0, None], [[1.0]], [math.nan]]),
        ("linear or quadratic", ["linaer", "", None, 1, ["linear"]]),
    ],
)
def test_a_value_of_another_kind_is_refused(types, refused):
    assert [value for value in refused if passes(a_key(types), value)] == []


# --- ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        ("[0, 1]", [0, 1, 0.5], [-1e-12, 1 + 1e-12]),
        ("(0, 1]", [1e-12, 1], [0, 1 + 1e-12]),
        ("[0, 1)", [0, 1 - 1e-12], [-1e-12, 1]),
        ("(-1.5, 2)", [-1.4, 1.9], [-1.5, 2]),
        (">= 1", [1, 1e300], [1 - 1e-12, -1]),
        ("> 0", [1e-300], [0, -1]),
        ("", [-1e300, 1e300], []),
    ],
)
def test_an_end_of_a_range_is_in_it_or_not_as_its_bracket_says(limits, inside, outside):
    key = a_key("float", limits)
    assert [value for value in inside if not passes(key, value)] == []
    assert [value for value in [*outside, *NOT_FINITE] if passes(key, value)] == []


@hypothesis_settings(deadline=None, database=None)
@given(
    ends=st.tuples(st.integers(-5, 5), st.integers(-5, 5)).map(sorted),
    closed=st.tuples(st.booleans(), st.booleans()),
    value=st.one_of(
        st.integers(-6, 6), st.floats(-6, 6), st.sampled_from([*NOT_FINITE, True, "0"])
    ),
)
def test_a_float_passes_exactly_if_it_lies_in_the_interval(ends, closed, value):
    (low, high), (with_low, with_high) = ends, closed
    limits = f"{'[' if with_low else '('}{low}, {high}{']' if with_high else ')'}"
    is_number = type(value) in (int, float) and math.isfinite(value)
    expected = (
        is_number
        and (low <= value if with_low else low < value)
        and (value <= high if with_high else value < high)
    )
    assert passes(a_key("float", limits), value) == expected


def test_a_range_says_nothing_about_the_words_and_nulls_beside_the_numbers():
    key = a_key("null or linear or list of float or int", ">= 1")
    for value in (None, "linear", [-3.0], 1):
        assert key.check(value) == value
    assert not passes(key, 0)


# --- messages --------------------------------------------------------------------------------


def test_an_error_says_what_came_what_is_allowed_and_where_to_change_it():
    key = method_keys("FreqD")["freqd_keep_prob"]
    with pytest.raises(
        ConfigError,
        match=r"^freqd_keep_prob: got 1\.5; allowed: float in \(0, 1\]\. .*"
        r"properties/trainer/FreqD\.yaml.* config file, config_dict or .*--freqd_keep_prob=",
    ):
        key.check(1.5)


@pytest.mark.parametrize(
    ("types", "limits", "words"),
    [
        ("null or int", ">= 1", "null or int >= 1"),
        ("float", "[0, 1)", r"float in \[0, 1\)"),
        ("mlp or linear", "", r"mlp or linear\."),
    ],
)
def test_what_is_allowed_is_said_in_the_words_of_the_file(types, limits, words):
    with pytest.raises(ConfigError, match=f"got 'neither'; allowed: {words}"):
        a_key(types, limits).check("neither")


@pytest.fixture
def own_properties(tmp_path, monkeypatch):
    """A folder read instead of properties/; the cache of read_keys is passed by."""
    monkeypatch.setattr(settings, "properties_folder", lambda: tmp_path)
    return tmp_path, settings.read_keys.__wrapped__


@pytest.mark.parametrize(
    "line", ["freqd_a: 1", "freqd_a: 1  # no spec", "freqd_a: 1  # (int)", "a b: 1  # (int) c"]
)
def test_a_line_that_is_not_of_the_documented_form_is_an_error(own_properties, line):
    folder, read = own_properties
    (folder / "X.yaml").write_text(f"# a comment\n\n{line}\n")
    with pytest.raises(ConfigError, match=r"X\.yaml: not `key: value  # \(type\) meaning`: '"):
        read("X.yaml")


def test_a_range_that_cannot_be_read_is_an_error_and_not_ignored(own_properties):
    folder, read = own_properties
    (folder / "X.yaml").write_text("freqd_a: 1  # (int, from 0 to 1) meaning\n")
    with pytest.raises(ConfigError, match=r"X\.yaml: freqd_a has no readable range"):
        read("X.yaml")["freqd_a"].check(1)


def test_a_method_without_a_file_is_an_error():
    with pytest.raises(ConfigError, match=r"properties/trainer/NoMethod\.yaml does not exist"):
        method_keys("NoMethod")


def test_a_method_of_ones_own_has_its_keys_in_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "_OWN_FILES", {})
    file = tmp_path / "mine.yaml"
    file.write_text("mine_beta: 1.0  # (float, >= 0) weight\n")
    settings.own_method("Mine", file)
    assert resolve("Mine", "mine", {}) == {"beta": 1.0}
    with pytest.raises(ConfigError, match=rf"mine_beta: got -1; .*\(see {re.escape(str(file))}\)"):
        resolve("Mine", "mine", {"beta": -1})
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        settings.own_method("Mine", tmp_path / "none.yaml")


# --- resolve ---------------------------------------------------------------------------------


def test_resolve_fills_in_every_default_and_checks_what_is_given():
    resolved = resolve("FreqD", "freqd", {"alpha": 1, "projector": "Linear"})
    names = {name.removeprefix("freqd_") for name in method_keys("FreqD")}
    assert set(resolved) == names
    assert (resolved["alpha"], type(resolved["alpha"])) == (1.0, float)
    assert resolved["projector"] == "linear"
    assert resolved["k"] == method_keys("FreqD")["freqd_k"].default


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alhpa": 0.5}, r"FreqD has no option 'alhpa'\. Did you mean 'alpha'\? Allowed: alpha, "),
        ({"freqd_alpha": 0.5}, r"FreqD has no option 'freqd_alpha'\. Did you mean 'alpha'\?"),
        ({"alpha": 2}, r"freqd_alpha: got 2; allowed: float in \[0, 1\]"),
    ],
)
def test_resolve_refuses_unknown_options_and_values_that_are_not_allowed(options, words):
    with pytest.raises(ConfigError, match=words):
        resolve("FreqD", "freqd", options)


# --- where the files are ---------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package folder of its own, in which schema.py seems to lie."""
    folder = tmp_path / "recbole_freqd"
    folder.mkdir()
    monkeypatch.setattr(settings, "__file__", str(folder / "core" / "schema.py"))
    return folder


def test_the_folder_inside_an_installed_package_wins_over_one_beside_it(package):
    beside, inside = package.parent / "properties", package / "properties"
    (beside / "trainer").mkdir(parents=True)
    assert properties_folder() == beside.resolve()
    (inside / "trainer").mkdir(parents=True)
    assert properties_folder() == inside.resolve()


def test_a_folder_of_the_same_name_that_is_not_ours_is_passed_by(package):
    (package.parent / "properties").mkdir()
    with pytest.raises(ConfigError, match=r"properties/ is neither in .* nor beside it.*Install"):
        properties_folder()
