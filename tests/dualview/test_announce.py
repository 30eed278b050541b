"""Every verb: one JSON document on stdout whatever happens, and nothing written by what is only announced.

The register of verbs is walked, so that one that is added later is held to the same.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dualview import cli
from dualview.demo.catalogue import CatalogueSettings
from dualview.demo.taste import TasteSettings
from dualview.demo.truth import make_shop
from dualview.store import Store
from dualview.training import fit
from tests.ingest import tiny_vlms
from tests.untouched import snapshot, untouched


def registered(app: typer.Typer, before: str = "") -> dict[str, Callable[..., Any]]:
    """Every verb, a verb's own verbs too, with the function that it calls."""
    found = {}
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        found[f"{before}{name}"] = command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found |= registered(group.typer_instance, f"{before}{group.name or group.typer_instance.info.name} ")
    return found


VERBS = registered(cli.app)
# verbs that change nothing that a store is asked for; what is derived from it they may cache
READING = {
    "audit",
    "diff",
    "doctor",
    "errors",
    "history",
    "recommend",
    "prompt compare",  # writes the page that it is asked for, nothing of the store
    "prompt list",
    "prompt show",
    "prompt text",
    "prompt try",
    "releases",
    "runs",
    "similar",
    "sql",
    "status",
    "study audit",
    "study plan",
    "trace",
}
ANNOUNCED: dict[str, list[str]] = {
    "init": ["{new}"],
    "ingest": ["{store}", "{more}", "--interactions", "{events}", "--keep-images"],
    "materialize": ["{stale}", "--failed"],
    "preferences": ["{store}", "--backend", "template"],
    "fit": ["{store}", "text", "--refit"],
    "publish": ["{store}", "--tag", "other"],
    "train": ["{store}", "--items", "id+text", "--set", "width=8"],
    "msr train": ["{store}", "--model", "{llm}", "--set", 'answers=["y", "n"]', "--pairs", "users=4"],
    "msr run": ["{msr}"],
    "evaluate": ["{store}", "latest"],
    "promote": ["{store}", "latest"],
    "demo": ["{new}"],
    "rollback": ["{store}", "first"],
    "gc": ["{store}", "--keep", "1"],
    "forget": ["{store}", "--user", "{user}", "--item", "{item}"],
    "export": ["{store}", "{new}"],
    "serve": ["{store}"],
}
ASKED: dict[str, list[str]] = {
    "status": ["{store}"],
    "history": ["{store}"],
    "trace": ["{store}", "feature:text"],
    "errors": ["{store}"],
    "sql": ["{store}", "select count(*) as n, 'nan'::double as odd from items"],
    "similar": ["{store}", "{item}"],
    "releases": ["{store}"],
    "runs": ["{store}"],
    "audit": ["{store}", "latest"],
    "recommend": ["{store}", "{user}"],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store that is published and has a run, one with cells to compute, and what else the calls name."""
    folder = tmp_path_factory.mktemp("announce")
    shop = folder / "shop"
    make_shop(shop, CatalogueSettings(items=60, seed=3, px=64), TasteSettings(users=60))
    stores = {}
    for name in ("store", "stale"):
        store = Store.create(folder / name)
        store.ingest(shop / "items.csv", shop / "events.csv")
        stores[name] = store
    store = stores["store"]
    store.materialize()
    store.publish(tag="first")
    fit(store, items="id", epochs=1, length=10, width=8)
    more = shop / "more.csv"
    more.write_text("item_id,title,image\nnew-1,Fine,\n,No id,\nnew-2,Gone,away.png\n")
    msr = folder / "msr.toml"
    data = f'[data.shop]\nrelease = "{store.root}"\n'
    msr.write_text(f'kind = "msr"\nname = "m"\n{data}[arm.text-only]\nmodel = "{tiny_vlms.llm()}"\n')
    event = store.sql("select user_id, item_id from interactions limit 1").to_pylist()[0]
    return {
        **{name: str(opened.root) for name, opened in stores.items()},
        "new": str(folder / "new"),
        "more": str(more),
        "events": str(shop / "events.csv"),
        "item": event["item_id"],
        "user": event["user_id"],
        "llm": str(tiny_vlms.llm()),
        "msr": str(msr),
    }


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dualview", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().out

    return run


def filled(args: list[str], places: dict[str, str]) -> list[str]:
    return [places[arg[1:-1]] if arg.startswith("{") else arg for arg in args]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json_and_announces_what_it_writes(verb: str) -> None:
    options = inspect.signature(VERBS[verb]).parameters
    assert "json" in options
    assert ("dry_run" in options) == (verb not in READING), (
        "a verb that writes has --dry-run, no other needs it"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_failure_is_one_json_document_too(verb: str, call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    needed = [
        parameter
        for parameter in inspect.signature(VERBS[verb]).parameters.values()
        if parameter.default is parameter.empty
    ]
    args = [str(tmp_path / "file" / "store"), *("x" for _ in needed[1:])]
    code, out = call(*verb.split(), *args, "--json")
    found = json.loads(out)
    if verb != "doctor":  # whose very answer is what is wrong
        assert code == 1
        assert set(found) == {"error"}
        assert set(found["error"]) == {"code", "message", "remedy", "retryable"}
        assert found["error"]["code"] in ("not_found", "bad_input", "conflict", "disk", "usage")
    code, out = call(*verb.split(), "--no-such-option", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "usage")


@pytest.mark.parametrize("verb", ANNOUNCED)
def test_what_is_announced_writes_nothing_whatever(
    verb: str, places: dict[str, str], call: Callable[..., Any]
) -> None:
    args = filled(ANNOUNCED[verb], places)
    with untouched(Path(places["store"]).parent):
        code, out = call(*verb.split(), *args, "--dry-run", "--json")
        assert code == 0, out
        assert json.loads(out)["dry_run"] is True
        code, out = call(*verb.split(), *args, "--dry-run")
        assert code == 0


@pytest.mark.parametrize("verb", ASKED)
def test_an_answer_is_one_json_document_and_changes_nothing(
    verb: str, places: dict[str, str], call: Callable[..., Any]
) -> None:
    root = Path(places["store"])

    def kept() -> dict[str, tuple[int, str]]:
        return {
            name: facts[1:]
            for name, facts in snapshot(root).items()
            if not name.startswith("cache") and "served" not in name
        }

    before = kept()
    code, out = call(*verb.split(), *filled(ASKED[verb], places), "--json")
    assert code == 0, out
    json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert kept() == before


def test_what_an_ingest_announces_is_what_it_then_does(
    places: dict[str, str], call: Callable[..., Any]
) -> None:
    args = ["ingest", places["stale"], places["more"]]
    _, told = call(*args, "--dry-run", "--json")
    _, done = call(*args, "--json")
    announced, found = json.loads(told), json.loads(done)
    for facts in (announced, found):
        del facts["seconds"], facts["dry_run"]
    assert announced == found
    assert found["items"]["added"] == 2
    assert found["quarantined"] == {"image_missing": 1, "missing_id": 1}


def test_a_bug_is_a_document_and_a_traceback(
    places: dict[str, str],
    call: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(self: Store) -> Iterator[None]:
        raise TypeError("ours")

    monkeypatch.setattr(Store, "releases", broken)
    monkeypatch.setattr(sys, "argv", ["dualview", "releases", places["store"], "--json"])
    with pytest.raises(TypeError, match="ours"):
        cli.main()
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bug"
