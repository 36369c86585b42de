"""RecBole's datasets on pandas 3, and on pandas 2 under copy-on-write."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

from recbole_freqd.compat.patches import Overlay, Patches


def fills_in_place() -> bool:
    """Whether RecBole fills a column of a frame in place.

    Not whether that works right now: on pandas 2 copy-on-write is an option of the running
    program, which may turn it on later.
    """
    from recbole.data.dataset.dataset import Dataset

    return all(
        "fillna" in method.__code__.co_names and "inplace" in _keyword_names(method)
        for method in (Dataset._fill_nan, Dataset._load_feat)
    )


def _keyword_names(function: Any) -> set[str]:
    """Names of keyword arguments in the calls that a function makes."""
    constants = function.__code__.co_consts
    return {name for group in constants if isinstance(group, tuple) for name in group}


def apply_fill(patches: Patches) -> None:
    """Fills missing values before RecBole would fill them in place."""
    from recbole.data.dataset import dataset

    fill, pandas = dataset.Dataset._fill_nan, dataset.pd

    @functools.wraps(fill)
    def _fill_nan(self: Any) -> None:
        for name in self.feat_name_list:
            _fill_columns(getattr(self, name), self.field2type)
        _without_the_warning(fill)(self)  # sequences, whose columns it assigns

    @functools.wraps(pandas.read_csv)
    def read_csv(*args: Any, **kwargs: Any) -> Any:
        frame = pandas.read_csv(*args, **kwargs)
        for column in frame:
            if str(column).endswith("_seq"):  # field:type, as the files name their columns
                frame[column] = frame[column].fillna("")
        return frame

    patches.set(dataset.Dataset, "_fill_nan", _fill_nan)
    patches.set(dataset, "pd", Overlay(pandas, read_csv=read_csv))
    load = _without_the_warning(dataset.Dataset._load_feat)
    patches.set(dataset.Dataset, "_load_feat", load)


def _without_the_warning(method: Callable[..., Any]) -> Callable[..., Any]:
    """Silences pandas' warning of filling in place, where nothing is left to fill."""

    @functools.wraps(method)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\s*A value is .* set on a copy of a DataFrame")
            return method(*args, **kwargs)

    return quiet


def _fill_columns(frame: Any, types: dict[str, Any]) -> None:
    """Assigns what RecBole's `_fill_nan` fills: the padding's id, and the mean of a float field."""
    from recbole.utils import FeatureType

    for field in frame:
        if types[field] == FeatureType.TOKEN:
            frame[field] = frame[field].fillna(0)
        elif types[field] == FeatureType.FLOAT:
            frame[field] = frame[field].fillna(frame[field].mean())


def agg_is_of_the_column() -> bool:
    """Whether `Series.agg(len)` is one number; before pandas 3 it is the length of each value."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 2.1 and later announce the change
        return not isinstance(pd.Series([[1, 2], [3]]).agg(len), pd.Series)


def apply_agg(patches: Patches) -> None:
    """`agg(len)` is of each value where RecBole calls it; everybody else keeps pandas' own."""
    import pandas as pd

    aggregate = pd.Series.agg

    @functools.wraps(aggregate)
    def agg(self: Any, func: Any = None, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__") or ""
        if func is len and caller.startswith("recbole."):
            return self.map(len)
        return aggregate(self, func, *args, **kwargs)

    patches.set(pd.Series, "agg", agg)
