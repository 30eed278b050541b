from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from dualview.cli import app
from dualview.store import Store
from featurestore import files
from featurestore.errors import BadInput, NotFound
from ingest.describe import base
from ingest.describe.base import Answer
from ingest.load import ingest
from ingest.materialize import materialize
from tests.ingest.catalogue import fill
from tests.ingest.teller import Teller, TellerMaker

TOML = """
[features.told]
kind = "describe"
inputs = ["image", "title"]
encoder = "teller"
prompt = "mine.md"
words = 30
price_per_million_output = 1000.0

[features.own]
kind = "describe"
inputs = ["text"]
encoder = "template"
"""
MINE = "# mine: what I ask\n\n## system\nBe brief.\n\n## user\n{image}\nIn {words} words: {text}\n"


@pytest.fixture
def teller(monkeypatch: pytest.MonkeyPatch) -> Teller:
    maker = TellerMaker()
    monkeypatch.setitem(base._makers, "teller", maker)
    return maker.teller


@pytest.fixture
def shop(tmp_path: Path, teller: Teller) -> Store:
    store = Store.create(tmp_path / "store", TOML)
    files.write_text(store.root / "mine.md", MINE)
    fill(store)
    return store


def ran(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["prompt", *(str(word) for word in words)])
    assert result.exit_code == code, result.output
    return result.stdout


def said(*words: str | Path, code: int = 0) -> Any:
    return json.loads(ran(*words, "--json", code=code))


def test_show_says_exactly_what_is_sent_and_sends_nothing(shop: Store, teller: Teller) -> None:
    before = sorted(shop.root.rglob("*"))
    found = said("show", shop.root, "told", "b")
    sha = shop.tables.read("items", filter="item_id = 'b'")["_image_sha256"][0].as_py()
    assert found["turns"] == [
        {"role": "system", "parts": [{"text": "Be brief."}]},
        {
            "role": "user",
            "parts": [{"width": 60, "height": 60, "sha256": sha}, {"text": "In 30 words: blue shoe"}],
        },
    ]
    assert found["options"]["words"] == 30
    assert found["prompt"] == "mine.md"
    shown = ran("show", shop.root, "told", "b")
    assert "[picture, 60 x 60, sha256" in shown
    assert "In 30 words: blue shoe" in shown
    assert not teller.asked
    assert sorted(shop.root.rglob("*")) == before


def test_what_is_shown_is_what_materialize_sends(shop: Store, teller: Teller) -> None:
    shown = shop.prompt("told", "c").turns
    materialize(shop, "told", yes=True)
    sent = next(r for r in teller.asked if "green mug" in str(r.turns))
    texts = [[p for p in turn.parts if isinstance(p, str)] for turn in sent.turns]
    assert texts == [[p.text for p in parts if p.text] for _, parts in shown]
    assert shop.prompt("told", "c").turns == shown


def test_try_sends_one_item_judges_it_and_stores_nothing(shop: Store, teller: Teller) -> None:
    before = sorted(shop.root.rglob("*"))
    found = said("try", shop.root, "told", "b")
    assert found["text"] == "It is #3030c0 and In 30 words: blue shoe."
    assert found["cost"] == pytest.approx(0.005)
    assert found["answer"]["completion_tokens"] == 5
    assert len(teller.asked) == 1
    teller.answer = lambda request: Answer("I can't help with that.", "stop", 1, 1, 0.1)
    assert said("try", shop.root, "told", "b", code=2)["error"]["code"] == "refused"
    assert "I can't help with that." in ran("try", shop.root, "told", "b", code=2)
    assert sorted(shop.root.rglob("*")) == before


def test_an_item_without_its_inputs_is_said_and_not_sent(shop: Store, teller: Teller) -> None:
    assert said("show", shop.root, "told", "f")["missing"] == ["image", "text"]
    assert said("try", shop.root, "told", "e", code=2)["error"]["message"] == "the item has no image"
    assert not teller.asked


def test_wrong_names_are_refused_with_the_nearest(shop: Store) -> None:
    with pytest.raises(NotFound, match="no feature 'tld'"):
        shop.prompt("tld", "a")
    with pytest.raises(NotFound, match="no item 'it''s'".replace("''", "'")):
        shop.prompt("told", "it's")
    files.write_text(shop.root / "features.toml", TOML + '[features.v]\nkind = "embed_text"\ninputs = ["own"]\n'
                     'encoder = "tfidf_svd"\n')  # fmt: skip
    with pytest.raises(BadInput, match="nobody is asked"):
        shop.prompt("v", "a")


def test_list_shows_shipped_prompts_and_a_stores_own(shop: Store) -> None:
    rows = said("list", shop.root)
    assert {"dmesr-image@1", "msr-fusion@1", "mine.md"} <= {row["prompt"] for row in rows}
    assert next(row for row in rows if row["feature"] == "told")["reads"] == ["image", "words", "text"]
    assert "wording is ours" in ran("text", "dmesr-both")


def test_the_page_holds_everything_and_what_sellers_write_stays_text(shop: Store, teller: Teller) -> None:
    evil = "<script>alert(1)</script>"
    ingest(shop, pa.table({"item_id": ["c"], "title": [evil]}))
    teller.answer = lambda r: Answer(evil + str(r.turns) if evil in str(r.turns) else "Sorry, I can't do that.",
                                     "stop", 1, 1, 0.1)  # fmt: skip
    with pytest.raises(BadInput, match="nothing was described yet"):
        shop_page(shop)
    materialize(shop, yes=True)
    page = shop_page(shop)
    assert page.count("data:image/jpeg;base64,") == 4
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "refused: the model declined" in page
    assert "the item has no image" in page
    assert shop_page(shop) == page
    ran("compare", shop.root, "--out", shop.root / "page.html", "-f", "own", "--items", "2")
    assert (shop.root / "page.html").read_text().count("<article>") == 2


def shop_page(shop: Store) -> str:
    from dualview.report.descriptions import write

    out = shop.root.parent / "page.html"
    write(shop, out)
    return out.read_text()


@pytest.mark.parametrize("preset", ["offline", "small", "paper"])
@pytest.mark.parametrize("commented", [False, True])
def test_presets_and_what_stands_commented_in_them_can_be_meant(
    tmp_path: Path, preset: str, commented: bool
) -> None:
    from dualview.store import preset_toml
    from ingest import resolve

    text = preset_toml(preset)
    if commented:
        keys = r"# (?=\[features|(?:kind|inputs|encoder|model|prompt|words|slots|pretrained|dtype) = )"
        text = re.sub(f"^{keys}", "", text, flags=re.MULTILINE)
    store = Store.create(tmp_path / "store", text)
    described = [f for f in store.definitions if f.kind == "describe"]
    for definition in store.definitions:
        resolve.check(store, definition)
    assert len(described) >= (1 if commented or preset == "paper" else 0)
