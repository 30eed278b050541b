from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import files, schema
from featurestore.errors import BadInput, CellError
from featurestore.store import Store
from ingest.describe import base
from ingest.describe.base import Answer, Request
from ingest.estimate import estimate
from ingest.load import ingest
from ingest.materialize import FeatureReport, materialize
from tests.ingest import tiny_vlms
from tests.ingest.catalogue import ROWS, edited, fill, scribble
from tests.ingest.faulty_endpoint import Endpoint, serving
from tests.ingest.teller import Killed, Teller, TellerMaker, plain

PROMPTS = {
    "image": "## user\n{image}\n",
    "text": "## user\n{text}\n",
    "both": "For people.\n\n## user\n{image}\nTold: {text}\n",
    "fusion": "## user\nseen: {feature:look?}\nread: {feature:words?}\n",
}
CHAIN = """
[features.seen]
kind = "describe"
inputs = ["image"]
encoder = "teller"
prompt = "image.md"

[features.read]
kind = "describe"
inputs = ["text"]
encoder = "teller"
prompt = "text.md"

[features.both]
kind = "describe"
inputs = ["image", "title", "brand"]
encoder = "teller"
prompt = "both.md"

[features.whole]
kind = "describe"
inputs = ["seen", "read"]
encoder = "teller"
prompt = "fusion.md"
slots = { look = "seen", words = "read" }

[features.vector]
kind = "embed_text"
inputs = ["seen"]
encoder = "tfidf_svd"
"""


def declare(store: Store, toml: str) -> None:
    files.write_text(store.root / "features.toml", toml)


def one(prompt: str = "both.md", inputs: str = '["image", "text"]', **options: Any) -> str:
    """A features.toml with one described feature."""
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    return f'[features.told]\nkind = "describe"\ninputs = {inputs}\nencoder = "teller"\nprompt = "{prompt}"\n{more}'


@pytest.fixture
def teller(store: Store, monkeypatch: pytest.MonkeyPatch) -> Teller:
    maker = TellerMaker()
    monkeypatch.setitem(base._makers, "teller", maker)
    for name, text in PROMPTS.items():
        files.write_text(store.root / f"{name}.md", text)
    return maker.teller


def cells(store: Store, feature: str = "told") -> dict[str, dict[str, Any]]:
    rows = store.tables.read(store.feature_table(feature)).to_pylist()
    return {row[schema.ITEM_ID]: row for row in rows}


def reports(store: Store, **options: Any) -> dict[str, FeatureReport]:
    return {report.feature: report for report in materialize(store, **options).features}


def spooled(store: Store) -> list[Path]:
    folder = store.root / "spool"
    return sorted(folder.iterdir()) if folder.exists() else []


# ---- what is asked


def test_a_description_is_a_text_with_the_answer_beside_it(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    found = reports(store)["told"]
    assert (found.ok, found.no_input, found.error) == (4, 2, 0)
    row = cells(store)["a"]
    assert row[schema.VALUE] == "It is #c03030 and Told: red shoe\nbrand: Runwell\ntags: sport, red."
    assert row[schema.RAW] == row[schema.VALUE]
    answer = [row[n.name] for n in schema.ANSWER_FIELDS[1:]]
    assert answer == ["stop", 10, 5, 0.5]
    assert materialize(store).computed == 0
    assert teller.closed == 1
    assert not spooled(store)
    seconds = store.sql("SELECT count(*) n FROM feature_told WHERE seconds = 0.5 AND finish_reason = 'stop'")
    assert seconds["n"].to_pylist() == [4]


def test_everything_that_a_prompt_reads_must_be_there_and_what_lacks_is_said(
    store: Store, teller: Teller
) -> None:
    declare(store, one())
    rows = [*ROWS, {"item_id": "g", "title": None, "brand": "  ", "tags": [None], "image": "b.png"}]
    fill(store, rows)
    materialize(store)
    lacking = {name: row for name, row in cells(store).items() if row[schema.STATUS] == "no_input"}
    assert {name: row[schema.ERROR_MESSAGE] for name, row in lacking.items()} == {
        "e": "the item has no image",
        "f": "the item has no image, no text",
        "g": "the item has no text",
    }
    assert {row[schema.ERROR_CODE] for row in lacking.values()} == {"missing"}
    assert len(teller.asked) == 4
    assert not store.errors()


def test_equal_inputs_are_asked_about_once_and_pictures_come_decoded(store: Store, teller: Teller) -> None:
    declare(store, one("image.md", '["image"]'))
    fill(store)
    materialize(store)
    assert len(teller.asked) == 3
    assert cells(store)["a"][schema.VALUE] == cells(store)["d"][schema.VALUE] == "It is #c03030."
    assert all(p.mode == "RGB" for r in teller.asked for p in r.turns[-1].parts if not isinstance(p, str))


def test_a_picture_is_upright(store: Store, teller: Teller) -> None:
    from PIL import Image

    declare(store, one("image.md", '["image"]'))
    folder = store.root.parent / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (60, 20), "#804020").save(folder / "a.png", exif=exif)
    ingest(store, pa.table({"item_id": ["a"], "image": ["a.png"]}), images_root=folder)
    materialize(store)
    assert [p.size for p in teller.asked[0].turns[-1].parts if not isinstance(p, str)] == [(20, 60)]


def test_an_edit_of_a_picture_makes_one_items_image_side_anew_and_nothing_else(
    store: Store, teller: Teller
) -> None:
    declare(store, CHAIN)
    fill(store)
    materialize(store)
    assert cells(store, "whole")["a"][schema.VALUE].startswith(
        "It is seen: It is #c03030.\nread: It is red shoe"
    )
    assert (
        cells(store, "whole")["e"][schema.VALUE]
        == "It is read: It is red shoe\nbrand: Runwell\ntags: sport, red.."
    )
    before = cells(store, "vector")
    teller.asked.clear()
    scribble(store.root.parent / "pictures", "c.png")
    ingest(
        store, pa.table({"item_id": ["c"], "image": ["c.png"]}), images_root=store.root.parent / "pictures"
    )
    found = reports(store)
    computed = {name: report.computed for name, report in found.items()}
    assert computed == {"seen": 1, "read": 0, "both": 1, "whole": 1, "vector": 1}
    assert len(teller.asked) == 3
    after = cells(store, "vector")
    assert {n for n in after if after[n][schema.INPUT_HASH] != before[n][schema.INPUT_HASH]} == {"c"}


def test_a_changed_prompt_makes_its_feature_and_what_reads_it_stale_and_no_other(
    store: Store, teller: Teller
) -> None:
    declare(store, CHAIN)
    fill(store)
    materialize(store)
    assert store.status().current
    recipes = store.recipes()
    files.write_text(store.root / "image.md", PROMPTS["image"] + "Say more.\n")
    waiting = {f.name: f.missing + f.blocked for f in store.status().features}
    assert {name for name, missing in waiting.items() if missing} == {"seen", "whole", "vector"}
    found = reports(store)
    assert {name for name, report in found.items() if report.computed} == {"seen", "whole", "vector"}
    again = store.recipes()
    assert {name for name in recipes if again[name].id != recipes[name].id} == {"seen", "whole", "vector"}
    assert store.status().current


def test_lines_for_people_and_a_files_name_change_nothing_that_is_computed(
    store: Store, teller: Teller
) -> None:
    declare(store, one())
    fill(store)
    materialize(store)
    recipe = store.recipe("told")
    files.write_text(store.root / "both.md", "Other words for people.\n" + PROMPTS["both"])
    assert materialize(store).computed == 0
    assert store.status().current
    (store.root / "both.md").rename(store.root / "renamed.md")
    declare(store, one("renamed.md", price_per_million_input=0.0))
    assert materialize(store).computed == 0
    assert store.recipe("told") == recipe


def test_the_prompt_is_an_artifact_that_the_recipe_names(store: Store, teller: Teller) -> None:
    declare(store, one(words=33))
    fill(store)
    materialize(store)
    recipe = store.recipe("told")
    assert recipe is not None
    kept = (store.artifacts.path(recipe.artifacts["prompt"]) / "prompt.md").read_text()
    assert kept == "## user\n{image}\nTold: {text}\n"
    assert "words" not in recipe.options
    assert "prompt" not in recipe.options
    assert recipe.options["reads"] == {"text": ["title", "brand", "tags"]}
    assert recipe.required == (("image",), ("column:title", "column:brand", "column:tags"))


def test_a_prompt_file_that_is_gone_is_said(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    materialize(store)
    (store.root / "both.md").unlink()
    assert store.outdated("told") == "both.md changed since; materialize makes the new recipe"
    with pytest.raises(Exception, match=r"both\.md cannot be read"):
        materialize(store)


@pytest.mark.parametrize(
    ("toml", "message", "remedy"),
    [
        (one("both.md", '["image"]'), "reads {text}, which is not among the inputs", 'add "text" to inputs'),
        (one("both.md", '["text"]'), "reads {image}, which is not among the inputs", 'add "image"'),
        (one("text.md", '["image", "text"]'), "text.md does not read image", "{image}"),
        (one("image.md", '["image", "brand"]'), "image.md does not read brand", "{column:brand}"),
        (one("fusion.md", '["title"]'), "fusion.md does not read title", "{title}"),
        (one("both.md") + 'slots = { x = "y" }\n', "has no {feature:x}", "known: none"),
        (one("nothing"), "no shipped prompt 'nothing'", "or name a file"),
        (one(max_tokens=0), "option max_tokens = 0", "correct"),
        (one(max_token=5), "has no option 'max_token'", "did you mean 'max_tokens'?"),
        (one(refusals=["("]), "no regular expression", "refusals"),
        (
            one().replace('"teller"', '"teler"'),
            "unknown encoder 'teler' for describe",
            "did you mean 'teller'?",
        ),
        (one() + 'model = "m"\n', "encoder 'teller' takes no model", "remove"),
        (one().replace('"teller"', '"openai"'), "encoder 'openai' needs a model", "model ="),
        (one().replace('"teller"', '"template"'), "sees no pictures", "{image}"),
        (
            '[features.told]\nkind = "describe"\ninputs = ["text"]\nencoder = "template"\nprompt = "dmesr-text"\n',
            "asks for a number of words, and 'template' asks nobody",
            "leave prompt out",
        ),
        (one().replace('"describe"', '"descibe"'), "unknown kind 'descibe'", "did you mean 'describe'?"),
        (
            one(inputs='["image", "titel"]'),
            "reads 'titel', which the items do not have",
            "did you mean 'title'?",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    store: Store, teller: Teller, toml: str, message: str, remedy: str
) -> None:
    fill(store)
    declare(store, toml)
    with pytest.raises(BadInput) as raised:
        materialize(store)
    assert message in raised.value.message
    assert remedy in (raised.value.remedy or "")
    assert not teller.asked


def test_the_template_gives_the_items_text_as_it_stands(store: Store) -> None:
    declare(
        store, '[features.told]\nkind = "describe"\ninputs = ["text"]\nencoder = "template"\nlabels = false\n'
    )
    fill(store)
    found = reports(store)["told"]
    assert (found.ok, found.no_input) == (5, 1)
    assert cells(store)["a"][schema.VALUE] == "red shoe\nRunwell\nsport, red"
    assert not spooled(store)


def test_a_fit_on_texts_that_are_not_all_there_says_so_and_stays_when_nothing_changed(store: Store) -> None:
    own = '[features.own]\nkind = "describe"\ninputs = ["text"]\nencoder = "template"\n'
    vector = '[features.vector]\nkind = "embed_text"\ninputs = ["own"]\nencoder = "tfidf_svd"\n'
    declare(store, own + vector)
    fill(store)
    (note,) = [each for each in reports(store, sample=2)["vector"].notes if "--refit" in each]
    assert "fitted on 1 text while 4 cells of 'own' were not there" in note
    fitted = store.recipe("vector")
    assert not any("--refit" in each for each in reports(store)["vector"].notes)
    declare(store, own + 'prompt = "text@1"\n' + vector)  # what it is anyhow
    assert store.outdated("vector")
    found = reports(store)
    assert (found["own"].ok, found["vector"].ok) == (0, 0)
    assert store.recipe("vector") == fitted
    assert store.status().current


def test_a_rollback_names_prompts_that_are_not_what_they_were(store: Store, teller: Teller) -> None:
    declare(store, one("text.md", '["text"]'))
    fill(store)
    materialize(store)
    store.publish()
    before = (store.root / "text.md").read_text()
    (store.root / "text.md").write_text(before + "Briefly.\n")
    materialize(store)
    store.publish()
    assert store.rollback("0001").prompts == ["text.md"]
    (store.root / "text.md").write_text(before)
    assert store.status().current


# ---- what is kept of an answer


def test_an_answer_that_is_no_description_is_that_cells_error_and_kept(store: Store, teller: Teller) -> None:
    answers = {"red": "I'm sorry, but I can't help with that.", "blue": "mug " * 50, "green": "\ud800 mug"}

    def answer(request: Request) -> Answer | CellError:
        said = str(request.turns[-1].parts[-1])
        for word, text in answers.items():
            if word in said:
                return Answer(text, "stop", 1, 1, 0.0)
        return CellError("context_too_long", "too long")

    teller.answer = answer
    declare(store, one())
    fill(store)
    found = reports(store)["told"]
    assert (found.ok, found.error) == (0, 4)
    rows = cells(store)
    codes = {name: rows[name][schema.ERROR_CODE] for name in "abcd"}
    assert codes == {"a": "refused", "b": "repetition", "c": "garbled", "d": "context_too_long"}
    assert rows["a"][schema.RAW] == answers["red"]
    assert rows["c"][schema.RAW] == "\ufffd mug"
    assert rows["d"][schema.RAW] is None
    assert not any(row[schema.TRANSIENT] for row in rows.values())
    assert materialize(store).computed == 0
    teller.answer = plain
    assert reports(store, failed=True)["told"].ok == 4
    assert cells(store)["a"][schema.ERROR_CODE] is None
    assert {group.code for group in store.errors()} == set()


def test_a_picture_that_cannot_be_read_is_that_cells_error(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    (store.root.parent / "pictures" / "b.png").unlink()
    assert reports(store)["told"].error == 1
    assert cells(store)["b"][schema.ERROR_CODE] == "image_gone"
    assert cells(store)["b"][schema.TRANSIENT]


def test_sample_takes_the_same_items_for_every_feature_and_limit_the_first(
    store: Store, teller: Teller
) -> None:
    declare(store, CHAIN)
    fill(store)
    for name, expected in (("seen", 2), ("read", 2), ("both", 2)):
        assert reports(store, features=name, sample=2, seed=3)[name].computed == expected
    drawn = [set(cells(store, name)) for name in ("seen", "read", "both")]
    assert drawn[0] == drawn[1] == drawn[2]
    with pytest.raises(BadInput, match="1 or more"):
        materialize(store, sample=0)


# ---- nothing that was paid for is lost


def test_what_was_answered_before_a_crash_is_not_asked_again(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    teller.dies_at(3)
    with pytest.raises(Killed):
        materialize(store)
    assert not store.tables.exists(store.feature_table("told"))
    assert len(spooled(store)) == 1
    teller.answer = plain
    asked = teller.texts[:2]
    teller.asked.clear()
    found = reports(store)["told"]
    assert found.ok == 4
    assert found.notes == ("2 answers of an interrupted run were taken over",)
    assert len(teller.asked) == 2
    assert not set(asked) & set(teller.texts)
    assert not spooled(store)


def test_an_answer_to_an_input_that_changed_meanwhile_is_not_taken(store: Store, teller: Teller) -> None:
    declare(store, one())
    fill(store)
    teller.dies_at(4)
    with pytest.raises(Killed):
        materialize(store)
    teller.answer = plain
    told = teller.texts[0]
    item = next(r["item_id"] for r in ROWS if r["title"] and f"Told: {r['title']}" in told)
    teller.asked.clear()
    fill(store, edited(item, title="velvet"))
    assert reports(store)["told"].ok == 4
    assert len(teller.asked) == 2
    assert "velvet" in cells(store)[item][schema.VALUE]
    assert not spooled(store)


def test_answers_beyond_a_limit_wait_in_the_spool_and_torn_lines_are_passed_over(
    store: Store, teller: Teller
) -> None:
    declare(store, one())
    fill(store)
    teller.dies_at(4)
    with pytest.raises(Killed):
        materialize(store)
    teller.answer = plain
    (spool,) = spooled(store)
    spool.write_bytes(spool.read_bytes()[:-20])
    assert len(spool.read_bytes().split(b"\n")) == 3
    teller.asked.clear()
    for _ in range(6):
        materialize(store, limit=1)
    assert len(teller.asked) == 2
    assert store.status().current
    assert not spooled(store)


KILLED_RUN = """
import sys
from featurestore.store import Store
from ingest.materialize import materialize
report = materialize(Store.open(sys.argv[1]))
print(report.features[0].ok, report.features[0].notes)
"""


def endpoint_toml(server: Endpoint, **options: Any) -> str:
    more = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    return (
        '[features.told]\nkind = "describe"\ninputs = ["title"]\nencoder = "openai"\nmodel = "m"\n'
        f'prompt = "text.md"\nbase_url = "{server.url}"\nfirst_wait = 0.01\n{more}'
    )


def many(store: Store, count: int) -> None:
    files.write_text(store.root / "text.md", PROMPTS["text"])
    names = [f"i{n:03d}" for n in range(count)]
    ingest(store, pa.table({"item_id": names, "title": [f"thing {n}" for n in names]}))


def test_a_process_that_is_killed_half_way_sends_no_described_row_again(store: Store) -> None:
    many(store, 40)
    with serving({f"thing i{n:03d}": ["slow:0.05"] for n in range(40)}) as server:
        declare(store, endpoint_toml(server, concurrency=2))
        environment = os.environ | {"OPENAI_API_KEY": "none", "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", KILLED_RUN, str(store.root)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while sum(len(p.read_bytes().splitlines()) for p in spooled(store)) < 10:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = [
            json.loads(line)["answer"]["text"] for p in spooled(store) for line in p.read_bytes().splitlines()
        ]
        described = {text.removeprefix("answered ") for text in kept}
        assert 10 <= len(described) < 40
        first = len(server.calls)
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        resent = {text for _, text in server.calls[first:]}
        assert resent.isdisjoint(described)
        assert len(resent) == 40 - len(described)
        assert again.stdout.startswith(f"40 ('{len(described)} answers of an interrupted run")
    assert not spooled(store)
    assert store.status().current


# ---- money


def test_a_price_is_paid_only_if_somebody_agreed(store: Store, teller: Teller) -> None:
    declare(store, one(price_per_million_input=1000.0, price_per_million_output=4000.0))
    fill(store)
    with pytest.raises(BadInput, match="has a price, and 6 cells wait") as raised:
        materialize(store)
    assert "--max-cost" in (raised.value.remedy or "")
    assert not teller.asked
    found = reports(store, yes=True)["told"]
    assert found.cost == pytest.approx(4 * (10 * 1000 + 5 * 4000) / 1e6)
    assert teller.chunks == [4]
    with pytest.raises(BadInput, match="buys nothing"):
        materialize(store, max_cost=0)


def test_asking_stops_where_the_bound_is_reached_and_everything_is_kept(store: Store, teller: Teller) -> None:
    declare(store, one(price_per_million_input=1000.0, price_per_million_output=4000.0))  # 0.03 an answer
    fill(store)
    found = reports(store, max_cost=0.06)["told"]
    assert (found.ok, found.no_input, found.skipped) == (2, 2, 2)
    assert found.cost == pytest.approx(0.06)
    assert found.notes == ("stopped: 0.0600 of 0.06 was spent",)
    assert len(teller.asked) == 2
    assert reports(store, max_cost=1.0)["told"].ok == 2
    assert len(teller.asked) == 4


def test_usage_that_is_not_reported_is_taken_at_its_upper_bound(store: Store, teller: Teller) -> None:
    teller.answer = lambda request: Answer("A thing.", "stop", None, None, 0.1)
    declare(store, one("text.md", '["title"]', price_per_million_output=1000.0, max_tokens=100))
    fill(store)
    found = reports(store, max_cost=0.25)["told"]
    assert found.cost == pytest.approx(0.3)
    assert found.skipped == 1


# ---- what it would take


def test_a_dry_run_tells_time_tokens_and_cost_and_writes_nothing(store: Store, teller: Teller) -> None:
    declare(store, one(price_per_million_input=1000.0, price_per_million_output=4000.0))
    fill(store)
    before = sorted(p for p in store.root.rglob("*"))
    (told,) = estimate(store).features
    assert (told.missing, told.no_input, told.inputs, told.usage.sample) == (6, 2, 4, 4)
    assert told.usage.tokens == 4 * 15
    assert told.usage.cost == pytest.approx(4 * 0.03)
    assert told.usage.seconds is not None
    assert sorted(p for p in store.root.rglob("*")) == before
    assert estimate(store, sample=2).features[0].missing == 2


def test_an_endpoint_is_never_asked_for_an_estimate_but_its_earlier_answers_are(store: Store) -> None:
    many(store, 12)
    with serving() as server:
        declare(store, endpoint_toml(server, price_per_million_output=1000.0, max_tokens=50))
        (told,) = estimate(store).features
        assert not server.calls
        assert told.usage.seconds is None
        assert told.usage.cost == pytest.approx(12 * 50 * 1000 / 1e6)
        assert "upper bounds" in told.usage.notes[0]
        materialize(store, sample=2, yes=True)
        (told,) = estimate(store).features
        assert len(server.calls) == 2
    assert (told.usage.sample, told.usage.tokens) == (2, 10 * 10)
    assert told.usage.cost == pytest.approx(10 * 3 * 1000 / 1e6)
    assert told.usage.seconds is not None


def test_a_model_in_this_process_describes_through_the_same_path(store: Store) -> None:
    """A tiny one with random weights: what it says means nothing, that it is asked once and kept does."""
    files.write_text(store.root / "both.md", PROMPTS["both"])
    declare(
        store,
        one(max_tokens=8).replace('"teller"', '"transformers"')
        + f'model = "{tiny_vlms.vlm("qwen2_5_vl")}"\n',
    )
    fill(store)
    found = reports(store, device="cpu")["told"]
    assert (found.ok + found.error, found.no_input) == (4, 2)
    rows = [row for row in cells(store).values() if row[schema.STATUS] != "no_input"]
    assert all(row[schema.PROMPT_TOKENS] > 8 and row[schema.COMPLETION_TOKENS] <= 8 for row in rows)
    assert all(row[schema.RAW] is not None and not row[schema.TRANSIENT] for row in rows)
    assert materialize(store).computed == 0
