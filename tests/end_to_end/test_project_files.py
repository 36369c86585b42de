"""The site's navigation, the workflows, the citation: they say what the project says elsewhere."""

import re
from pathlib import Path

import yaml

import recbole_freqd

ROOT = Path(__file__).resolve().parents[2]
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
PYTHONS = [f"3.{minor}" for minor in range(9, 14)]


class WithoutTags(yaml.SafeLoader):
    """Reads YAML whose tags only MkDocs knows."""


WithoutTags.add_multi_constructor("", lambda loader, suffix, node: None)


def read(name):
    return yaml.load((ROOT / name).read_text(encoding="utf-8"), WithoutTags)


def leaves(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from leaves(value) if isinstance(value, list) else [value]


def test_the_navigation_of_the_site_has_every_page_once_and_no_other():
    nav = list(leaves(read("mkdocs.yml")["nav"]))
    assert len(nav) == len(set(nav))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= set(nav)
    for page in nav:
        assert (ROOT / "docs" / page).is_file() or (ROOT / page).is_file(), page


def test_the_workflows_test_every_python_that_the_package_is_for_with_the_command_of_the_readme():
    job = read(".github/workflows/tests.yml")["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == PYTHONS
    assert {"run": "bash .ci/run"} in job["steps"]
    assert f'python_requires=">={PYTHONS[0]}"' in SETUP and "range(9, 14)" in SETUP
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"python-{PYTHONS[0]}_to_{PYTHONS[-1]}-" in readme


def test_every_make_target_of_a_workflow_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        for target in re.findall(r"run: make (\w+)", file.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.M), f"{file.name}: make {target}"


def test_every_constraint_holds_for_one_version_of_a_package_on_each_python():
    from packaging.requirements import Requirement

    for python in PYTHONS:
        names = []
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                wanted = Requirement(line)
                if wanted.marker is None or wanted.marker.evaluate({"python_version": python}):
                    names.append(wanted.name)
        assert len(names) == len(set(names)) and "torch" in names, python


def test_the_citation_names_the_version_and_the_license_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == recbole_freqd.__version__
    assert f'license="{citation["license"]}"' in SETUP
    assert all(reference["url"].startswith("https://") for reference in citation["references"])
