"""What two fused views of an item cost beside ids alone: steps of training on a log of MovieLens-1M's size.

    python -m benchmarks.train_speed [--length 200 50] [--runs 5]

The log and the vectors are drawn at random (speed does not depend on them): 6,040 users, 3,416 items, 1,000,000 events;
a text vector of 384 numbers, a picture's of 1,280, a further text's of 384, and 1 to 8 fine tokens of 384 an item. One
thread.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from benchmarks.harness import Comparison, measure, save
from recommender import model as models
from recommender import objectives
from recommender.config import Config
from recommender.events import EventLog
from recommender.fit import adamw
from recommender.items import Stored, Tokens, Vectors
from recommender.sequences import TrainingBatches
from recommender.splits import Split, leave_one_out

USERS, ITEMS, EVENTS = 6_040, 3_416, 1_000_000
STEPS = 6  # of one measurement
BATCH = 128
DMESR = {"tower": "dmesr", "items": "id+text+image+more+tokens"}


def log() -> Split:
    """Histories with MovieLens-1M's spread of lengths: most short, few of more than a thousand."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(4.6, 1.0, USERS), 20, 2_000)
    lengths = np.maximum(lengths * EVENTS / lengths.sum(), 20).astype(np.int64)
    users = np.repeat(np.arange(USERS), lengths)
    items = np.minimum(random.zipf(1.3, len(users)), ITEMS) - 1
    places = np.arange(len(users))
    table = pa.table(
        {
            "user_id": pa.array(np.char.mod("u%04d", users)),
            "item_id": pa.array(np.char.mod("i%04d", random.permutation(ITEMS)[items])),
            "position": pa.array(places),
        }
    )
    return leave_one_out(EventLog.from_table(table))


def features(items: int) -> dict[str, Stored]:
    random = np.random.default_rng(1)

    def vectors(width: int) -> Vectors:
        drawn = random.normal(size=(items, width)).astype(np.float32)
        return Vectors(drawn, random.random(items) < 0.95)

    counts = random.integers(1, 9, items)
    tokens = random.normal(size=(int(counts.sum()), 384)).astype(np.float32)
    return {
        "text": vectors(384),
        "image": vectors(1_280),
        "more": vectors(384),
        "tokens": Tokens(tokens, np.r_[0, np.cumsum(counts)].astype(np.int64)),
    }


def steps(split: Split, stored: dict[str, Stored], **options: object) -> Callable[[], None]:
    """Some steps of training, going on from where the last call stopped."""
    config = Config.of(batch=BATCH, windows="random", **options)
    torch.manual_seed(0)
    model = models.build(config, split.counts, stored)
    objective, optimizer = objectives.build(model, config, split, stored).train(), adamw(model, config)
    made = TrainingBatches(split, length=model.backbone.reads, batch=BATCH, seed=0, windows="random")
    batches = (batch for number in itertools.count(1) for batch in made.epoch(number))

    def some() -> None:
        for batch in itertools.islice(batches, STEPS):
            loss = objective(batch)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return some


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, nargs="+", default=[200, 50])
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    split = log()
    stored = features(split.log.n_items)
    rows = []
    every = itertools.product(asked.length, ("concat", "sum"), ("sasrec", "gru4rec", "bert4rec"))
    for length, views, backbone in every:
        shared = {"length": length, "backbone": backbone}
        case = Comparison(
            f"{backbone}, length {length}, dmesr, views {views}",
            f"{STEPS} steps of {backbone} at length {length} with two fused views ({views}) against ids alone, width "
            f"64, batch {BATCH}",
            steps(split, stored, **shared, **DMESR, views=views),
            steps(split, stored, **shared, items="id"),
            STEPS,
            "steps",
            1 / 1.5,
        )
        rows.append(measure(case, asked.runs))
    save("train_speed", rows)


if __name__ == "__main__":
    main()
