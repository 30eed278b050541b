"""RecBole's own GRU4Rec, SASRec or BERT4Rec on a log in our plain format, leave-one-out, full ranking.

Run it in a virtual environment of its own (`pip install recbole`), never in the project's:

    python benchmarks/peers/recbole_models.py DATA_DIR OUT.json [--model GRU4Rec] [--epochs 40] [--length 50]

The last event of a user is the test target, the one before it the validation target, as RecBole's own
`eval_args: {split: {LS: valid_and_test}, order: TO, mode: full}` has it. What it counts as an epoch differs: it learns
from every prefix of a history as a sample of its own (GRU4Rec, SASRec), so that one of its epochs takes many times
longer; seconds and validation figures of each epoch are written, so that runs of equal epochs or of equal time can be
compared.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", choices=["GRU4Rec", "SASRec", "BERT4Rec"], default="GRU4Rec")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    folder = Path(tempfile.mkdtemp())
    log = pd.read_csv(args.data / "interactions.csv", dtype={"user_id": str, "item_id": str})
    order = "timestamp" if "timestamp" in log else "position"
    (folder / "log").mkdir()
    named = {"user_id": "user_id:token", "item_id": "item_id:token", order: "timestamp:float"}
    log[list(named)].rename(columns=named).to_csv(folder / "log" / "log.inter", sep="\t", index=False)
    width = {
        "GRU4Rec": {"embedding_size": args.width, "hidden_size": args.width, "num_layers": args.layers},
        "SASRec": {"hidden_size": args.width, "inner_size": 4 * args.width, "n_layers": args.layers},
        "BERT4Rec": {"hidden_size": args.width, "inner_size": 4 * args.width, "n_layers": args.layers},
    }[args.model]
    dropout = {"GRU4Rec": {"dropout_prob": args.dropout}}.get(
        args.model, {"hidden_dropout_prob": args.dropout, "attn_dropout_prob": args.dropout}
    )
    config = Config(
        model=args.model,
        dataset="log",
        config_dict={
            "data_path": str(folder),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "USER_ID_FIELD": "user_id",
            "ITEM_ID_FIELD": "item_id",
            "TIME_FIELD": "timestamp",
            "MAX_ITEM_LIST_LENGTH": args.length,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "group_by": "user",
                "mode": "full",
            },
            "metrics": ["Hit", "NDCG", "MRR"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "epochs": args.epochs,
            "stopping_step": args.epochs,
            "train_batch_size": args.batch,
            "eval_batch_size": 4096,
            "learning_rate": args.lr,
            "seed": args.seed,
            "use_gpu": False,
            "show_progress": False,
            "checkpoint_dir": str(folder),
            **width,
            **dropout,
        },
    )
    init_seed(config["seed"], reproducibility=True)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    rows: list[dict[str, float]] = []
    began, cpu = time.perf_counter(), time.process_time()

    def told(epoch: int, score: float) -> None:
        spent = {"train_s": time.perf_counter() - began, "train_cpu_s": time.process_time() - cpu}
        rows.append({"epoch": epoch + 1, "valid_ndcg@10": score, **spent})
        print(json.dumps(rows[-1]), flush=True)

    _, best = trainer.fit(train, valid, verbose=False, saved=True, show_progress=False, callback_fn=told)
    found = trainer.evaluate(test, load_best_model=True, show_progress=False)
    said = {k: str(v) for k, v in vars(args).items() if k not in ("out", "data")}
    report = {"config": said, "best_valid": dict(best), "test": dict(found), "epochs": rows}
    args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
