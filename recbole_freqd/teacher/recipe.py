"""Makes a teacher from a recipe: trained once by RecBole, reused while nothing changes."""

import hashlib
import json
import logging
import shutil
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, Optional

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.identity import differences, run_identity
from recbole_freqd.config.make import teacher_config
from recbole_freqd.config.models import check_dataset_kind
from recbole_freqd.config.reading import asking_recbole
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import file_hash, read_json, write_atomically, write_json
from recbole_freqd.core.locks import working_on
from recbole_freqd.core.rows import Features
from recbole_freqd.core.schema import read_keys
from recbole_freqd.features import check_teacher, registered_adapter
from recbole_freqd.runtime.distributed import full_eval_loader
from recbole_freqd.runtime.parts import Part
from recbole_freqd.runtime.processes import Processes
from recbole_freqd.runtime.seconds import not_counted
from recbole_freqd.runtime.trainer import PartsTrainer, mix_into
from recbole_freqd.teacher.base import Teacher, features_of, make_features_once
from recbole_freqd.teacher.restore import load_model

logger = logging.getLogger(__name__)


def from_recipe(
    config: Any, spec: dict[str, Any], train_data: Any, valid_data: Optional[Any]
) -> Teacher:
    """Trains a teacher on the student's own split, or takes the one that was trained before.

    Args:
        config: The student's Config.
        spec: Its ``teacher`` keys.
        train_data, valid_data: The student's loaders.

    Raises:
        ConfigError, CheckpointError, TeacherError: It cannot be trained, saved or read.
    """
    own_config, rank = recipe_config(config, spec), spec.get("spectral_rank")
    identity = run_identity(own_config, train_data._dataset, valid_data, metrics=False)
    stem = f"teacher-{own_config['model']}-{config['dataset']}"
    name = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=6).hexdigest()
    path = Path(config["checkpoint_dir"]) / f"{stem}-{name}.pth"
    facts_file = path.with_suffix(".json")
    trained: list[Any] = []  # the model, in the process that has trained it

    def have() -> tuple[dict[str, Any], str]:
        # A lock that nobody holds is what a killed process left: taking it removes it.
        if not _is_whole(path, facts_file) or Path(f"{path}.lock").exists():
            with working_on(path, "checkpoint_dir", wait=True):
                if not _is_whole(path, facts_file):  # another process may have just trained it
                    return train(), "trained"
        logger.info("Teacher reused: %s (recipe, data and versions are unchanged)", path)
        return read_json(facts_file)["facts"], "reused"

    def train() -> dict[str, Any]:
        logger.info("Teacher to be trained: %s", _why_not_reused(path, stem, identity))
        with not_counted():
            trainer = _train(own_config, train_data, valid_data, path, rank)
        trained.append(trainer.model)
        facts: dict[str, Any] = {"seconds_per_epoch": trainer.seconds_per_epoch()}
        if is_closed_form(own_config):
            facts = {}  # an epoch is RecBole's idle pass over the data, the work was before it
        facts.update(trainer.part(Trajectory).keep(path))
        of = {"checkpoint": file_hash(path), "identity": identity, "facts": facts}
        write_json(facts_file, of)
        trainer.forget()
        logger.info("Teacher trained: %s", path)
        return facts

    def features() -> Features:
        own_class = own_config.model_class
        payload = load_checkpoint(path, map_location=config["device"], model_class=own_class)
        model = trained[0] if trained else None
        model = load_model(own_config, payload, train_data._dataset, str(path), model)
        return features_of(config, spec, model)

    processes = Processes.of(config)
    facts, origin = processes.from_first(have)
    on_the_way = [path.with_name(file) for file in facts.get("trajectory", ())]
    processes.hand_over([path, facts_file, *on_the_way])
    # Spectral features take passes over all scores, and losses over scores read none.
    made = make_features_once(config, spec, features, later=is_closed_form(own_config))
    trained.clear()  # features that are made later would keep it in memory
    return Teacher(own_config, str(path), made, origin, facts, tuple(map(str, on_the_way)))


def _is_whole(path: Path, facts_file: Path) -> bool:
    """Whether a teacher and all that it has kept are on disk, unchanged since its training."""
    if not (path.is_file() and facts_file.is_file()):
        return False
    try:
        content = json.loads(facts_file.read_text(encoding="utf-8"))
        kept = {path.name: content["checkpoint"], **content["facts"].get("trajectory", {})}
        if not all(path.with_name(name).is_file() for name in kept):
            words = "a file of it is gone"
        elif all(file_hash(path.with_name(name)) == kept[name] for name in kept):
            return True
        else:
            words = "a file of it is not the one that was trained, or has been damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        words = f"{facts_file.name} cannot be read ({type(error).__name__}: {error})"
    logger.warning("Teacher %s is not reused: %s.", path, words)
    return False


def recipe_config(config: Any, spec: dict[str, Any]) -> Any:
    """The Config that a recipe is trained with.

    Args:
        config: The student's Config.
        spec: Its ``teacher`` keys.

    Raises:
        ConfigError: An unknown model or key.
    """
    reserved = read_keys("teacher.yaml")
    recipe = {key: value for key, value in spec.items() if key not in reserved}
    own_config = teacher_config(config, recipe)
    if is_closed_form(own_config):
        if recipe.get("epochs", 1) != 1:
            logger.warning("%s is computed in one pass: teacher.epochs is 1.", own_config["model"])
        own_config["epochs"] = own_config["eval_step"] = 1
    if spec.get("keep_every"):
        own_config["keep_every"] = spec["keep_every"]  # so it is one of its own, also to resume
    return own_config


def is_closed_form(config: Any) -> bool:
    """Whether a teacher is computed, not trained.

    Raises:
        ConfigError: RecBole needs a package for it that is not installed.
    """
    from recbole.utils import ModelType

    adapter = registered_adapter(config.model_class)
    traditional = config["MODEL_TYPE"] == ModelType.TRADITIONAL
    return traditional or (adapter is not None and adapter.closed_form)


def _why_not_reused(path: Path, stem: str, identity: dict[str, Any]) -> str:
    """Says how this teacher differs from the nearest stored one."""
    candidates = []
    for file in path.parent.glob(f"{escape(stem)}-*.json"):
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))["identity"]
            changed = differences(stored, identity)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not one of ours
            continue
        candidates.append((len(changed), file.with_suffix(".pth").name, changed))
    if not candidates:
        return f"there is no {stem} in {path.parent} yet"
    _, name, changed = min(candidates)
    return f"the nearest stored one, {name}, differs ({'; '.join(changed) or 'in its files'})"


def _train(
    config: Any, train_data: Any, valid_data: Any, path: Path, rank: Optional[int]
) -> "_TeacherTrainer":
    """Trains a recipe with RecBole's own trainer and keeps its best model at ``path``.

    Returns:
        The trainer, with what it has left in checkpoint_dir.

    Raises:
        CheckpointError: ``path`` cannot be written.
    """
    from recbole.data.utils import get_dataloader
    from recbole.utils import get_trainer, init_seed

    init_seed(config["seed"], config["reproducibility"])
    dataset = train_data._dataset
    check_dataset_kind(config.model_class, dataset, "teacher.model")
    with asking_recbole():
        model = config.model_class(config, dataset).to(config["device"])
        loader = get_dataloader(config, "train")(
            config, dataset, _train_sampler(config, dataset), shuffle=config["shuffle"]
        )
        check_teacher(model, rank)
        host = get_trainer(config["MODEL_TYPE"], config["model"])
        trainer = mix_into(_TeacherTrainer, host)(config, model)
    _log_beside_the_student(trainer, config["model"])
    # What is computed in one pass is saved without a validation, which would choose nothing.
    validation = None if is_closed_form(config) else full_eval_loader(valid_data)
    trainer.fit(loader, validation, saved=True, show_progress=config["show_progress"])
    if not Path(trainer.saved_model_file).is_file():
        raise CheckpointError(
            f"The teacher {config['model']} trained but saved no model. RecBole saves one at "
            f"the first validation: teacher.epochs is {config['epochs']}, teacher.eval_step "
            f"{config['eval_step']}. (RaCT saves every teacher.save_step epochs.)"
        )
    write_atomically(path, lambda temporary: shutil.copyfile(trainer.saved_model_file, temporary))
    trainer.tensorboard.close()
    return trainer


class _TeacherTrainer(PartsTrainer):
    """RecBole's own training, under a name that no student has."""

    def make_parts(self) -> list[Part]:
        return [*super().make_parts(), Trajectory(self)]

    @property
    def run_name(self) -> str:
        return f"{self.config['model']}-as-teacher"


class Trajectory(Part):
    """With ``keep_every`` in the Config, a checkpoint stays after every so many epochs."""

    def end_epoch(self, epoch: int) -> None:
        """Keeps it as ``….epoch<k>.pth``, k being the number of epochs."""
        every = self.trainer.config["keep_every"]
        if every and (epoch + 1) % every == 0:
            path = Path(self.trainer.run_file).with_suffix(f".epoch{epoch + 1}.pth")
            self.trainer._save_checkpoint(epoch, verbose=False, saved_model_file=str(path))

    def keep(self, teacher: Path) -> dict[str, dict[str, str]]:
        """Copies what was kept before the best epoch beside the teacher, ``….epoch<k>.pth``.

        Returns:
            ``trajectory``: hashes of these files by their names, earliest first.
        """
        config = self.trainer.config
        if not config["keep_every"]:
            return {}
        best = load_checkpoint(teacher, model_class=config.model_class)["epoch"] + 1
        kept = {}
        for epoch, file in sorted(self._kept()):
            if epoch < best:
                path = teacher.with_suffix(f".epoch{epoch}.pth")
                write_atomically(path, partial(shutil.copyfile, file))
                kept[path.name] = file_hash(path)
        logger.info("Kept from before its best epoch %d: %s", best, ", ".join(kept) or "nothing")
        return {"trajectory": kept}

    def _kept(self) -> list[tuple[int, Path]]:
        run = Path(self.trainer.run_file)
        files = run.parent.glob(f"{escape(run.stem)}.epoch*.pth")
        return [(int(file.stem.rpartition(".epoch")[2]), file) for file in files]


def _train_sampler(config: Any, dataset: Any) -> Optional[Any]:
    """The negative sampler RecBole's data_preparation would make for training on ``dataset``."""
    from recbole.sampler import RepeatableSampler, Sampler

    negatives = config["train_neg_sample_args"]
    if negatives["distribution"] == "none":
        return None
    arguments = (["train"], negatives["distribution"], negatives["alpha"])
    if config["repeatable"]:
        sampler = RepeatableSampler(arguments[0], dataset, *arguments[1:])
    else:
        sampler = Sampler(arguments[0], [dataset], *arguments[1:])
    return sampler.set_phase("train")


def _log_beside_the_student(trainer: Any, model: str) -> None:
    """Gives the teacher's training a TensorBoard folder of its own."""
    from torch.utils.tensorboard import SummaryWriter

    folder = trainer.tensorboard.log_dir
    trainer.tensorboard.close()
    trainer.tensorboard = SummaryWriter(f"{folder}-teacher-{model}")
