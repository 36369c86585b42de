"""CiteULike with its fixed split, from the public citeulike-t.

    python scripts/prepare_citeulike.py [--output_dir dataset]

5,219 users (those with five items or more), 25,181 items, 125,580 interactions. Users are the lines
of ``users.dat`` from 0, items its numbers. What is known of the source is the checksum of its pairs
of these users; that of the file itself was not at hand when this was written.
"""

from pathlib import Path

import numpy as np
from splits import Split, lists, main

_FEWEST = 5


def read(users: Path) -> np.ndarray:
    """Pairs of a file whose lines are a count and as many items, of users with five or more."""
    found = [items[1:] for items in lists(users)]
    pairs = [(user, item) for user, items in enumerate(found) if len(set(items)) >= _FEWEST
             for item in items]  # fmt: skip
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


CITEULIKE = Split(
    name="citeulike",
    url="https://raw.githubusercontent.com/changun/CollMetric/"
    "5e0604d50ddaf2f0f338bde1ce5e4cade51ac144/citeulike-t",
    files=("users.dat",),
    read=read,
    pairs="d25e488ad5210713e44922d344a3f8ce47db40dcf78de13f48468f94cb381137",
    results={
        "train": "1b9fdcfb2d7e20a46351d03f020a0fab88f9e8590b3304d09f48ca3ddc69ed92",
        "valid": "59498fe31dd3d780207e3e609d67885a1a57371e2f0905557ec3d64b3cd63e34",
        "test": "3db07407086ec7f5981dd2b2d21382eb1a735b5ac9f4fb66d87b8af4dbea32b7",
    },
)

if __name__ == "__main__":
    main(CITEULIKE)
