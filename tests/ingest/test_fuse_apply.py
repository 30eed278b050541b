"""Fitted weights of a fused feature: what they make of vectors, and which cells of a store they fill."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from featurestore import features, schema
from featurestore.errors import BadInput
from featurestore.schema import ValueKind
from featurestore.store import Store
from ingest import fitting, resolve
from ingest.encode import base
from ingest.encode.query import ReleaseEncoder
from ingest.estimate import estimate
from ingest.fuse.apply import CONFIG, WEIGHTS, Fuser, files_of, load_view
from ingest.fuse.reading import Reading
from ingest.fuse.recipes import NotFitted
from ingest.fuse.stored import Stored, Tokens, Vectors
from ingest.materialize import FeatureReport, materialize
from tests.ingest import fusing
from tests.ingest.catalogue import ROWS, fill
from tests.ingest.fusing import ABOVE, TOML, declare
from tests.untouched import untouched

# what fixed weights make of fixed vectors, by code_version: when this differs, raise Fused.code_version and add the
# new numbers here
GOLDEN = {
    1: [
        [0.2018, -0.5131, 0.4286, -0.1107, -0.6246, -0.2402, 0.1993, 0.1113],
        [0.3521, -0.3845, -0.1143, -0.4639, -0.6228, -0.0437, 0.2005, 0.2647],
        [0.3398, -0.5038, 0.3295, -0.1488, -0.6085, -0.2685, 0.2050, 0.1249],
        [0.1797, -0.5492, 0.4076, 0.0015, -0.6172, -0.0493, 0.2030, 0.2746],
    ]
}


def keep(folder: Path, stored: dict[str, Stored], **given: object) -> Path:
    """A folder with the artifact of a drawn view."""
    view = fusing.view_of(stored, width=4, **given)
    fine = [name for name, each in stored.items() if isinstance(each, Tokens)]
    for name, data in files_of(view, [name for name in stored if name not in fine], fine).items():
        (folder / name).write_bytes(data)
    return folder


def regular(shape: torch.Size, start: int) -> torch.Tensor:
    """The same numbers on any machine, whatever its generators."""
    return torch.sin(torch.arange(start, start + math.prod(shape), dtype=torch.float64)).float().view(shape)


def test_output_is_that_of_its_code_version() -> None:
    values = torch.cos(torch.arange(60, dtype=torch.float64)).float().view(4, 15).numpy()
    stored: dict[str, Stored] = {
        "a": Vectors(values[:, :5].copy(), np.ones(4, np.bool_)),
        "b": Vectors(values[:, 5:9].copy(), np.array([True, True, False, True])),
        "t": Tokens(values[:, 9:12].copy(), np.array([0, 2, 3, 4, 4])),
    }
    view = fusing.view_of(stored, width=4, scaling="standard")
    with torch.no_grad():
        place = 0
        for name, weight in view.named_parameters():
            weight.copy_(regular(weight.shape, 7 * place) / 2)
            place += 1 + name.endswith("key.weight")  # keys had a bias when the output was written down
    found = Fuser(view, torch.ones(2), output="joint").fuse(stored)
    assert isinstance(found, Vectors)
    version = base.maker("fuse", "dmesr").code_version
    np.testing.assert_allclose(found.values, np.array(GOLDEN[version]), atol=2e-4)


# ---- the artifact


def test_an_artifact_is_json_and_safetensors_and_gives_what_the_view_gave(tmp_path: Path) -> None:
    stored = fusing.some()
    folder = keep(tmp_path, stored)
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS}
    view = fusing.view_of(stored, width=4)
    for output in ("joint", "coarse", "fine", "aligned"):
        for normalised in (True, False):
            own = Fuser(view, torch.ones(2), output=output, normalised=normalised).fuse(stored)
            kept = Fuser.load(folder, output=output, normalised=normalised).fuse(stored)
            np.testing.assert_allclose(kept.values, own.values, atol=1e-6)
            np.testing.assert_array_equal(kept.present, own.present)


def test_an_artifact_is_the_same_bytes_for_the_same_weights() -> None:
    stored = fusing.some()
    one, two = (files_of(fusing.view_of(stored, width=4), ["text", "ocr_text"], ["fine"]) for _ in range(2))
    assert one == two


def test_weights_of_another_shape_and_a_newer_format_are_refused(tmp_path: Path) -> None:
    folder = keep(tmp_path, fusing.some())
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"fusion": config["fusion"] | {"width": 8}}))
    with pytest.raises(BadInput, match="another shape") as said:
        load_view(folder)
    assert "--refit" in str(said.value.remedy)
    (folder / CONFIG).write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(BadInput, match="newer version"):
        load_view(folder)


# ---- what it gives


def test_joint_weighs_both_views_equally_and_has_unit_length() -> None:
    stored = fusing.some()
    view = fusing.view_of(stored, width=4)
    joint, coarse, fine = (
        Fuser(view, torch.ones(2), output=output).fuse(stored) for output in ("joint", "coarse", "fine")
    )
    some = joint.present
    np.testing.assert_allclose(np.linalg.norm(joint.known, axis=1), 1, atol=1e-6)
    halves = np.hstack([coarse.known, fine.known]) / math.sqrt(2)
    np.testing.assert_allclose(joint.known, halves, atol=1e-6)
    np.testing.assert_array_equal(some, coarse.present)


def test_without_normalising_the_scales_of_a_run_are_kept() -> None:
    stored = fusing.some()
    view = fusing.view_of(stored, width=4)
    found = Fuser(view, torch.tensor([2.0, 0.5]), output="joint", normalised=False).fuse(stored)
    views = view(placed=view.placed(stored))
    expected = torch.cat([2 * views.coarse, views.fine / 2], dim=1).detach().numpy()
    np.testing.assert_allclose(found.known, expected[found.present], atol=1e-6)


def test_an_item_with_any_input_has_a_vector_and_one_without_has_none() -> None:
    stored = fusing.some(30)
    found = Fuser(fusing.view_of(stored, width=4), torch.ones(2), output="joint").fuse(stored)
    some = np.logical_or.reduce([each.present for each in stored.values()])
    np.testing.assert_array_equal(found.present, some)
    assert not some[0]
    assert any(sum(bool(each.present[row]) for each in stored.values()) == 1 for row in range(30))
    assert np.abs(found.known).sum(axis=1).min() > 0


def test_aligned_gives_one_vector_for_each_coarse_input_that_is_there() -> None:
    stored = fusing.some(30)
    found = Fuser(fusing.view_of(stored, width=4), torch.ones(2), output="aligned").fuse(stored)
    assert isinstance(found, Tokens)
    counts = stored["text"].present.astype(int) + stored["ocr_text"].present.astype(int)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-6)


def test_an_item_is_fused_alike_alone_and_among_others() -> None:
    stored = fusing.some(30)
    fuser = Fuser(fusing.view_of(stored, width=4), torch.ones(2), output="joint")
    whole = fuser.fuse(stored)
    for row in (1, 7, 29):
        alone = fuser.fuse({name: each.take(np.array([row])) for name, each in stored.items()})
        np.testing.assert_allclose(alone.values[0], whole.values[row], atol=1e-5)


# ---- in a store


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a fused feature, whose inputs are computed and which is fitted."""
    store = Store.create(tmp_path_factory.mktemp("fitted") / "store", TOML)
    fill(store)
    materialize(store, ABOVE)
    fusing.fit(store)
    return store


@pytest.fixture
def shop(fitted: Store, tmp_path: Path) -> Store:
    """A copy of it to change."""
    shutil.copytree(fitted.root, tmp_path / "store")
    return Store.open(tmp_path / "store")


def cells(store: Store, feature: str = "fused") -> dict[str, object]:
    rows = store.tables.read(store.feature_table(feature)).to_pylist()
    return {row[schema.ITEM_ID]: row[schema.VALUE] for row in rows}


def test_all_else_is_computed_before_a_feature_without_a_fit_is_refused(store: Store) -> None:
    declare(store, TOML)
    fill(store)
    ended: list[FeatureReport] = []
    with pytest.raises(NotFitted, match="'fused' was never fitted") as said:
        materialize(store, ended=ended.append)
    assert {report.feature: report.ok for report in ended} == {"text": 5, "image": 4, "fine": 5}
    assert said.value.remedy == f"dualview fit {store.root} fused"
    states = {each.name: each.missing for each in store.status().features}
    assert states == {"fused": 6, "text": 0, "image": 0, "fine": 0}


def test_a_fitted_feature_is_computed_and_is_current(shop: Store) -> None:
    report = materialize(shop)
    assert {each.feature: (each.ok, each.no_input) for each in report.features}["fused"] == (5, 1)
    found = cells(shop)
    assert found["f"] is None
    assert len(found["a"]) == 8  # type: ignore[arg-type]
    assert shop.status().current
    assert materialize(shop).computed == 0


def test_an_input_called_image_is_the_feature_and_not_the_picture(shop: Store) -> None:
    recipe = resolve.draft(shop, shop.definitions.get("fused"), shop.recipes(), None)  # type: ignore[arg-type]
    assert [name for name, _ in recipe.upstream] == ABOVE
    assert schema.IMAGE not in recipe.inputs


def test_five_edited_titles_are_five_cells_of_tokens_text_and_fused_vectors(shop: Store) -> None:
    more = [{"item_id": f"m{n}", "title": ROWS[n]["title"], "image": "b.png"} for n in range(4)]
    fill(shop, [*ROWS, *more])
    materialize(shop)
    before = cells(shop)
    changed = {"a": "tall mug", "c": "red shoe", "d": "blue shoe", "m1": "green", "m2": "mug"}
    fill(shop, [row | {"title": changed.get(row["item_id"], row["title"])} for row in [*ROWS, *more]])
    waiting = {each.name: (each.stale, each.blocked) for each in shop.status().features}
    assert waiting == {"fused": (0, 5), "text": (5, 0), "image": (0, 0), "fine": (5, 0)}
    computed = {each.feature: each.computed for each in materialize(shop).features}
    assert computed == {"fused": 5, "text": 5, "image": 0, "fine": 5}
    after = cells(shop)
    assert {name for name in before if before[name] != after[name]} == set(changed)


def test_no_rows_but_those_of_the_asked_items_are_read(shop: Store) -> None:
    materialize(shop)
    fill(shop, [row | {"title": "lamp"} if row["item_id"] == "c" else row for row in ROWS])
    materialize(shop)  # the row of c stands last in its tables now
    recipes = shop.recipes()
    reading = Reading(shop.tables, recipes["fused"].upstream, ["e", "c", "f", "nobody", "a"])
    found = reading.take(np.array([1, 0, 4]))
    for name in ("text", "image"):
        stored = found[name]
        assert isinstance(stored, Vectors)
        ids, values = features.read_matrix(
            shop.tables.dataset(recipes[name].table(name)), recipes[name].dim or 0
        )
        for row, item in enumerate(["c", "e", "a"]):
            assert stored.present[row] == (item in ids)
            if item in ids:
                np.testing.assert_array_equal(stored.values[row], values[ids == item][0])
    tokens = found["fine"]
    assert isinstance(tokens, Tokens)
    for row, item in enumerate(["c", "e", "a"]):
        held = cells(shop, "fine")[item]
        part = tokens.values[tokens.offsets[row] : tokens.offsets[row + 1]]
        np.testing.assert_array_equal(part, np.asarray(held, np.float32).reshape(-1, 3))
    assert not any(each.present.any() for each in reading.take(np.array([2, 3])).values())


def test_what_is_merely_applied_changes_without_a_fit_and_other_options_do_not(shop: Store) -> None:
    materialize(shop)
    facts = shop.locked()["fused"].fitted
    declare(shop, TOML.replace("width = 4", 'width = 4\noutput = "coarse"'))
    assert {each.feature: each.ok for each in materialize(shop).features}["fused"] == 5
    assert shop.recipe("fused").dim == 4  # type: ignore[union-attr]
    assert shop.locked()["fused"].fitted == facts
    declare(shop, TOML.replace("width = 4", "width = 4\nepochs = 3"))
    with pytest.raises(NotFitted, match="other options"):
        materialize(shop)


def test_an_option_that_is_younger_than_a_fit_stands_at_its_default(shop: Store) -> None:
    facts = dict(shop.locked()["fused"].fitted or {})
    recipe = shop.locked()["fused"].recipe
    with shop.lock("test"):
        older = {name: value for name, value in facts["asked"].items() if name != "patience"}
        shop.lock_recipe("fused", recipe, facts | {"asked": older})
        assert materialize(shop).errors == 0
        shop.lock_recipe("fused", recipe, facts | {"asked": older | {"dropped": 1}})
        with pytest.raises(NotFitted, match="other options"):
            resolve.draft(shop, shop.definitions.get("fused"), shop.recipes(), None)  # type: ignore[arg-type]


def test_a_new_recipe_above_asks_for_a_new_fit(shop: Store) -> None:
    materialize(shop)
    declare(shop, TOML.replace("dim = 5", "dim = 4"))
    with pytest.raises(NotFitted, match="other vectors than today's of 'text'"):
        materialize(shop)


SHARED = """
[features.apart]
kind = "fuse"
encoder = "dmesr"
inputs = ["fine", "image", "text"]
output = "aligned"
same_fit = "fused"
"""


def test_features_share_a_fit_and_what_it_saw(shop: Store) -> None:
    fusing.fit(shop, events={"split": "leave-one-out", "split_hash": "0" * 64})
    declare(shop, TOML + SHARED)
    materialize(shop)
    one, two = shop.locked()["fused"], shop.locked()["apart"]
    assert one.recipe.artifacts == two.recipe.artifacts
    assert two.recipe.value is ValueKind.VECTORS
    assert two.fitted == (one.fitted or {}) | {"same_fit": "fused"}
    fusing.fit(shop, seed=1)
    assert "was fitted anew" in str(resolve.outdated(shop, shop.definitions.get("apart")))
    assert {each.feature: each.ok for each in materialize(shop).features}["apart"] == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("width = 4", "widht = 4"), "no option 'widht'"),
        (("width = 4", "width = 5"), "cannot be shared by 2 heads"),
        (("width = 4", 'align = "cosine"'), "align = 'cosine'"),
        (("width = 4", 'index = "ivf"\noutput = "aligned"'), "no index"),
        (('inputs = ["text", "image", "fine"]', 'inputs = ["text", "feature:text"]'), "each feature once"),
        (("width = 4", 'same_fit = "text"'), "no fit of its own"),
        (("width = 4", 'same_fit = "fussed"'), "no feature 'fussed'"),
        (("width = 4", 'model = "x"'), "takes no model"),
        (('encoder = "dmesr"', 'encoder = "dmser"'), "unknown encoder 'dmser'"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused(
    store: Store, change: tuple[str, str], said: str
) -> None:
    fill(store)
    declare(store, TOML.replace(*change))
    with pytest.raises(BadInput, match=said):
        materialize(store)


def test_a_shared_fit_takes_no_options_of_its_own_and_reads_the_same(shop: Store) -> None:
    declare(shop, TOML + SHARED + "epochs = 3\n")
    with pytest.raises(BadInput, match="'epochs' belongs to the fit"):
        materialize(shop)
    declare(shop, TOML + SHARED.replace('"fine", ', ""))
    with pytest.raises(BadInput, match="reads other features than 'fused'"):
        materialize(shop)


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        ('["text", "own"]', "", "'own' holds texts"),
        ('["text"]', "", "nothing to fuse it with"),
        ('["fine"]', 'output = "aligned"', "no coarse input"),
    ],
)
def test_inputs_that_cannot_be_fused_are_refused(store: Store, inputs: str, options: str, said: str) -> None:
    own = '\n[features.own]\nkind = "describe"\ninputs = ["text"]\nencoder = "template"\n'
    declare(store, TOML.replace('["text", "image", "fine"]', inputs).replace("width = 4", options) + own)
    fill(store)
    with pytest.raises(BadInput, match=said):
        materialize(store)


def test_an_estimate_says_what_waits_for_a_fit_and_writes_nothing(store: Store) -> None:
    declare(store, TOML)
    fill(store)
    materialize(store, ABOVE)
    with untouched(store.root):
        found = {each.feature: each for each in estimate(store).features}["fused"]
    assert found.recipe is None
    assert "was never fitted" in found.usage.notes[0]
    fusing.fit(store)
    found = {each.feature: each for each in estimate(store).features}["fused"]
    assert (found.cells, found.inputs) == (6, 5)
    assert found.usage.seconds is not None


def test_the_fit_of_weights_is_another_verb_and_has_no_vocabulary(shop: Store) -> None:
    with pytest.raises(BadInput, match="weights, which are trained"):
        fitting.fit_transform(shop, "fused", refit=True)
    drift = fitting.drift(shop, "fused")
    assert drift is not None
    assert (drift.items_then, drift.items_now, drift.unknown_words) == (6, 6, None)


def test_no_query_goes_through_fused_weights_and_the_answer_says_so(shop: Store) -> None:
    materialize(shop)
    asking = ReleaseEncoder(shop, shop.publish())
    assert "fused" not in asking.fitting(of_text=True)
    with pytest.raises(BadInput, match="'fused' is of kind fuse"):
        asking.text("fused", "red shoe")


def test_status_and_a_materialize_with_nothing_to_do_load_no_torch(shop: Store) -> None:
    materialize(shop)
    code = (
        "import sys; from dualview.store import Store; from ingest.materialize import FeatureReport, materialize\n"
        f"s = Store.open({str(shop.root)!r}); s.status(); print('COMPUTED', materialize(s).computed)\n"
        "print('LOADED', sorted({'torch', 'lancedb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "COMPUTED 0" in done.stdout
    assert "LOADED []" in done.stdout
