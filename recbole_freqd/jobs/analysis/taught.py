"""What a filter has made of a teacher: its energy by frequency, before and after."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import scipy.sparse as sp

from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.core.rows import Features
from recbole_freqd.graph.cooccurrence import SIDES
from recbole_freqd.graph.similarity import cosine_graph
from recbole_freqd.graph.spectrum import GraphSpectrum
from recbole_freqd.teacher.filter import centre_items, filter_features


def filter_of(path: str) -> Optional[tuple[str, float]]:
    """Side and α of the filter on what a student was taught, from the file beside it; or None."""
    sidecar = Path(sidecar_path(path))
    found = load_plain(sidecar).get("filtered") if sidecar.is_file() else None
    return None if found is None else (str(found[0]), float(found[1]))


def filtered_energy(
    students: Sequence[tuple[str, Any]],
    features: Features,
    user_items: sp.csr_array,
    *,
    max_pairs: int,
    bands: int,
) -> Optional[dict[str, Any]]:
    """The teacher's energy by band of the filter's own graph, before the filter and after it.

    Each user's mean score is taken away before the filter, and so it is in both. In a band at λ the
    energy after the filter is (1 - αλ)² times that before, as far as the bands are sharp.

    Args:
        students: Checkpoints and configs; the first one that a filtered teacher has taught counts.
        features: The teacher's, (n_users, d) and (n_items, d).
        user_items: (n_users, n_items), the training interactions.
        max_pairs: Budget of co-occurrences of the graph. bands: Their number.

    Returns:
        ``student`` (its place), ``side``, ``alpha``, ``k``, ``shrinkage``, ``form``,
        ``eigenvalues``, ``before`` and ``after``; None where no teacher was filtered.
    """
    for place, (path, config) in enumerate(students):
        found = filter_of(path)
        if found is None:
            continue
        side, alpha = found
        graph = cosine_graph(
            user_items, side=side, k=config["teacher_filter_k"],
            shrinkage=config["teacher_filter_shrinkage"], max_pairs=max_pairs,
        )  # fmt: skip
        spectrum = GraphSpectrum(graph, bands)
        plain = centre_items(features)
        taught = filter_features(plain, graph, side=side, alpha=alpha)
        at = SIDES.index(side)
        return {
            "student": place,
            "side": side,
            "alpha": alpha,
            "k": config["teacher_filter_k"],
            "shrinkage": config["teacher_filter_shrinkage"],
            "form": "exact" if spectrum.exact else f"Chebyshev, degree {spectrum.degree}",
            "eigenvalues": spectrum.counts().tolist(),
            "before": spectrum.energies(plain[at]).tolist(),
            "after": spectrum.energies(taught[at]).tolist(),
        }
    return None
