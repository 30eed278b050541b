"""Fitting the weights of a fused item: on items alone, or taken from a run that was trained on events.

On items alone, for a catalogue that has no event yet. Of each item of a batch two halves are made: every token (a
stored vector) is left out with probability p, drawn anew and independently for either half. With z = [c~/|c~|; f~/|f~|]
of a half, and InfoNCE symmetric with the other items of the batch as negatives,

    L = L_align + L_view + L_cross
    L_view  = InfoNCE(z1, z2)                       the halves of an item know each other
    L_cross = (InfoNCE(c~1, f~2) + InfoNCE(c~2, f~1)) / 2    a half's coarse view knows the other half's fine one
    L_align = mean over pairs of coarse inputs of InfoNCE between their vectors behind the adapters

L_view is SimCLR's loss (Chen et al. 2020, arXiv 2002.05709); leaving out as the only augmentation is SimCSE's (Gao et
al. 2021, arXiv 2104.08821), subsets of what is known of an item as its views Yao et al.'s (CIKM 2021, arXiv
2007.12865). L_align is the alignment of DMESR. Ours: that tokens are what is left out, L_cross, that it goes across the
halves (within one, attention would have shown each view the other's tokens), and equal weights of the three.

Items are measured that were not learned from; their scalings are not learned from either.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from featurestore.errors import BadInput
from ingest.encode.dmesr import FuseOptions
from ingest.fuse.align import Temperature, agreement, between_views, info_nce
from ingest.fuse.dual import DualView, Fusion, Placed, Views
from ingest.fuse.stored import Stored, Tokens
from recommender import checkpoint, data
from recommender.config import SOFT_TEMPERATURE
from recommender.events import Strings
from recommender.fit import pick_device
from recommender.items import DualTower
from recommender.runs import Run
from recommender.trainer import Plan, Progressed, Row, Trainer

Progress = Callable[[Row], None]
FEWEST = 8  # items with vectors, from which anything can be learned and measured
MEASURED = 5_000  # items that are held out or measured, at most
FEW = 100  # items on which recall@10 says little: of ten or fewer it is 1 by construction


@dataclass(frozen=True)
class Fit:
    """A fitted view. coarse, fine: the features of either side. scale: (2,), of either view.

    report: rows of the measure: when ("raw", "before", "after"), views, items, alignment, uniformity, recall@1, @10.
    learnt, held_out: items learned from and measured on. history: a row an epoch; none for what a run learned.
    """

    view: DualView
    coarse: list[str]
    fine: list[str]
    scale: Tensor
    report: list[Row]
    learnt: int
    held_out: int
    best_epoch: int
    epochs: int
    seconds: float
    history: list[Row] = field(default_factory=list)


# ---- on items alone


class Halves(nn.Module):
    """The objective above; a batch is rows (n,) of different items."""

    def __init__(self, view: DualView, options: FuseOptions) -> None:
        super().__init__()
        self.view, self.align = view, options.align
        self.temperature = Temperature(options.temperature, options.learn_temperature)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        one, two = self.view(rows), self.view(rows)
        tau = self.temperature()
        terms = {
            "view": info_nce(joined(one), joined(two), tau),
            "cross": (info_nce(one.coarse, two.fine, tau) + info_nce(two.coarse, one.fine, tau)) / 2,
        }
        if self.align != "none":
            views, there = self.view.aligned(rows)
            own = SOFT_TEMPERATURE if self.align == "soft" else tau
            terms["align"] = between_views(views, there, own, self.align)
        return {"loss": torch.stack(list(terms.values())).sum()} | terms


def joined(views: Views) -> Tensor:
    """(n, 2 d): both views, each of unit length."""
    return torch.cat([normalize(views.coarse, dim=-1), normalize(views.fine, dim=-1)], dim=-1)


class ItemBatches:
    """Rows of n items in another order each epoch, `size` at a time; of a rest smaller than that none is learned."""

    def __init__(self, n: int, size: int, seed: int) -> None:
        self.n, self.size, self.seed = n, min(size, n), seed

    def __len__(self) -> int:
        return self.n // self.size

    def epoch(self, number: int) -> Iterator[Tensor]:
        order = np.random.default_rng([self.seed, number]).permutation(self.n)
        for place in range(len(self)):
            yield torch.from_numpy(order[place * self.size : (place + 1) * self.size])


def learn(
    stored: Mapping[str, Stored],
    ids: Strings,
    options: FuseOptions,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Fit:
    """Fit on items alone. stored: each input over the items `ids`, in the order in which the inputs are declared.

    The same arguments give the same weights on the same machine's CPU. Raises BadInput for too few items with vectors.
    """
    begun = time.perf_counter()
    train, held = held_out(stored, ids, options)
    coarse, fine = sides(stored)
    place = pick_device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(options.seed)
        known = {name: each.take(train) for name, each in stored.items()}
        view = DualView(known, coarse, fine, _fusion(options)).to(place)
        rest = {name: each.take(held) for name, each in stored.items()}
        placed = view.placed(rest)
        before = measured(view, placed, options.seed)
        monitor = "recall@1" if len(held) < FEW else "recall@10"
        objective = Halves(view, options).to(place)
        with tempfile.TemporaryDirectory(prefix="dualview-fit-") as folder:
            trainer = Trainer(
                objective,
                view,
                torch.optim.AdamW(objective.parameters(), lr=options.lr),
                ItemBatches(len(train), options.batch, options.seed),
                lambda: {monitor: monitored(measured(view, placed, options.seed), view, monitor)},
                Plan(epochs=options.epochs, patience=options.patience, monitor=monitor),
                Path(folder),
            )

            def told(at: Progressed, row: Row) -> None:
                if progress is not None:
                    progress(row)

            at = trainer.run(told)
            weights, _ = checkpoint.load(Path(folder) / checkpoint.BEST)
        view.load_state_dict(checkpoint.under("model", weights))
        view.eval()
        after = measured(view, placed, options.seed)
    report = [
        {"when": when} | row
        for when, rows in (("raw", raw(rest)), ("before", before), ("after", after))
        for row in rows
    ]
    return Fit(
        view,
        coarse,
        fine,
        torch.ones(2),
        report,
        len(train),
        len(held),
        at.best_epoch,
        at.epoch,
        time.perf_counter() - begun,
        at.rows,
    )


def _fusion(options: FuseOptions) -> Fusion:
    return Fusion(
        width=options.width,
        heads=options.heads,
        adapter=options.adapter,
        attend=options.attend,
        residual=options.residual,
        norm=options.norm,
        pooling=options.pooling,
        dropout=options.dropout,
        token_dropout=options.token_dropout,
        scaling=options.scaling,
        scaling_dim=options.scaling_dim,
    )


def sides(stored: Mapping[str, Stored]) -> tuple[list[str], list[str]]:
    """(coarse, fine): inputs of one vector an item, and of several."""
    fine = [name for name, each in stored.items() if isinstance(each, Tokens)]
    return [name for name in stored if name not in fine], fine


def held_out(
    stored: Mapping[str, Stored], ids: Strings, options: FuseOptions
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to learn from and rows to measure on, of items that have a vector; by a hash of the id, so that an item
    stays on its side while others come and go.
    """
    some = np.flatnonzero(np.logical_or.reduce([each.present for each in stored.values()]))
    if len(some) < FEWEST:
        raise BadInput(
            f"{len(some)} items have a vector to fuse; a fit takes {FEWEST}",
            remedy="materialize the inputs, or ingest more items",
        )
    keys = [hashlib.sha256(f"{options.seed}:{ids[row]}".encode()).hexdigest() for row in some]
    order = some[np.argsort(np.asarray(keys))]
    apart = min(max(round(options.hold_out * len(some)), 2), MEASURED)
    return np.sort(order[apart:]), np.sort(order[:apart])


# ---- how well views agree


@torch.no_grad()
def measured(view: DualView, placed: Mapping[str, Placed], seed: int = 0) -> list[Row]:
    """Agreement of views of the items in `placed`, `view` with dropout off.

    Rows: each pair of inputs behind their adapters (of several vectors their mean); "coarse ~ fine", the two fused
    views; "coarse alone ~ fine alone", either made without a token of the other side, as attention shows each side
    the other's; "half ~ half", two halves of an item as learning sees them, where it leaves tokens out.
    """
    learning = view.training
    view.eval()
    means, there = _means(view, placed)
    rows: list[Row] = [*agreement(means, there, tuple(placed))]
    whole = view(placed=placed)
    both = torch.ones(len(whole.coarse), 2, dtype=torch.bool, device=whole.coarse.device)
    rows += agreement(torch.stack([whole.coarse, whole.fine], dim=1), both, ("coarse", "fine"))
    if (apart := _apart(view, placed)) is not None:
        rows += agreement(*apart, ("coarse alone", "fine alone"))
    if not view.fusion.token_dropout:
        view.train(learning)
        return rows
    device = whole.coarse.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        view.train()
        halves = torch.stack([joined(view(placed=placed)) for _ in range(2)], dim=1)
    rows += agreement(halves, both, ("half", "half"))
    view.train(learning)
    return rows


def monitored(rows: list[Row], view: DualView, recall: str) -> float:
    """What epochs are chosen by: the mean recall of what the objective draws together."""
    pairs = {f"{a} ~ {b}" for a, b in itertools.combinations(view.views, 2)}
    pairs |= {"coarse alone ~ fine alone", "half ~ half"}
    return float(np.mean([row[recall] for row in rows if row["views"] in pairs]))


def raw(stored: Mapping[str, Stored]) -> list[Row]:
    """Agreement of the stored vectors themselves, of several their mean, where two inputs are of one size."""
    rows: list[Row] = []
    for (a, one), (b, two) in itertools.combinations(stored.items(), 2):
        if one.width == two.width:
            both = torch.from_numpy(np.stack([one.present, two.present], axis=1))
            means = torch.from_numpy(np.stack([one.means, two.means], axis=1))
            rows += agreement(means, both, (a, b))
    return rows


def _means(view: DualView, placed: Mapping[str, Placed]) -> tuple[Tensor, Tensor]:
    """(n, S, d), (n, S): the mean of each input's tokens behind its adapter, in the order of `placed`."""
    by_name = {source.name: source for side in (view.coarse, view.fine) for source in side.sources}
    values, there = [], []
    for name, each in placed.items():
        tokens, mask = by_name[name](None, each)
        weight = mask.to(tokens.dtype)[..., None]
        values.append((tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1))
        there.append(mask.any(dim=1))
    return torch.stack(values, dim=1), torch.stack(there, dim=1)


def _apart(view: DualView, placed: Mapping[str, Placed]) -> tuple[Tensor, Tensor] | None:
    """Both views, each without the other side's tokens, and where there are any; None where both read the same."""
    names = [{source.name for source in side.sources} for side in (view.coarse, view.fine)]
    if names[0] & names[1]:
        return None

    def without(side: set[str]) -> dict[str, Placed]:
        return {
            name: each._replace(there=torch.zeros_like(each.there)) if name in side else each
            for name, each in placed.items()
        }

    views = torch.stack([view(placed=without(names[1])).coarse, view(placed=without(names[0])).fine], dim=1)
    some = [
        torch.stack([placed[name].there.any(dim=1) for name in sorted(side)]).any(dim=0) for side in names
    ]
    return views, torch.stack(some, dim=1)


# ---- from a run


def check_dual(run: Run) -> None:
    """Raises BadInput for a run whose tower is no dual view, so that it has no weights to take."""
    if run.config.tower != "dmesr":
        raise BadInput(
            f"run {run.name} has the tower '{run.config.tower}', which fuses no views",
            remedy="train one: dualview train STORE --items id+... --set tower=dmesr",
        )


def of_run(run: Run) -> Fit:
    """The weights of a run's item tower, which training events taught; measured on items that the run knows.

    Raises as `check_dual` does.
    """
    begun = time.perf_counter()
    check_dual(run)
    stored = data.features_of(run.opened_release(), run.config, run.item_ids)
    tower = run.load_model(features=stored).tower
    assert isinstance(tower, DualTower)
    coarse, fine = sides(stored)
    some = np.flatnonzero(np.logical_or.reduce([each.present for each in stored.values()]))
    places = some[np.unique(np.linspace(0, len(some) - 1, min(len(some), MEASURED)).astype(np.int64))]
    known = {name: each.take(places) for name, each in stored.items()}
    found = (("raw", raw(known)), ("after", measured(tower.view, tower.view.placed(known), run.config.seed)))
    report = [{"when": when} | row for when, rows in found for row in rows]
    metrics = run.metrics()
    return Fit(
        tower.view.eval(),
        coarse,
        fine,
        tower.scale.detach(),
        report,
        len(some),
        0,
        int(metrics.get("best_epoch") or 0),
        int(metrics.get("epochs", 0)),
        time.perf_counter() - begun,
    )
