"""`dualview fit`: fit a learned transform again on today's catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from dualview.commands.common import AsJson, DryRun, StorePath, Wait


def run(
    store: StorePath,
    feature: Annotated[
        str, typer.Argument(metavar="FEATURE", help="A feature whose encoder is fitted.", show_default=False)
    ],
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit again although a fit exists; this makes a new recipe.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = None,
    json: AsJson = False,
) -> None:
    """Fit a learned transform (for instance TF-IDF + SVD) on today's catalogue.

    The first `materialize` fits what was never fitted; new items never trigger a refit. A refit makes a new recipe, so
    every cell of the feature is computed anew, while releases keep serving the old one.
    """
    from dualview import console
    from dualview.commands.common import open_store
    from ingest.fitting import fit_transform, plan_fit

    opened = open_store(store)
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
