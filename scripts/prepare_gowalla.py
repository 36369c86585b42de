"""Gowalla with its fixed split, from the files that came with NGCF and LightGCN.

    python scripts/prepare_gowalla.py [--output_dir dataset]

29,858 users, 40,981 items, 1,027,370 interactions, those of NGCF's two parts together. Its own
split is not used. What is known of the source is the checksum of its pairs; that it is these files
is told from their counts and numbering, since they were not at hand when this was written.
"""

from pathlib import Path

import numpy as np
from splits import Split, lists, main


def read(*files: Path) -> np.ndarray:
    """Pairs of files whose lines are a user and its items."""
    rows = [row for file in files for row in lists(file) if row]
    return np.array([(row[0], item) for row in rows for item in row[1:]], np.int64).reshape(-1, 2)


GOWALLA = Split(
    name="gowalla",
    url="https://raw.githubusercontent.com/xiangwang1223/neural_graph_collaborative_filtering/"
    "master/Data/gowalla",
    files=("train.txt", "test.txt"),
    read=read,
    pairs="1e8532f0425f8bd2fb1663acc954b8d4d928bed0bb92b75947886dfa1eece1ff",
    results={
        "train": "b60c13893d7bbe1ec02e4cff563f8afa1dee299a5dc1f09bea92e56aea2d3416",
        "valid": "691f25b88f4c6d133b4fc3aa79f427f4099c33ff0b31af68a8745d35c05228ca",
        "test": "77c5b9732d114abfcc9172280895ac18f1091a0a51c43074c4c94ccf4fb9ffab",
    },
)

if __name__ == "__main__":
    main(GOWALLA)
