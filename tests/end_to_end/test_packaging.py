"""The wheel holds all that is needed, and works from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built without network: setuptools and wheel come with the test extra."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "recbole_freqd",
        "properties",
    ):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, "-w", str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_carries_every_properties_file_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name for name in names if name.startswith("recbole_freqd/properties/")}
    expected = {
        f"recbole_freqd/properties/{path.relative_to(ROOT / 'properties')}"
        for ending in ("yaml", "hyper")
        for path in (ROOT / "properties").rglob(f"*.{ending}")
    }
    assert shipped == expected and len(expected) >= 4
    assert "recbole_freqd/py.typed" in names
    assert not any(
        name.startswith(("tests/", "benchmarks/", "scripts/", "experiments/")) for name in names
    )


def test_the_installed_wheel_trains_from_another_folder(wheel, tiny_data, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = [
        "-m", "BPR", "-d", "tiny", f"--data_path={tiny_data}", "--epochs=1", "--teacher.epochs=1",
        "--load_col={'inter':['user_id','item_id']}", "--show_progress=False", "--state=ERROR",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "recbole_freqd", *arguments],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "\n| FreqD " in done.stdout
    assert list(elsewhere.glob("freqd_runs/tiny-BPR-FreqD-*/results.json"))
    where = "import recbole_freqd, recbole_freqd.core.schema as s; print(recbole_freqd.__file__, s.properties_folder())"
    shown = subprocess.run(
        [sys.executable, "-c", where],
        cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert shown.count(str(site)) == 2
