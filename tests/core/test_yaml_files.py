"""YAML that is read as RecBole reads it."""

import math

import pytest
import yaml

from recbole_freqd.core.files import parse_yaml, read_yaml, write_yaml

SPELLINGS = (
    "1e-5 1E5 -1e+3 +2e3 1.5e5 1.e3 1_0e2 .5 5e-1 0.1 12 -3 0x1f 1.2.3 e5 1e 1e-5x -e5 .5e5 .5e+5 "
    "2020-01-01 1:30 .inf -.INF .nan true yes null ~ adam NDCG@10 '1e-5' [1e-3,64] {a:~}"
)


@pytest.mark.parametrize("text", SPELLINGS.split())
def test_a_value_is_what_recboles_own_loader_makes_of_it(host, text):
    from recbole.config import Config

    expected = yaml.load(text, Loader=Config._build_yaml_loader(None))
    got = parse_yaml(text)
    assert type(got) is type(expected)
    assert got == expected or (math.isnan(got) and math.isnan(expected))


def test_yamls_own_loader_is_left_as_it_was():
    parse_yaml("1e-5")
    assert "float" not in str([tag for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers["1"]
                               if pattern.match("1e-5")])  # fmt: skip


def test_what_is_written_is_read_again_in_its_order(tmp_path):
    content = {"b": [1e-05, 1e22, 0.5], "a": {"x": "1e-5", "ü": None}}
    write_yaml(tmp_path / "a.yaml", "of a test", content, allow_unicode=True)
    assert (tmp_path / "a.yaml").read_text("utf-8").startswith("# of a test\nb:\n")
    assert read_yaml(str(tmp_path / "a.yaml"), "--x") == content
