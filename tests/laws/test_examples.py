"""Every example in a docstring of the package is run as it is written."""

import doctest
import importlib
from pathlib import Path

import pytest

import recbole_freqd

PACKAGE = Path(recbole_freqd.__file__).resolve().parent
WITH_EXAMPLES = [
    ".".join(("recbole_freqd", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", [name.removesuffix(".__init__") for name in WITH_EXAMPLES])
def test_the_examples_of_a_module_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0  # which is printed


def test_an_example_that_gives_something_else_is_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.py").write_text('"""\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert doctest.testmod(importlib.import_module("wrong")).failed == 1
    assert len(WITH_EXAMPLES) > 20
