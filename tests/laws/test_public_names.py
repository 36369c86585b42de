"""The face of the package: what it names is there, for editors too, and costs nothing before use."""

import ast
import subprocess
import sys
from pathlib import Path

import recbole_freqd

FACE = Path(recbole_freqd.__file__)


def test_every_public_name_is_found_where_the_face_says():
    assert set(recbole_freqd.__all__) == {"__version__", *recbole_freqd._HOMES}
    for name in recbole_freqd.__all__:
        assert getattr(recbole_freqd, name) is not None
    assert dir(recbole_freqd) == sorted(recbole_freqd.__all__)


def test_type_checkers_and_editors_see_the_same_names_from_the_same_modules():
    (branch,) = (
        node
        for node in ast.parse(FACE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {name.name: node.module for node in branch.body for name in node.names}
    assert seen == recbole_freqd._HOMES
    assert (FACE.parent / "py.typed").is_file()


def test_the_import_loads_neither_torch_nor_recbole_and_takes_a_moment():
    code = (
        "import sys, time; start = time.perf_counter(); import recbole_freqd; "
        "print(time.perf_counter() - start, {'torch', 'recbole', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = done.stdout.split(" ", 1)
    assert (float(seconds) < 0.3, loaded.strip()) == (True, "set()")
