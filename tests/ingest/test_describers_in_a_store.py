"""The describers behind `materialize`: the same answers, kept, and never asked for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import ModelUnavailable
from featurestore.store import Store
from ingest.describe.ocr import OcrDescriber
from ingest.materialize import materialize
from ingest.pictures import decode
from tests.ingest import tiny_vlms
from tests.ingest.catalogue import fill
from tests.ingest.faulty_endpoint import ANSWERED, serving

PROMPT = "## user\n{image}\nsay {title}\n"


def told(tmp_path: Path, encoder: str, **options: Any) -> Store:
    """A store whose feature `told` is made by `encoder` with the prompt above."""
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in options.items()]
    asks = [] if encoder == "ocr" else ['prompt = "ask.md"']
    reads = 'inputs = ["image"]' if encoder == "ocr" else 'inputs = ["image", "title"]'
    toml = ["[features.told]", 'kind = "describe"', reads, f'encoder = "{encoder}"', *asks, *lines]
    store = Store.create(tmp_path / "store", "\n".join(toml) + "\n")
    (store.root / "ask.md").write_text(PROMPT)
    fill(store)
    return store


def rows(store: Store) -> dict[str, dict[str, Any]]:
    recipe = store.recipe("told")
    assert recipe is not None
    return {row["item_id"]: row for row in store.tables.read(recipe.table("told")).to_pylist()}


def test_a_model_in_this_process_fills_a_feature_of_texts(tmp_path: Path) -> None:
    folder = str(tiny_vlms.vlm("qwen2_5_vl"))
    store = told(tmp_path, "transformers", model=folder, max_tokens=6)
    report = materialize(store, device="cpu")
    found = rows(store)
    assert report.computed == 6
    assert {item for item, row in found.items() if row["status"] == "no_input"} == {"e", "f"}
    seen = [row for row in found.values() if row["status"] != "no_input"]
    assert all(row["prompt_tokens"] > 0 and row["completion_tokens"] == 6 for row in seen if row["raw"])
    assert materialize(store, device="cpu").computed == 0


def test_an_endpoint_is_never_asked_again_for_what_it_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-9876543210")
    with serving({"say blue shoe": ["500"] * 3, "say green mug": ["400:content_filter"]}) as server:
        address = {"base_url": server.url, "retries": 2, "first_wait": 0.01}
        store = told(tmp_path, "openai", model="m", concurrency=1, **address)
        first = materialize(store).features[0]
        assert (first.ok, first.error, first.no_input) == (2, 2, 2)
        assert rows(store)["a"]["value"] == f"{ANSWERED} say red shoe"
        assert rows(store)["b"]["error_code"] == "http_500"
        assert rows(store)["c"]["error_code"] == "refused"
        assert materialize(store).features[0].ok == 1  # b was worth another try, c was not
        assert materialize(store).computed == 0
        assert server.asked == {
            "say red shoe": 1,
            "say blue shoe": 4,
            "say green mug": 1,
            "say tall mug": 1,
        }
    kept = [p.read_bytes() for p in store.root.rglob("*") if p.is_file()]
    assert not any(b"sk-secret" in content for content in kept)


def test_an_endpoint_that_is_gone_leaves_cells_as_they_were(tmp_path: Path) -> None:
    with serving() as server:
        store = told(
            tmp_path, "openai", model="m", base_url=server.url, api_key_env="NO_KEY", first_wait=0.01
        )
        assert materialize(store, limit=1).computed == 1
    with pytest.raises(ModelUnavailable, match="no connection"):
        materialize(store)
    assert [row["status"] for row in rows(store).values()] == ["ok"]


def test_pictures_without_text_have_no_input_and_are_no_errors(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    store = told(tmp_path, "ocr")
    picture = decode((tmp_path / "pictures" / "c.png").read_bytes())
    assert OcrDescriber(0.5, threads=1).read(picture) == ""
    report = materialize(store).features[0]
    assert (report.ok, report.no_input, report.error) == (0, 6, 0)
    assert materialize(store).computed == 0
