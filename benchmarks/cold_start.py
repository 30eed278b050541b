"""How new items are recommended: a tenth of the items is hidden from training, then test users who took one are asked.

For each seed another tenth is drawn (hide_seed = seed), and every arm of that seed is trained without it. What arms are
told apart by is chosen on `--choose`: each user's last event is taken off the log, and what was validation is asked
instead, with a tenth of its own; no test event is read there. The test is opened once for each run, when it ends.

python -m benchmarks.cold_start STORE --out DIR [--features text+words+text_tokens] [--set length=50 ...]
    [--arms id text ...] [--seeds 0 1 2] [--choose] [--device cuda]

A killed run goes on where it stopped; arms and seeds that are done are not done again. Prints a Markdown table of all
that is in DIR.

amazon-scientific: --set length=50 dropout=0.5 patience=8 eval_every=2 epochs=120
ml-1m-posters:     --features text+words+image+ocr_text+text_tokens --set epochs=100 patience=8 eval_every=2
microlens-50k:     --set loss=sampled_softmax negatives=1024 length=30 dropout=0.3 batch=256
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualview.training import parse_options
from featurestore import files, release
from recommender import data
from recommender.baselines import content_knn
from recommender.cold import evaluate_new, floors
from recommender.config import Config
from recommender.evaluate import evaluate, scores_of
from recommender.events import EventLog, Int64
from recommender.fit import fit, pick_device
from recommender.items import Stored
from recommender.runs import Run
from recommender.splits import Split, hide_items, leave_one_out

SHARE = 0.1
CHOICE_SEED = 100  # of the items that are hidden while choosing
HALF_LIVES = (1.0, 2.0, 4.0)
ARMS: dict[str, dict[str, Any]] = {
    "id": {"items": "id"},
    "text": {"items": "text"},
    "id+text": {"items": "id+text"},
    "id+text-drop0.5": {"items": "id+text", "id_dropout": 0.5},
    "dmesr": {"tower": "dmesr"},
    "dmesr-drop0.3": {"tower": "dmesr", "id_dropout": 0.3},
    "dmesr-drop0.5": {"tower": "dmesr", "id_dropout": 0.5},
    "dmesr-no-id": {"tower": "dmesr", "id": False},
}
FIGURES = ("HR@10", "NDCG@10")
PROTOCOL = ("split", "k_core", "repeat", "hide_items", "hide_seed")


def config_of(arm: str, seed: int, hidden_by: int, features: str, options: Mapping[str, Any]) -> Config:
    own = dict(ARMS[arm])
    if own.get("tower"):
        own["items"] = features if own.pop("id", True) is False else f"id+{features}"
    given = dict(options) | own | {"seed": seed, "hide_items": SHARE, "hide_seed": hidden_by}
    return Config.of(**given)


def earlier(log: EventLog) -> EventLog:
    """The log without the last event of each user."""
    keep = np.ones(len(log), dtype=np.bool_)
    keep[log.offsets[1:] - 1] = False
    return log.select(keep)


def material(
    opened: release.Release, features: str, hidden_by: int, choose: bool
) -> tuple[Split, dict[str, Stored]]:
    """A split with hidden items, and the stored vectors of its items."""
    log = EventLog.from_release(opened)
    split = hide_items(leave_one_out(earlier(log) if choose else log), SHARE, hidden_by)
    return split, data.features_of(opened, Config.of(items=features), split.log.item_ids)


def trained(
    source: release.Release | Split,
    split: Split,
    stored: Mapping[str, Stored],
    config: Config,
    folder: Path,
    device: str,
) -> dict[str, Any]:
    """Train one arm, ask it once, and say what was found."""
    given = {name: stored[name] for name in config.features}
    run: Run = fit(source, config, folder, features=given, device=device)
    scorer = scores_of(run.load_model(features=given, device=str(pick_device(device))), split, "test")
    found = evaluate_new({"run": scorer}, split)
    warm = evaluate(scorer, split, "test", (10,), users=warm_users(split), lists=False)
    return {
        "config": config.model_dump(mode="json"),
        "metrics": run.metrics(),
        "split_hash": run.split_hash,
        "users": found.users,
        "full": found.full["run"].to_dict()["metrics"],
        "among": found.among["run"].to_dict()["metrics"],
        "warm": {"users": len(warm.users), **warm.to_dict()["metrics"]},
    }


def warm_users(split: Split) -> Int64:
    """Users with a test target that is not hidden."""
    users = split.users("test")
    return users[~split.is_hidden[split.targets("test")]]


def floor_rows(split: Split, stored: Mapping[str, Stored], choose: bool) -> dict[str, Any]:
    scorers = floors(split, stored)
    if choose:
        scorers |= {
            f"content_knn:{name}, half-life {half:g}": content_knn(split, "test", [stored[name]], half)
            for name in stored
            for half in HALF_LIVES
        }
    found = evaluate_new(scorers, split)
    others = warm_users(split)
    warm = {name: evaluate(s, split, "test", (10,), users=others, lists=False) for name, s in scorers.items()}
    return {
        name: {
            "users": found.users,
            "full": found.full[name].to_dict()["metrics"],
            "among": found.among[name].to_dict()["metrics"],
            "warm": {"users": len(warm[name].users), **warm[name].to_dict()["metrics"]},
        }
        for name in scorers
    }


def table(folder: Path) -> str:
    """Mean and standard deviation over seeds of what stands in a folder of results."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("floors--*.json")):
        for name, found in files.read_json(path).items():
            rows[name].append(found)
    for arm in ARMS:
        for path in sorted(folder.glob(f"{arm}--*.json")):
            rows[arm].append(files.read_json(path))
    columns = [("full", m) for m in FIGURES] + [("among", m) for m in FIGURES] + [("warm", "NDCG@10")]
    lines = [
        "| scorer | seeds | new items, full: HR@10 | NDCG@10 | among hidden only: HR@10 | NDCG@10 "
        "| other items, full: NDCG@10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        cells = []
        for part, metric in columns:
            values = np.array([one[part][metric] for one in found])
            spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.4f}{spread}")
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    users = [found["users"] for found in rows.get("chance", [])]
    return "\n".join([*lines, "", f"users asked, by seed: {users}"])


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("store", type=Path)
    parser.add_argument("--release", default="latest")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--features", default="text+words+text_tokens", help="of dmesr and of the neighbours")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="training options")
    parser.add_argument("--arms", nargs="*", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--choose", action="store_true", help="ask what was validation, never the test")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args(given)
    opened, options = release.open(asked.store, asked.release), parse_options(asked.set)
    if of_protocol := [name for name in PROTOCOL if name in options]:
        parser.error(
            f"{', '.join(of_protocol)}: what is held out and how it is ranked is the same for all here"
        )
    folder = asked.out / ("choice" if asked.choose else "test")
    folder.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        hidden_by = CHOICE_SEED + seed if asked.choose else seed
        split, stored = material(opened, asked.features, hidden_by, asked.choose)
        place = folder / f"floors--{seed}.json"
        if not place.exists():
            files.write_json(place, floor_rows(split, stored, asked.choose))
        for arm in asked.arms:
            place = folder / f"{arm}--{seed}.json"
            config = config_of(arm, seed, hidden_by, asked.features, options)
            if place.exists():
                if files.read_json(place)["config"] != config.model_dump(mode="json"):
                    parser.error(f"{place} is of other options: give another --out")
                continue
            run = folder / "runs" / f"{arm}--{seed}"
            source = split if asked.choose else opened
            found = trained(source, split, stored, config, run, asked.device)
            files.write_json(place, found)
            print(
                f"{run.name}: best epoch {found['metrics']['best_epoch']}, new items {found['full']}",
                flush=True,
            )
    print(table(folder))


if __name__ == "__main__":
    main()
