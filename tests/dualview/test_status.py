"""What `status` knows beyond the tables: encoders, models and definitions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dualview.store import Store
from featurestore.status import FeatureStatus
from ingest.encode import base
from tests.ingest import catalogue
from tests.untouched import untouched

SEEN = '[features.text]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "seen"\n'


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> catalogue.SeenMaker:
    maker = catalogue.SeenMaker()
    monkeypatch.setitem(base._makers, ("embed_text", "seen"), maker)
    return maker


@pytest.fixture
def store(tmp_path: Path, seen: catalogue.SeenMaker) -> Store:
    made = Store.create(tmp_path / "store", SEEN)
    catalogue.fill(made)
    made.materialize()
    return made


def text(store: Store) -> FeatureStatus:
    return store.status().features[0]


def test_a_newer_version_of_an_encoder_makes_its_cells_missing(
    store: Store, seen: catalogue.SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.status().current
    monkeypatch.setattr(catalogue.SeenMaker, "code_version", 2)
    found = text(store)
    assert (found.missing, found.current) == (6, 0)
    assert found.notes == ("its code is of version 2 now, the recipe of 1",)
    assert store.materialize().computed == 6
    assert store.status().current


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("embed_text", "embed_txt", "did you mean 'embed_text'?"),
        ('"seen"', '"sen"', "did you mean 'seen'?"),
        ('["text"]', '["brnd"]', "did you mean 'brand'?"),
        ('["text"]', '["text"]\ndmi = 3', "dim"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_said_before_it_is_computed(
    store: Store, was: str, now: str, said: str
) -> None:
    toml = store.root / "features.toml"
    toml.write_text(SEEN.replace(was, now))
    found = text(store)
    assert found.missing == 6
    assert found.notes[0].startswith("cannot be computed: ")
    assert said in found.notes[0]
    toml.write_text(SEEN)
    assert store.status().current


def test_a_model_folder_whose_content_changed_is_noticed(
    store: Store, seen: catalogue.SeenMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.root.parent / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"some weights")

    def resolve(options: object, model: str, models: object, device: str = "auto") -> base.Resolved:
        ref = models.find(model, TRANSFORMERS).ref  # type: ignore[attr-defined]
        return base.Resolved({"labels": True, "dim": 3}, 3, ref)

    from ingest.encode.models import TRANSFORMERS

    monkeypatch.setattr(seen, "resolve", resolve)
    monkeypatch.setattr(catalogue.SeenMaker, "needs_model", True)
    (store.root / "features.toml").write_text(SEEN + f'model = "{folder}"\n')
    store.materialize()
    assert store.status().current
    (folder / "model.safetensors").write_bytes(b"other weights")
    found = text(store)
    assert found.missing == 6
    assert "weights' holds other files now" in found.notes[0]


def test_what_reads_a_feature_that_was_never_computed_waits_for_it(store: Store) -> None:
    (store.root / "features.toml").write_text(
        SEEN
        + '[features.told]\nkind = "imported"\ninputs = ["title"]\nencoder = "imported"\nvalue = "text"\n'
        + '[features.deeper]\nkind = "embed_text"\ninputs = ["feature:told"]\nencoder = "seen"\n'
    )
    told, deeper = store.status().features[1:]
    assert (told.missing, told.blocked) == (6, 0)
    assert (deeper.missing, deeper.blocked) == (0, 6)


def test_it_says_what_lies_where_and_read_only_writes_nothing(store: Store) -> None:
    (store.root / "cache" / "status.json").unlink(missing_ok=True)
    with untouched(store.root):
        found = store.status(read_only=True)
    assert found.disk["tables"] > 0
    assert (found.releases, found.disk["releases"]) == (0, 0)
    store.publish()
    after = store.status()
    assert (after.releases, after.release) == (1, "0001")
    assert after.disk["derived"] > 0


def test_the_verb_loads_neither_torch_nor_lancedb(store: Store) -> None:
    code = (
        "import sys; from dualview.store import Store\n"
        f"Store.open({str(store.root)!r}).status()\n"
        "print(sorted({'torch', 'lancedb', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
