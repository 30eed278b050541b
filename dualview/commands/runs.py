"""`dualview runs`: list what was trained."""

from __future__ import annotations

from dualview.commands.common import AsJson, ServedPath


def run(store: ServedPath, json: AsJson = False) -> None:
    """List the runs of a store, newest first, with their validation and (where opened) test figures."""
    from dualview import console
    from dualview.commands.common import open_served
    from dualview.training import run_rows

    rows = run_rows(open_served(store))
    if json:
        console.as_json(rows)
        return
    console.table(
        None,
        ["run", "release", "epochs", "best at", "valid", "test", "test HR", "valid AUC", "promoted"],
        [[value for name, value in row.items() if name != "kind"] for row in rows],
        note="valid and test are NDCG@10, test HR is HR@10; valid AUC is of fine-tuned yes/no models",
    )
    if not rows:
        console.say(f"no runs yet; next: dualview train {store}")
