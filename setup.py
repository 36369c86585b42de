"""Packaging of recbole_freqd. All metadata is here; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version():
    """Return `__version__` of the package without importing it (an import needs torch)."""
    source = (ROOT / "recbole_freqd" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r"""^__version__\s*=\s*["']([^"']+)["']""", source, re.MULTILINE)
    if match is None:
        raise RuntimeError("recbole_freqd/__init__.py has no line __version__ = '...'")
    return match.group(1)


def read_long_description():
    """Return the README, or nothing where a source tree comes without it."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# RecBole 1.2.1 pins ray<=2.6.3, which has no wheel for Python 3.12 and later, so pip refuses to
# install it there. It needs ray for nothing that we use: on 3.12+ it is installed by itself with
# `pip install --no-deps recbole==1.2.1`, and its other requirements come from here.
RECBOLE = ['recbole==1.2.1; python_version < "3.12"']
RECBOLE_REQUIREMENTS = [
    "tqdm>=4.48.2",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "scikit-learn>=0.23.2",
    "tensorboard>=2.5.0",
    "thop>=0.1.1.post2207130030",
    "tabulate>=0.8.10",
    "plotly>=4.0.0",
    "texttable>=0.9.0",
    "psutil>=5.9.0",
    "setuptools",  # thop imports distutils, which only setuptools still provides
]
RECBOLE += [f'{requirement}; python_version >= "3.12"' for requirement in RECBOLE_REQUIREMENTS]

INSTALL_REQUIRES = [
    "torch>=2.0",
    "numpy>=1.26,<2.5",
    "scipy>=1.12,<1.18",
    "pandas>=2.0,<4",
    "sparse_dot_topn>=1.1",
    "filelock>=3.8",
    "pyyaml",
    "typing_extensions>=4.1",
    *RECBOLE,
]

# hyperopt 0.3 needs Python 3.10. Without it `tune` says what is missing, and its tests skip.
HYPEROPT = 'hyperopt>=0.3; python_version >= "3.10"'
# setuptools and wheel: the tests build the wheel without network. faiss: RecBole's NCL needs it.
TEST = ["pytest", "pytest-xdist>=3.2", "hypothesis", "setuptools>=61", "wheel", "faiss-cpu"]
TEST += [HYPEROPT, "matplotlib", "pyarrow"]
EXTRAS_REQUIRE = {
    "test": TEST,
    "dev": ["ruff", "mypy", *TEST],
    "tune": [HYPEROPT],
    "ray": ["ray[tune]>=2.44", HYPEROPT],  # before Python 3.12: docs/tuning.md
    "ncl": ["faiss-cpu"],
    "parquet": ["pyarrow>=15"],
    "plot": ["matplotlib"],
    # mkdocstrings breaks long signatures with ruff.
    "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "ruff"],
}

setup(
    name="recbole_freqd",
    version=read_version(),
    description="Frequency-aware knowledge distillation (FreqD) for RecBole recommenders",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    author="recbole_freqd developers",
    license="MIT",
    python_requires=">=3.9",
    # properties/ stays at the root of the checkout and ships inside the package.
    packages=[
        *find_packages(include=["recbole_freqd", "recbole_freqd.*"]),
        "recbole_freqd.properties",
    ],
    package_dir={"recbole_freqd.properties": "properties"},
    package_data={
        "recbole_freqd": ["py.typed"],
        "recbole_freqd.properties": ["*.yaml", "*/*.yaml", "*/*/*.yaml"],
    },
    py_modules=[],
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={
        "console_scripts": ["run_recbole_freqd = recbole_freqd.jobs.script:main"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        *[f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)],
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
