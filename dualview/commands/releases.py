"""`dualview releases`: list what was published."""

from __future__ import annotations

from dualview.commands.common import AsJson, StorePath


def run(store: StorePath, json: AsJson = False) -> None:
    """List the releases of a store, newest first, with the disk they take and the runs that learnt from them."""
    from dualview import console
    from dualview.commands.common import open_store
    from dualview.housekeeping import release_rows

    rows = release_rows(open_store(store))
    if json:
        console.as_json([row.to_dict() for row in rows])
        return
    console.table(
        None,
        ["release", "tag", "created", "items", "events", "features", "own", "shared", "runs"],
        [
            [
                f"{row.release} latest" if row.latest else row.release,
                row.tag,
                row.created[:16].replace("T", " "),
                row.items,
                row.events,
                len(row.features),
                console.size(row.owned),
                console.size(row.shared),
                row.runs,
            ]
            for row in rows
        ],
        note="own and shared: derived files that only this release, or others too, would miss; times are UTC"
        if rows
        else None,
    )
    for row in rows:
        if row.forgotten:
            told = ", ".join(f"{count:,} {kind}" for kind, count in row.forgotten.items() if count)
            console.say(f"release {row.release}: {told} forgotten since it was published")
    if not rows:
        console.say(f"nothing published yet; next: dualview publish {store}")
