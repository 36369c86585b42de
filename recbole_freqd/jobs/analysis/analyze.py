"""``analyze``: which knowledge of a teacher its students have, by band of frequencies."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import torch

from recbole_freqd import __version__
from recbole_freqd.checkpoint.loading import load_plain, sidecar_path
from recbole_freqd.config.complete import trainer_names
from recbole_freqd.config.identity import data_fingerprint
from recbole_freqd.core.errors import TeacherError, require
from recbole_freqd.core.files import new_checkpoint_path
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import Features
from recbole_freqd.core.schema import method_keys
from recbole_freqd.features import extract_features
from recbole_freqd.features.data import training_matrix
from recbole_freqd.filters import response_curve
from recbole_freqd.graph.bands import Bands
from recbole_freqd.graph.cooccurrence import SIDES, cooccurrence_graph
from recbole_freqd.graph.spectrum import GraphSpectrum, band_losses
from recbole_freqd.graph.watch import projected_rows
from recbole_freqd.jobs.analysis.own_teacher import check_own_teacher, find_own_teacher
from recbole_freqd.jobs.analysis.taught import filtered_energy
from recbole_freqd.jobs.measure import parameter_count
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.run import name_of
from recbole_freqd.jobs.tables import as_table
from recbole_freqd.losses import LOSSES
from recbole_freqd.losses.projectors import LinearProjector, MLPProjector
from recbole_freqd.teacher.reader import Reader
from recbole_freqd.teacher.restore import Environment, Restored, restore
from recbole_freqd.teacher.unchanged import validation_result

METRICS, TOPK = ("Recall", "NDCG"), (10, 20)
LEAST_SQUARES = "least squares with a bias, fitted for each student anew"
logger = logging.getLogger(__name__)
_FOR_ANALYSIS = Reader(
    "Checkpoint",
    TeacherError,
    "Put the data back, or say where it is: --data_path=...",
    trust="give --trust_checkpoint",
    trust_data="give --trust_data",
)


@dataclass(frozen=True)
class Loaded:
    """A model from a checkpoint, with the data it was trained on.

    Attributes:
        path: The checkpoint. config: Its own. home: Its data.
        features: User and item features, without biases. metrics: On its validation split.
        parameters: How many it has.
    """

    path: str
    config: Any
    home: Restored
    features: Features
    metrics: dict[str, float]
    parameters: int


def analyze(
    teacher: Optional[str],
    students: Sequence[str],
    environment: Any,
    folder: Path,
    bands: int = 8,
    *,
    trust: bool = False,
    trust_data: bool = False,
) -> Path:
    """Computes and writes the analysis: figures, numbers, report.

    Args:
        teacher: Its checkpoint; None: the one that has taught the students.
        students: Their checkpoints, one or more.
        environment: A Config that says on which device, and where data lies now.
        folder: The report gets a folder of its own in it.
        bands: Number of bands of one width.
        trust: Load checkpoints with classes of your own, which can run code.
        trust_data: Take data that nothing shows to be what a checkpoint was trained on.

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: matplotlib is missing. CheckpointError, TeacherError: A checkpoint cannot be
            read, or is of other data than the teacher.
    """
    from recbole_freqd.jobs.analysis import report as spectrum_report

    require("matplotlib", "plot", "analyze")  # before the work, not after it
    Bands.equal(bands)  # refuses what is no number of bands
    read = partial(load_with_data, environment=environment, trust=trust, trust_data=trust_data)
    taught, learnt = read(teacher or find_own_teacher(students, trust=trust)), []
    for path in students:
        learnt.append(read(path))
        check_same_data(taught, learnt[-1])
    found = measure_bands(taught, learnt, bands)
    stem = f"analysis-{found['dataset']}"
    home = Path(new_checkpoint_path(folder, stem)).with_suffix("")
    print_line(as_table(spectrum_report.metrics_table(found), left=1))
    return spectrum_report.write(found, home)


def load_with_data(
    path: str, environment: Any, *, trust: bool = False, trust_data: bool = False
) -> Loaded:
    """A checkpoint's model, features and validation metrics, on its own data, read again.

    That this is still the data it was trained on is checked: by the fingerprint beside the
    checkpoint or, where there is none, by its validation score.

    Args:
        path: The checkpoint.
        environment, trust, trust_data: As of :func:`analyze`.
    """
    home = restore(
        path, Environment.of(environment), _FOR_ANALYSIS, trust=trust, trust_data=trust_data
    )
    model = home.model()
    home.config["metrics"], home.config["topk"] = list(METRICS), list(TOPK)
    return Loaded(
        path, home.stored, home, extract_features(model, with_bias=False),
        validation_result(home, model) or {}, parameter_count(model),
    )  # fmt: skip


def check_same_data(teacher: Loaded, student: Loaded) -> None:
    """Raises TeacherError unless users, items and training interactions are the same."""
    one, other = (data_fingerprint(each.home.train) for each in (teacher, student))
    if one["tokens"] != other["tokens"]:
        raise TeacherError(
            f"{student.path} has other users or items than teacher {teacher.path}: their rows "
            "cannot be compared. Allowed: models of the same data, read by the same filters."
        )
    if one["train"] != other["train"]:
        raise TeacherError(
            f"{student.path} and teacher {teacher.path} have the same users and items but other "
            "training interactions (another seed splits anew): they cannot be compared. Allowed: "
            "models of one split."
        )


def measure_bands(teacher: Loaded, students: Sequence[Loaded], bands: int = 8) -> dict[str, Any]:
    """All numbers of the report, as they are saved in ``analysis.json``."""
    graph, many = graph_options(students), len(students) > 1
    maps = [None if many else _projection_of(student) for student in students]
    for student, projection in zip(students, maps):
        check_own_teacher(
            teacher.path, teacher.config, student.path, student.config, needed=bool(projection)
        )
    sides = [
        _measure_side(place, teacher, students, maps, graph, bands) for place in range(len(SIDES))
    ]
    names = _names([student.config for student in students])
    filtered = filtered_energy(
        [(student.path, student.config) for student in students], teacher.features,
        training_matrix(teacher.home.train),
        max_pairs=graph["max_pairs"], bands=bands,
    )  # fmt: skip
    return {
        "version": __version__,
        "dataset": teacher.config["dataset"],
        "graph": graph,
        "bands": list(Bands.equal(bands).edges),
        "projection": LEAST_SQUARES if maps[0] is None else "the projector trained with it",
        "responses": _responses([student.config for student in students]),
        "sides": {side: facts for side, (facts, _) in zip(SIDES, sides)},
        "filter": filtered and {**filtered, "student": names[filtered["student"]]},
        "teacher": _describe(teacher, name_of(teacher.config).replace(" alone", "")),
        "students": [
            {**_describe(student, name), "sides": dict(zip(SIDES, parts))}
            for student, name, *parts in zip(students, names, *(losses for _, losses in sides))
        ],
    }


def _measure_side(
    place: int,
    teacher: Loaded,
    students: Sequence[Loaded],
    maps: Sequence[Optional[Callable[..., torch.Tensor]]],
    graph: dict[str, Any],
    bands: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is said of a side's graph and teacher, and the losses of each student there."""
    interactions, taught = training_matrix(teacher.home.train), teacher.features[place]
    links = cooccurrence_graph(interactions, side=SIDES[place], **graph)
    spectrum = GraphSpectrum(links, bands)
    energy, losses = spectrum.energies(taught), []
    for student, projection in zip(students, maps):
        own = student.features[place]
        rows = None if projection is None else projection(place, own, taught)
        parts = band_losses(spectrum, own, taught, rows, energy)
        losses.append(
            {
                "loss": parts.loss.tolist(),
                "relative": [None if np.isnan(x) else float(x) for x in parts.relative],
                "energy": parts.student.tolist(),
                "isolated_loss": parts.isolated[0],
                "isolated_energy": parts.isolated[2],
            }
        )
    facts = {
        "entities": spectrum.size - 1,
        "isolated": len(spectrum.isolated),
        "edges": links.nnz // 2,
        "form": "exact" if spectrum.exact else f"Chebyshev, degree {spectrum.degree}",
        "eigenvalues": spectrum.counts().tolist(),
        "teacher_energy": energy.tolist(),
        "teacher_isolated": spectrum.isolated_energy(taught),
    }
    return facts, losses


def _describe(model: Loaded, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "checkpoint": model.path,
        "model": model.config["model"],
        "trainer": trainer_names(model.config["trainer"]),
        "dimensions": [table.shape[1] for table in model.features],
        "parameters": model.parameters,
        "valid": model.metrics,
    }


def graph_options(students: Sequence[Loaded]) -> dict[str, Any]:
    """k and max_pairs of the graphs: of the first student that was trained on one, or defaults."""
    defaults = {name: method_keys("FreqD")[f"freqd_{name}"].default for name in ("k", "max_pairs")}
    for student in students:
        if "FreqD" in trainer_names(student.config["trainer"]):
            return {
                name: student.config[f"freqd_{name}"] or default
                for name, default in defaults.items()
            }
    return defaults


def _responses(configs: Sequence[Any]) -> list[dict[str, Any]]:
    """The curve of every filter that a student was trained with; else that of the defaults."""
    filters: dict[str, tuple[Any, float]] = {}
    for config in configs:
        names = trainer_names(config["trainer"])
        if "FreqD" in names:
            kind, alpha = config["freqd_filter"], config["freqd_alpha"]
            words = f"{kind}, α = {alpha:g}" if isinstance(kind, str) else f"coefficients {kind}"
            filters[f"FreqD, {words}"] = kind, alpha
        elif "FD" in names:
            filters["FD (every frequency alike)"] = [1.0], 0.0
    if not filters:
        for alpha in (0.25, 0.5, 1.0):
            filters[f"FreqD, linear, α = {alpha:g} (no student was trained with it)"] = (
                "linear",
                alpha,
            )
    return [
        {"name": name, **{key: values.tolist() for key, values in response_curve(*how).items()}}
        for name, how in filters.items()
    ]


def _names(configs: Sequence[Any]) -> list[str]:
    """Names each student, with a number where two names would be equal."""
    names = []
    for config in configs:
        name = name_of(config)
        if "FreqD" in trainer_names(config["trainer"]) and isinstance(config["freqd_filter"], str):
            name += f" (α = {config['freqd_alpha']:g}, β = {config['freqd_beta']:g})"
        elif "FD" in trainer_names(config["trainer"]):
            name += f" (β = {config['fd_beta']:g})"
        names.append(name)
    return [
        f"{name}, no. {names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _projection_of(student: Loaded) -> Optional[Callable[..., torch.Tensor]]:
    """P of the sidecar as a function of side, S and T; None where there is none."""
    path = Path(sidecar_path(student.path))
    methods = [name for name in ("FreqD", "FD") if name in trainer_names(student.config["trainer"])]
    if not methods or not path.is_file():
        return None
    method, state = methods[0], load_plain(path)["distiller"]
    distance = student.config[f"{LOSSES.get(method).prefix}_distance"]

    def projected(place: int, own: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        start = f"losses.{method}.projectors.{SIDES[place]}."
        weights = {
            name[len(start) :]: value for name, value in state.items() if name.startswith(start)
        }
        return projected_rows(_projector(weights).to(own.device), own, taught, distance)

    return projected


def _projector(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The projector that such tensors are of."""
    projector: torch.nn.Module
    stream = RandomStream(0)
    if "weight" in weights:
        width, teacher_width = weights["weight"].shape
        projector = LinearProjector(width, teacher_width, stream)
    else:
        experts, width, hidden = weights["weight_in"].shape
        out = weights["weight_out"].shape[2]
        projector = MLPProjector(width, out, stream, experts, hidden)
    projector.load_state_dict(weights)
    return projector
