"""The rooms of the package: what may import what. docs/development.md draws the same spine."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import recbole_freqd

PACKAGE = Path(recbole_freqd.__file__).resolve().parent
ROOMS = (
    *("core", "graph", "filters", "checkpoint", "compat", "features", "losses"),
    *("config", "runtime", "teacher", "trainer", "jobs"),
)
"""Each room imports from those before it only. Among the modules of a room there is no circle."""
BESIDE_THEM = {"__init__", "__main__"}  # the face and the script: they may import everything


def modules(package):
    """Paths of all modules by dotted name, without the package's own; a folder has its face's."""
    return {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(package.rglob("*.py"))
    }


def imported_by(path, names):
    """Modules of the package that a file imports, in functions too, but for type checkers' eyes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        bases = [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in node.names:
            full = ".".join([*bases, name.name])
            if full.partition(".")[0] != "recbole_freqd":
                continue
            own = full.partition(".")[2]
            while own and own not in names:  # a function or class of a module
                own = own.rpartition(".")[0]
            if own:
                yield own


def complaints(package):
    """What is wrong with the imports of a package, in words; nothing where all is well."""
    names = modules(package)
    needs = {
        name: set(imported_by(path, names)) - {name}
        for name, path in names.items()
        if name not in BESIDE_THEM
    }
    for name in needs:
        if name.partition(".")[0] not in ROOMS:
            yield f"{name} is in no room"
    for name, others in needs.items():
        room = name.partition(".")[0]
        for other in others:
            below = other.partition(".")[0]
            if {room, below} <= set(ROOMS) and ROOMS.index(below) > ROOMS.index(room):
                yield f"{name} imports {other}: {below} comes after {room}"
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        yield f"circle: {' -> '.join(error.args[1])}"


def test_every_module_imports_from_earlier_rooms_only_and_there_is_no_circle():
    assert list(complaints(PACKAGE)) == []


def test_few_modules_lie_beside_the_rooms():
    assert len([path for path in PACKAGE.iterdir() if path.suffix == ".py"]) <= 4
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 15


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("core/rows.py", "from recbole_freqd.jobs import run", "jobs comes after core"),
        ("losses/kd.py", "def late():\n    import recbole_freqd.config.make", "config comes after"),
        ("graph/adjacency.py", "from recbole_freqd.graph.bands import Bands", "circle"),
        ("stray.py", "pass", "stray is in no room"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path, file, line, complaint):
    package = tmp_path / "recbole_freqd"
    for name in ("core/rows", "graph/adjacency", "graph/bands", "losses/kd", "jobs/run"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).with_suffix(".py").touch()
    for folder in ("config", "core", "graph", "losses", "jobs"):
        (package / folder).mkdir(exist_ok=True)
        (package / folder / "__init__.py").touch()
    (package / "config" / "make.py").touch()
    (package / "graph" / "bands.py").write_text("from recbole_freqd.graph import adjacency\n")
    assert list(complaints(package)) == []
    (package / file).write_text(f"{line}\n")
    assert re.search(complaint, "; ".join(complaints(package)))


def test_the_architecture_page_draws_this_spine():
    page = (PACKAGE.parent / "docs" / "development.md").read_text(encoding="utf-8")
    drawn = re.search(r"```mermaid\n(.*?)```", page, re.S).group(1)
    drawn = drawn.replace("graph_", "graph")  # a box cannot have the word that begins a diagram
    assert re.findall(r"^\s*(\w+)\[", drawn, re.M) == list(ROOMS)
    assert re.findall(r"\w+", " ".join(re.findall(r"(\w+(?: --> \w+)+)", drawn))) == [
        *ROOMS[:8],
        *ROOMS[7:],
    ]
