"""A change of several tables and files that was begun: written down first, so that a kill in its middle is finished.

Before its first commit such a verb (`rollback`, `forget`) writes STORE/pending.json, which holds all that is needed to
go on; the last thing it does is take it away. Whoever takes the writer's lock next finishes what is pending before its
own work, so no verb ever writes into a store that is half one state and half another. Readers of releases are not
concerned.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore import failpoints, files
from featurestore.errors import BadInput

if TYPE_CHECKING:
    from featurestore.store import Store

FILE = "pending.json"


def begin(root: Path, verb: str, facts: dict[str, Any]) -> None:
    files.write_json(root / FILE, facts | {"verb": verb})


def read(root: Path) -> dict[str, Any] | None:
    """What was begun and not finished, or None."""
    try:
        intent: dict[str, Any] = files.read_json(root / FILE)
    except FileNotFoundError:
        return None
    return intent


def notice(root: Path) -> str | None:
    """What to tell of what is pending, or None."""
    intent = read(root)
    if intent is None:
        return None
    return f"'{intent['verb']}' was interrupted, or runs now; the next verb that writes finishes it"


def done(root: Path) -> None:
    with failpoints.commit(f"remove {FILE}"):
        (root / FILE).unlink(missing_ok=True)


def finish(store: Store) -> None:
    """Go on with what is pending, if anything is. The caller holds the writer's lock."""
    intent = read(store.root)
    if intent is None:
        return
    from featurestore import forget, rollback

    verbs = {"rollback": rollback.finish, "forget": forget.finish}
    if intent["verb"] not in verbs:
        raise BadInput(
            f"{store.root / FILE} was left by '{intent['verb']}', which this version does not know",
            remedy="finish it with the version of dualview that began it",
        )
    verbs[intent["verb"]](store, intent)
