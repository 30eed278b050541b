"""`dualview fit`: fit a learned transform again on today's catalogue, or the weights of a fused feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualview.commands.common import AsJson, Device, DryRun, StorePath, Wait

if TYPE_CHECKING:
    from pathlib import Path

    from dualview.fusion import FusionPlan, FusionReport


def run(
    store: StorePath,
    feature: Annotated[
        str,
        typer.Argument(
            metavar="FEATURE", help="A feature whose encoder is fitted, or of kind fuse.", show_default=False
        ),
    ],
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit again although a fit exists; this makes a new recipe.")
    ] = False,
    weights_of: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Of kind fuse: take this run's weights, which events taught, instead of learning from items alone.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Fit a learned transform (for instance TF-IDF + SVD, or the weights of a fused feature) on today's catalogue.

    The first `materialize` fits what was never fitted, but trains no weights: those of kind fuse are fitted here. New
    items never trigger a refit. A refit makes a new recipe, so every cell of the feature is computed anew, while
    releases keep serving the old one.
    """
    from dualview import console
    from dualview.commands.common import open_store
    from featurestore import schema
    from ingest.fitting import fit_transform, plan_fit

    opened = open_store(store)
    if opened.definitions.get(feature).kind == schema.FUSE or weights_of is not None:
        from dualview.fusion import fit_fusion, plan_fusion

        if dry_run:
            _planned(plan_fusion(opened, feature, run=weights_of, refit=refit), json)
            return
        made = fit_fusion(
            opened,
            feature,
            run=weights_of,
            refit=refit,
            device=device,
            wait=wait,
            progress=None if json else _epoch,
        )
        _fitted(made, store, json)
        return
    if dry_run:
        plan = plan_fit(opened, feature, refit=refit)
        if json:
            console.as_json({"dry_run": True} | plan.to_dict())
            return
        console.say(
            f"{feature}: {plan.encoder} would be fitted on {plan.texts:,} texts ({', '.join(plan.columns)}) of "
            f"{plan.items:,} items; "
            + (f"recipe {plan.recipe} would be left, its cells computed anew; " if plan.recipe else "")
            + "nothing was written"
        )
        return
    recipe = fit_transform(opened, feature, refit=refit, wait=wait)
    if json:
        console.as_json({"feature": feature, "recipe": recipe.id})
    else:
        console.say(f"{feature}: recipe {recipe.short}; next: dualview materialize {store}")


def _planned(plan: FusionPlan, json: bool) -> None:
    from dualview import console

    if json:
        console.as_json({"dry_run": True} | plan.to_dict())
        return
    given = ", ".join(f"{name} {count:,}" for name, count in plan.present.items())
    console.say(
        f"{plan.feature}: {plan.encoder} would "
        + (f"take the weights of {plan.run}" if plan.run else "be fitted on items alone")
        + f"; {plan.items:,} items, of which have {given}; "
        + (f"recipe {plan.recipe} would be left, its cells computed anew; " if plan.recipe else "")
        + "nothing was written"
    )
    for note in plan.notes:
        console.warn(note)


def _epoch(row: dict[str, Any]) -> None:
    from dualview import console

    terms = "  ".join(f"{name} {row[name]:.4f}" for name in ("loss", "view", "cross", "align") if name in row)
    best = "  best" if row.get("best") else ""
    found = "  ".join(
        f"{name} {row[f'valid_{name}']:.4f}" for name in ("recall@1", "recall@10") if f"valid_{name}" in row
    )
    console.say(f"epoch {row['epoch']:3d}  {terms}  {found}{best}")


def _fitted(made: FusionReport, store: Path, json: bool) -> None:
    from dualview import console

    if json:
        console.as_json(made.to_dict())
        return
    on = (
        f"{made.held_out:,} items that were held out"
        if made.events is None
        else f"items that run {made.events['run']} learnt from"
    )
    columns = ["when", "views", "items", "alignment", "uniformity", "recall@1", "recall@10"]
    console.table(
        f"Agreement of views, on {on}",
        columns,
        [[row[column] for column in columns] for row in made.report],
        note="alignment and uniformity: lower is better; recall: of an item's other view among the nearest",
    )
    for note in made.notes:
        console.warn(note)
    console.say(
        f"{made.feature}: recipe {made.recipe}, {made.seconds:.1f} s; next: dualview materialize {store}"
    )
