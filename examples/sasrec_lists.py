"""A RecBole sequential model as teacher: SASRec writes its lists, a small student learns from them.

    python examples/sasrec_lists.py --dataset ml-100k --out lists.csv
    python run_recbole_freqd.py -d ml-100k --trainer=FreqRank --teacher.lists=lists.csv

SASRec sees the pairs that the student is trained on, and no other: of these the last two of every
user are its own validation and test. A list continues the whole of a user's training history; the
test loader would give it the validation item too.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recbole_freqd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--out", default="lists.csv")
    parser.add_argument("--top", type=int, default=50)
    options, keys = parser.parse_known_args()
    recbole_freqd.register()
    sys.argv = [sys.argv[0], *keys]  # --key=value is RecBole's, for both models
    pairs, fields, data = training_pairs(options.dataset)
    sys.argv = [word for word in sys.argv if not word.startswith("--data_path")]
    # With `data`, these lists are refused as a teacher of a student on another split.
    about = {"left_out": "train", "data": data}
    write_lists(train(pairs), pairs, fields, options.top, Path(options.out), about)


def training_pairs(dataset: str) -> tuple[list[Any], Any, dict[str, str]]:
    """Tokens of users and items in the student's training data, oldest first; fields; a hash."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import init_seed

    from recbole_freqd.config.identity import data_fingerprint

    config = Config("BPR", dataset, config_dict={"load_col": None})
    init_seed(config["seed"], config["reproducibility"])
    data = create_dataset(config).build()[0]
    fields = data.uid_field, data.iid_field
    order = np.argsort(np.asarray(data.inter_feat[data.time_field]), kind="stable")
    ids = [np.asarray(data.inter_feat[field])[order] for field in fields]
    names = [data.id2token(field, column) for field, column in zip(fields, ids)]
    return names, fields, data_fingerprint(data)


def train(pairs: list[Any]) -> Any:
    """A SASRec and its data: a dataset of these pairs in the order in which they came."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import get_model, init_seed

    folder = Path("sequences") / "sequences"
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{user}\t{item}\t{time}" for time, (user, item) in enumerate(zip(*pairs)))
    head = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "sequences.inter").write_text("\n".join([head, *lines]) + "\n")
    keys = {
        "data_path": "sequences",
        "train_neg_sample_args": None,  # its loss is over all items
        "loss_type": "CE",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    }
    config = Config("SASRec", "sequences", config_dict=keys)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    model = get_model("SASRec")(config, loaders[0]._dataset).to(config["device"])
    trainer = Trainer(config, model)
    trainer.fit(loaders[0], loaders[1], show_progress=config["show_progress"])
    trainer.evaluate(loaders[1], load_best_model=True)
    return model.eval(), dataset, config["MAX_ITEM_LIST_LENGTH"]


def write_lists(
    trained: Any, pairs: list[Any], fields: Any, top: int, out: Path, about: dict[str, Any]
) -> None:
    """The best items after each whole history, without those that are in it."""
    from recbole_freqd.core.pair_files import Columns
    from recbole_freqd.jobs.recommend.lists import open_lists

    model, dataset, longest = trained
    users, items = (dataset.token2id(field, tokens) for field, tokens in zip(fields, pairs))
    item_names = dataset.field2id_token[fields[1]].astype(str)
    with open_lists(out, Columns(*fields), about) as write:
        for user in np.unique(users):
            history = items[users == user]
            scores = next_scores(model, history[-longest:], longest)
            scores[history] = -np.inf
            best = np.argsort(-scores, kind="stable")[:top]
            name = dataset.id2token(fields[0], [user]).astype(str)
            write(name, item_names[best][None], scores[best][None].astype(np.float32))


@torch.no_grad()
def next_scores(model: Any, history: np.ndarray, longest: int) -> np.ndarray:
    """(n_items,), how likely each item comes next; the padding never does."""
    from recbole.data.interaction import Interaction

    sequence = torch.zeros(1, longest, dtype=torch.long)
    sequence[0, : len(history)] = torch.from_numpy(history)
    asked = Interaction(
        {model.ITEM_SEQ: sequence, model.ITEM_SEQ_LEN: torch.tensor([len(history)])}
    )
    scores = model.full_sort_predict(asked.to(model.device)).view(-1).cpu().numpy()
    scores[0] = -np.inf
    return scores


if __name__ == "__main__":
    main()
