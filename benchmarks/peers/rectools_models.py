"""RecTools' own SASRec or BERT4Rec (softmax loss) on a log in our plain format, leave-one-out, full ranking.

Run it in a virtual environment of its own (`pip install "rectools[torch]"`), never in the project's:

    python benchmarks/peers/rectools_models.py DATA_DIR OUT.json [--model bert4rec] [--epochs 40] [--length 200]

The last event of a user is the test target, the one before it the validation target. Every `--every` epochs the
validation NDCG@10 is measured; the test figures written are those of the best epoch by validation.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel

warnings.filterwarnings("ignore")


def rank_metrics(recos: pd.DataFrame, targets: pd.DataFrame, k: int = 10) -> dict[str, float]:
    hits = recos.merge(targets, on=[Columns.User, Columns.Item])
    ranks = hits[Columns.Rank].to_numpy()
    ranks = ranks[ranks <= k]
    users = len(targets)
    return {
        f"hr@{k}": len(ranks) / users,
        f"ndcg@{k}": float((1 / np.log2(ranks + 1)).sum() / users),
        f"mrr@{k}": float((1 / ranks).sum() / users),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", choices=["sasrec", "bert4rec"], default="sasrec")
    parser.add_argument(
        "--mask-share", type=float, default=0.2, help="bert4rec: share of events that are hidden"
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002 - what the library draws from

    log = pd.read_csv(args.data / "interactions.csv", dtype={"user_id": str, "item_id": str})
    order = "timestamp" if "timestamp" in log else "position"
    log = log.sort_values(["user_id", order], kind="stable")
    back = log.groupby("user_id").cumcount(ascending=False)
    frame = pd.DataFrame(
        {
            Columns.User: log["user_id"],
            Columns.Item: log["item_id"],
            Columns.Weight: 1.0,
            # RecTools orders by a datetime, so a position becomes that many seconds
            Columns.Datetime: pd.to_datetime(log[order], unit="s"),
        }
    )
    train, seen = frame[back >= 2], frame[back >= 1]
    valid, test = frame[back == 1], frame[back == 0]
    known = set(train[Columns.Item])
    train_set, seen_set = Dataset.construct(train), Dataset.construct(seen)
    kind = {"sasrec": SASRecModel, "bert4rec": BERT4RecModel}[args.model]
    model = kind(
        n_factors=args.width,
        n_blocks=2,
        n_heads=2,
        session_max_len=args.length,
        dropout_rate=0.2,
        loss="softmax",
        lr=1e-3,
        batch_size=args.batch,
        epochs=args.every,
        verbose=0,
        deterministic=False,
        **({"mask_prob": args.mask_share} if args.model == "bert4rec" else {}),
    )
    rows, best = [], None
    spent = spent_cpu = 0.0
    for done in range(args.every, args.epochs + 1, args.every):
        start, cpu = time.perf_counter(), time.process_time()
        model.fit_partial(train_set, min_epochs=args.every, max_epochs=args.every)
        spent += time.perf_counter() - start
        spent_cpu += time.process_time() - cpu
        users = valid[Columns.User].unique()
        recos = model.recommend(users, train_set, k=10, filter_viewed=True, on_unsupported_targets="ignore")
        row = {"epoch": done, "train_s": round(spent, 1), "train_cpu_s": round(spent_cpu, 1)}
        row |= {f"valid_{k}": v for k, v in rank_metrics(recos, valid).items()}
        if best is None or row["valid_ndcg@10"] > best["valid_ndcg@10"]:
            recos = model.recommend(
                test[Columns.User].unique(),
                seen_set,
                k=10,
                filter_viewed=True,
                on_unsupported_targets="ignore",
            )
            best = row | {f"test_{k}": v for k, v in rank_metrics(recos, test).items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
        config = {k: str(v) for k, v in vars(args).items() if k not in ("out", "data")}
        found = {
            "config": config,
            "items_in_train": len(known),
            "users": len(test),
            "best": best,
            "epochs": rows,
        }
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
