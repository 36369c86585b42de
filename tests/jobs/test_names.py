"""Names of users' own are written as they are, also where a library reads more into them."""

import pytest

from recbole_freqd.jobs.analysis import figures
from recbole_freqd.jobs.comparison.plot import comparison_figure

NAMES = ["toy$x$", "a$b", r"toy$\frac{$", "toy_{2}^2"]


@pytest.mark.parametrize("name", NAMES)
def test_the_title_of_a_comparison_has_the_name_of_the_dataset_as_it_is(name):
    pytest.importorskip("matplotlib")
    measured = {"ndcg@10": {"mean": 0.5, "sd": 0.1}}
    figure = comparison_figure(
        {
            "metric": "ndcg@10",
            "table": [{"what": "FreqD", "test": measured, "failed": []}],
            "reference": "FreqD",
            "cells": {"FreqD": [{"test": {"ndcg@10": 0.5}}]},
            "seeds": [1],
            "dataset": name,
            "teacher_model": "BPR",
            "model": "BPR",
        }
    )
    title = figure.axes[0].title
    assert title.get_text().startswith(name) and not title.get_parse_math()
    figure.canvas.draw()


@pytest.mark.parametrize("name", NAMES)
def test_no_figure_of_an_analysis_reads_mathematics_into_a_name(name):
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(figures._STYLE):
        axes = Figure().subplots()
        axes.set_title(name, loc="left")
        axes.plot([0, 1], label=name)
        legend = axes.legend()
    axes.figure.canvas.draw()
    assert legend.get_texts()[0].get_text() == name
