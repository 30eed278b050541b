"""Whatever is ingested, edited, removed, redrawn and redefined: a store says of every cell what a plain dict says.

The model keeps items, events and pictures as Python values, and for each feature table what every cell was computed
from. After each step the store's items, events and states (current, missing, stale, failed, blocked) are the model's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from featurestore import features, interactions, items, schema
from featurestore.features import MAX_ATTEMPTS
from featurestore.files import sha256_file
from featurestore.schema import State, Status
from featurestore.store import Store
from ingest.load import ingest
from ingest.materialize import materialize
from tests.ingest.tiny_models import picture

EXAMPLES = int(os.environ.get("DUALVIEW_EXAMPLES", "5"))
STEPS = 12
PHASES = (
    Phase.explicit,
    Phase.generate,
)  # a step costs a tenth of a second: what failed is printed as it was found

NAMES = [f"i{number}" for number in range(7)]
WORDS = ["red", "blue", "shoe", "mug", "tall"]
FILES = ["a.png", "b.png", "c.png"]
COLOURS = ["#c03030", "#3030c0", "#30a030"]
COLUMNS = ["item_id", "title", "brand", "image"]
TEXT_INPUTS = {"text": ["title", "brand"], "title": ["title"]}

texts = st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
rows = st.fixed_dictionaries({"title": texts, "brand": texts, "image": st.none() | st.sampled_from(FILES)})
catalogues = st.dictionaries(st.sampled_from(NAMES), rows, min_size=1, max_size=len(NAMES))
logs = st.dictionaries(
    st.tuples(st.sampled_from(["u1", "u2"]), st.sampled_from(NAMES), st.integers(0, 9)),
    st.sampled_from([1.0, 2.0]),
    min_size=1,
    max_size=6,
)


@dataclass
class Item:
    title: str | None
    brand: str | None
    image: str | None
    sha256: str | None
    live: bool = True


@dataclass
class Cell:
    """What a cell was computed from, and how that ended."""

    given: tuple[Any, ...]
    status: Status
    transient: bool = False
    attempts: int = 1


@dataclass
class Model:
    items: dict[str, Item] = field(default_factory=dict)
    events: dict[tuple[str, str, int], float] = field(default_factory=dict)
    at: dict[str, str] = field(
        default_factory=dict
    )  # sha256 of a picture -> the file that the store reads it from
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)  # table -> item -> cell
    words: dict[str, set[str]] = field(default_factory=dict)  # table -> what its fit knows

    def live(self) -> dict[str, Item]:
        return {name: item for name, item in self.items.items() if item.live}


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="states-"))
        (self.home / "pictures").mkdir()
        self.model = Model()
        self.defined: dict[str, dict[str, Any]] = {
            "text": {"encoder": "tfidf_svd", "inputs": "text", "vocabulary": 50_000},
            "image": {"encoder": "color_texture", "shape": 0.4},
        }
        self.store = Store.create(self.home / "store", self._toml())

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    # ---- what a user does

    @initialize(catalogue=catalogues)
    def first(self, catalogue: dict[str, dict[str, Any]]) -> None:
        for name, colour in zip(FILES[:2], COLOURS, strict=False):
            self.draw(name, colour)
        # a column comes to be with its first value
        self.upsert(catalogue | {NAMES[0]: {"title": "red shoe", "brand": "mug", "image": None}}, False)

    @rule(catalogue=catalogues, remove_missing=st.booleans())
    def upsert(self, catalogue: dict[str, dict[str, Any]], remove_missing: bool) -> None:
        table = pa.Table.from_pylist(
            [{"item_id": name} | row for name, row in catalogue.items()],
            schema=pa.schema([(column, pa.string()) for column in COLUMNS]),
        )
        ingest(self.store, table, images_root=self.home / "pictures", remove_missing=remove_missing)
        read = {row["image"]: self._look(row["image"]) for row in catalogue.values() if row["image"]}
        for file, sha in read.items():
            if sha is not None and self._lies_at(sha) is None:
                self.model.at[sha] = file
        for name, row in catalogue.items():
            before = self.model.items.get(name, Item(None, None, None, None))
            image, sha = row["image"], read.get(row["image"])
            if image is not None and sha is None:  # it cannot be used: what was there stays
                image, sha = before.image, before.sha256
            self.model.items[name] = Item(row["title"], row["brand"], image, sha)
        if remove_missing:
            for name in self.model.items.keys() - catalogue.keys():
                self.model.items[name].live = False

    @rule(name=st.sampled_from(NAMES), words=texts)
    @precondition(lambda self: bool(self.model.items))
    def edit(self, name: str, words: str | None) -> None:
        known = self.model.items.get(name)
        image = known.image if known else None
        self.upsert({name: {"title": words, "brand": "mug", "image": image}}, False)

    @rule(log=logs, replace=st.booleans())
    def take(self, log: dict[tuple[str, str, int], float], replace: bool) -> None:
        known = {key: value for key, value in log.items() if key[1] in self.model.items}
        if not known:
            return
        table = pa.table(
            {
                "user_id": [key[0] for key in known],
                "item_id": [key[1] for key in known],
                "timestamp": [key[2] for key in known],
                "value": list(known.values()),
            }
        )
        ingest(self.store, interactions=table, replace_interactions=replace)
        self.model.events = known if replace else self.model.events | known

    @rule(name=st.sampled_from(FILES), colour=st.sampled_from(COLOURS))
    def draw(self, name: str, colour: str) -> None:
        picture(colour).save(self.home / "pictures" / name)

    @rule(name=st.sampled_from(FILES), remains=st.booleans())
    def spoil(self, name: str, remains: bool) -> None:
        path = self.home / "pictures" / name
        path.write_bytes(b"no picture")
        if not remains:
            path.unlink()

    @rule(vocabulary=st.sampled_from([50_000, 40_000]), inputs=st.sampled_from(sorted(TEXT_INPUTS)))
    def redefine_text(self, vocabulary: int, inputs: str) -> None:
        self._define("text", {"encoder": "tfidf_svd", "inputs": inputs, "vocabulary": vocabulary})

    @rule(shape=st.sampled_from([0.4, 0.5]))
    def redefine_image(self, shape: float) -> None:
        self._define("image", {"encoder": "color_texture", "shape": shape})

    @rule()
    def drop_or_add_a_feature(self) -> None:
        if "second" in self.defined:
            del self.defined["second"]
            self._write()
        else:
            self._define("second", {"encoder": "color_texture", "shape": 1.0})

    @rule(failed=st.booleans())
    def compute(self, failed: bool) -> None:
        materialize(self.store, failed=failed, commit_rows=3)
        for name in self.defined:
            self._computed(name, failed)

    @rule()
    def publish(self) -> None:
        release = self.store.publish(allow_stale=True)
        assert release.ids.tolist() == sorted(self.model.live())
        assert release.n_events == len(self.model.events)

    # ---- what the model makes of it

    def _computed(self, name: str, failed: bool) -> None:
        recipe = self.store.recipe(name)
        assert recipe is not None
        table = recipe.table(name)
        live = self.model.live()
        if name == "text" and table not in self.model.words:
            self.model.words[table] = {w for item in live.values() for w in self._document(item).split()}
        cells = self.model.cells.setdefault(table, {})
        for item_id, item in live.items():
            before, given = cells.get(item_id), self._given(name, item)
            same = before is not None and before.given == given
            if same and before is not None:
                waits = not (failed or (before.transient and before.attempts < MAX_ATTEMPTS))
                if before.status is not Status.ERROR or waits:
                    continue
            status, transient = self._outcome(name, table, item)
            cells[item_id] = Cell(given, status, transient, before.attempts + 1 if same and before else 1)

    def _outcome(self, name: str, table: str, item: Item) -> tuple[Status, bool]:
        if name == "text":
            words = self._document(item).split()
            known = any(word in self.model.words[table] for word in words)
            return (Status.OK if known else Status.ERROR) if words else Status.NO_INPUT, False
        if item.sha256 is None:
            return Status.NO_INPUT, False
        if self._lies_at(item.sha256):
            return Status.OK, False
        return Status.ERROR, not (self.home / "pictures" / self.model.at[item.sha256]).exists()

    def _given(self, name: str, item: Item) -> tuple[Any, ...]:
        if name != "text":
            return (item.sha256,)
        return tuple(getattr(item, column) for column in TEXT_INPUTS[self.defined["text"]["inputs"]])

    def _document(self, item: Item) -> str:
        return " ".join(part for part in self._given("text", item) if part)

    def _look(self, name: str) -> str | None:
        """The sha256 of the picture that a file holds now, None where it holds none."""
        path = self.home / "pictures" / name
        return sha256_file(path) if path.exists() and path.read_bytes() != b"no picture" else None

    def _lies_at(self, sha256: str) -> str | None:
        """The file that the store reads a picture from, if that still holds it."""
        file = self.model.at.get(sha256)
        return file if file is not None and self._look(file) == sha256 else None

    # ---- what must be equal

    @invariant()
    def items_and_events_are_equal(self) -> None:
        if not self.model.items:
            return
        found = self.store.tables.read(schema.ITEMS).to_pylist()
        assert len(found) == len(self.model.items)
        for row in found:
            item = self.model.items[row["item_id"]]
            said = (row["title"], row["brand"], row["image"], row["_image_sha256"], not row["_deleted"])
            assert said == (item.title, item.brand, item.image, item.sha256, item.live)
        assert len(items.live(self.store.tables)) == len(self.model.live())
        log = interactions.read_log(self.store.tables).to_pylist()
        events = {(row["user_id"], row["item_id"], row["timestamp"]): row["value"] for row in log}
        assert events == self.model.events
        assert len(log) == len(events)

    @invariant()
    def states_are_equal(self) -> None:
        live = self.model.live()
        if not live:
            return
        status = {feature.name: feature for feature in self.store.status().features}
        assert list(status) == list(self.defined)
        for name in self.defined:
            if self.store.outdated(name) is not None:
                assert status[name].missing == len(live)
                continue
            expected = {item_id: self._state(name, item_id, item) for item_id, item in live.items()}
            planned = features.plan(self.store.tables, self.store.recipes(), name)
            found = dict(zip(planned["item_id"].to_pylist(), planned["state"].to_pylist(), strict=True))
            assert found == expected, name
            counted = [status[name].current + status[name].no_input, status[name].missing, status[name].stale]
            states = list(expected.values())
            assert counted == [states.count(s) for s in (State.CURRENT, State.MISSING, State.STALE)]
            assert (status[name].failed, status[name].blocked) == (states.count(State.FAILED), 0)

    def _state(self, name: str, item_id: str, item: Item) -> State:
        recipe = self.store.recipe(name)
        assert recipe is not None
        cell = self.model.cells.get(recipe.table(name), {}).get(item_id)
        if cell is None:
            return State.MISSING
        if cell.given != self._given(name, item):
            return State.STALE
        return State.FAILED if cell.status is Status.ERROR else State.CURRENT

    # ---- features.toml

    def _define(self, name: str, options: dict[str, Any]) -> None:
        self.defined[name] = options
        self._write()

    def _write(self) -> None:
        (self.store.root / "features.toml").write_text(self._toml())
        self.store = Store.open(self.store.root)

    def _toml(self) -> str:
        parts = []
        for name, options in self.defined.items():
            kind, inputs = ("embed_text", options["inputs"]) if name == "text" else ("embed_image", "image")
            lines = [f"[features.{name}]", f'kind = "{kind}"', f'inputs = ["{inputs}"]']
            lines += [f'encoder = "{options["encoder"]}"']
            lines += [
                f"{key} = {value}" for key, value in options.items() if key not in ("encoder", "inputs")
            ]
            parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"


def test_a_store_says_of_every_cell_what_a_plain_dict_says() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
        ),
    )
