"""The report of a study of kind "msr", from its records alone: one table, the tests, and what was asked of whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from featurestore.errors import Conflict
from featurestore.files import write_text
from recommender.compare import Float64, apart, holm, over_seeds, paired, randomisation, spread
from recommender.msr.figures import OF_USERS, POOLED
from recommender.msr.study.grid import MsrStudy
from recommender.study.printed import tidy

METRICS = (POOLED, OF_USERS, "HR@5", "MRR@5")
TESTED = OF_USERS  # the metric that is compared user by user
LEVEL = 0.05
OF = {"fine-tuned": "fine-tuned", "zero-shot": "not trained", "sequential": "sequential", "floor": "floor"}


@dataclass(frozen=True, eq=False)
class Row:
    """One scorer. values: metric -> a figure a seed. users: (n,) its values of `TESTED`, mean over seeds.

    against: it minus the reference, user by user; above: it minus .5, which is chance. p_holm: of either family.
    """

    name: str
    of: str
    seeds: int
    planned: int
    values: Mapping[str, list[float]]
    users: Float64
    record: Mapping[str, Any]
    against: dict[str, Any] | None = None
    above: dict[str, float] | None = None


def write(study: MsrStudy, cells: Sequence[Mapping[str, Any]], out: str | Path) -> list[Path]:
    """REPORT.md, cells.csv and comparisons.csv into the folder `out`. cells: records, as `records.results` gives them.

    Raises Conflict where records are of different pairs.
    """
    out = Path(out)
    rows, part = table(study, cells)
    texts = {
        "REPORT.md": markdown(study, rows, part),
        "cells.csv": tidy(_measured(cells), ("cell", "of", "arm", "seed", "part", "metric", "value")),
        "comparisons.csv": tidy(_compared(study, rows), COMPARED),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def table(study: MsrStudy, cells: Sequence[Mapping[str, Any]]) -> tuple[list[Row], str]:
    """A row a scorer, floors first, and the part ("test", or "valid" while a test is closed) that they are of."""
    if len({cell["pairs_hash"] for cell in cells}) > 1:
        raise Conflict(
            "these cells were asked about different pairs",
            remedy="run those that are outdated again: --again",
        )
    part = "test" if all(cell["test"] is not None for cell in cells) else "valid"
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault(cell["tower"] or cell["baseline"], []).append(cell)
    rows = [
        _row(study, name, found[name], part) for name in (*study.baselines, *study.towers) if name in found
    ]
    base = next((row for row in rows if row.name == study.reference), None)
    others = [row for row in rows if base is not None and row is not base]
    compared = {row.name: _against(row, base) for row in others if base is not None}
    chances = {row.name: randomisation(row.users - 0.5) for row in rows}
    corrected = dict(zip(compared, holm([each["p"] for each in compared.values()]), strict=True))
    above = dict(zip(chances, holm(list(chances.values())), strict=True))
    told = [
        Row(
            **{
                **{name: getattr(row, name) for name in Row.__dataclass_fields__},
                "against": compared[row.name] | {"p_holm": corrected[row.name]}
                if row.name in compared
                else None,
                "above": {"p": chances[row.name], "p_holm": above[row.name]},
            }
        )
        for row in rows
    ]
    return told, part


def _row(study: MsrStudy, name: str, cells: Sequence[Mapping[str, Any]], part: str) -> Row:
    values = {metric: [float(cell[part]["metrics"][metric]) for cell in cells] for metric in METRICS}
    users = over_seeds([_of_users(Path(cell["ranks"]), part) for cell in cells])
    planned = sum((cell.tower or cell.backbone) == name for cell in study.cells())
    return Row(name, cells[0]["of"], len(cells), planned, values, users, cells[0])


def _of_users(path: Path, part: str) -> Float64:
    kept = pq.read_table(path, filters=[("part", "=", part)])
    return np.asarray(kept[TESTED].to_numpy(), dtype=np.float64)


def _against(row: Row, base: Row) -> dict[str, Any]:
    return asdict(paired(row.users, base.users)) | {
        "seeds_apart": apart(row.values[TESTED], base.values[TESTED])
        if row.seeds > 1 and base.seeds > 1
        else None
    }


# ---- written


def markdown(study: MsrStudy, rows: Sequence[Row], part: str) -> str:
    first = rows[0].record
    every, done = len(study.cells()), sum(row.seeds for row in rows)
    users = first[part]["users"]
    lines = [f"# {study.name}", "", f"{done} of {every} cells are done. {_headline(study, rows)}", ""]
    if part == "valid":
        lines += [
            "The test is closed for some cells: these are figures of validation, by which epochs were chosen.",
            "",
        ]
    protocol = first["protocol"]
    lines += [f"Asked about {users:,} users of {part}. {protocol[:1].upper()}{protocol[1:]}.", ""]
    lines += _grid(headers(study), [printed(study, row) for row in rows])
    lines += ["What the columns mean:", ""]
    lines += [f"- **{term}**: {text}" for term, text in meanings(study)]
    lines += ["", "## The arms", ""]
    lines += [*(f"- **{name}**: {_arm(study, name, rows)}" for name in study.towers), ""]
    chosen = [(row, row.record) for row in rows if row.of == "fine-tuned"]
    if chosen:
        lines += ["## Training", ""]
        lines += _grid(
            ["arm", "learned weights", "rate", "best epoch", "seconds to train", "to score"],
            [
                [
                    row.name,
                    f"{record['cost']['parameters']:,}",
                    f"{record['rate']:g}",
                    f"{record['best_epoch']} of {record['epochs']}",
                    f"{record['cost']['seconds']:,.0f}",
                    f"{record['cost']['evaluation_seconds']:,.0f}",
                ]
                for row, record in chosen
            ],
        )
        lines += ["Of the first seed; rate and epoch were chosen by AUC on validation.", ""]
    return "\n".join(lines)


def headers(study: MsrStudy) -> list[str]:
    return ["scorer", "kind", "seeds", *METRICS, f"{TESTED} minus {study.reference}", "p", "p above chance"]


def brief(study: MsrStudy, row: Row) -> list[str]:
    """The same for a terminal: fewer digits, no interval."""
    whole = printed(study, row)
    figures = []
    for metric in METRICS:
        mean, deviation = spread(row.values[metric])
        figures.append(f"{mean:.3f}" + (f" ±{deviation:.3f}" if row.seeds > 1 else ""))
    apart_by = "" if row.against is None else f"{row.against['difference']:+.3f}"
    return [*whole[:3], *figures, apart_by, *whole[-2:]]


def printed(study: MsrStudy, row: Row) -> list[str]:
    """A row of the table as texts."""
    figures = []
    for metric in METRICS:
        mean, deviation = spread(row.values[metric])
        figures.append(f"{mean:.4f}" + (f" ± {deviation:.4f}" if row.seeds > 1 else ""))
    told = ["", ""]
    if row.against is not None:
        found = row.against
        told = [
            f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})",
            _p(found["p_holm"]),
        ]
    assert row.above is not None
    above = _p(row.above["p_holm"])
    if row.users.mean() < 0.5 and row.above["p_holm"] < LEVEL:
        above += " (below)"
    seeds = str(row.seeds) if row.seeds == row.planned else f"{row.seeds} of {row.planned}"
    return [row.name, OF[row.of], seeds, *figures, *told, above]


def meanings(study: MsrStudy) -> list[tuple[str, str]]:
    return [
        (POOLED, "chance that a taken item scores above one that was never taken, all users' rows together"),
        (OF_USERS, "the same inside each user's candidates, mean over users"),
        ("HR@5, MRR@5", "the taken item is among the first 5 candidates; 1 / rank, 0 beyond 5"),
        ("±", "standard deviation over seeds of training; pairs and users are the same"),
        (
            f"{TESTED} minus {study.reference}, p",
            "user by user, each user's values averaged over seeds first, with a 95 % interval over users; paired "
            "randomisation test, Holm's correction over this column; it speaks of these trained models",
        ),
        (
            "p above chance",
            f"that {TESTED} is .5: the same test, Holm's correction over this column; above {LEVEL:g} it may be chance",
        ),
    ]


def _headline(study: MsrStudy, rows: Sequence[Row]) -> str:
    named = {row.name: row for row in rows}
    told = []
    for row in rows:
        if row.of == "zero-shot" and row.above is not None:
            chance = row.above["p_holm"] >= LEVEL
            told.append(
                f"Before fine-tuning ({row.name}) AUC is {spread(row.values[POOLED])[0]:.3f}"
                + (", not to be told from chance." if chance else ", which is not chance.")
            )
    base = named.get(study.reference)
    if base is not None:
        told.append(f"{base.name} has AUC {spread(base.values[POOLED])[0]:.3f}.")
    return " ".join(told)


def _arm(study: MsrStudy, name: str, rows: Sequence[Row]) -> str:
    arm = study.arms[name]
    record = next((row.record for row in rows if row.name == name), {})
    if arm.of == "sequential":
        return f"{arm.options.backbone}, items {arm.options.items}"  # type: ignore[union-attr]
    options: Any = arm.options
    told = arm.preference
    if told is None:
        user = f"the latest {options.history} titles, written by no model"
    else:
        how = "at once" if told.direct else f"in blocks of {told.block}"
        user = f"a preference written by {told.backend} {how}, of {told.summary or 'the text columns'}"
    # with image unset a picture is shown where the model sees: what came of that stands in the record
    pictured = record.get("shown", {}).get("picture", options.image)
    shown = " and the picture" if pictured else ""
    item = f"{options.text}{f' and {options.summary}' if options.summary else ''}{shown}"
    return f"{OF[arm.of]}; user: {user}; item: {item}"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"


COMPARED = (
    "arm", "against", "metric", "users", "mean", "reference", "difference", "low", "high", "gain", "gain_low",
    "gain_high", "p", "p_t", "p_holm", "seeds_apart",
)  # fmt: skip


def _compared(study: MsrStudy, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"arm": row.name, "against": study.reference, "metric": TESTED} | row.against
        for row in rows
        if row.against is not None
    ]


def _measured(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for cell in cells:
        about = {
            "cell": cell["cell"],
            "of": cell["of"],
            "arm": cell["tower"] or cell["baseline"],
            "seed": cell["seed"],
        }
        for part in ("valid", "test"):
            if cell[part] is not None:
                found += [
                    about | {"part": part, "metric": m, "value": v} for m, v in cell[part]["metrics"].items()
                ]
    return found
