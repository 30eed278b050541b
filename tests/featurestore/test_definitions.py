from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurestore import definitions
from featurestore.definitions import Lock, Locked, parse
from featurestore.errors import BadInput, NotFound
from featurestore.recipe import Recipe

TEXT = '[features.text]\nkind = "embed_text"\ninputs = ["text"]\nencoder = "tfidf_svd"\n'
RECIPE = Recipe(kind="embed_text", inputs=("column:title",), encoder="tfidf_svd", dim=4)


def feature(name: str, *inputs: str, more: str = "") -> str:
    return f'[features.{name}]\nkind = "embed_text"\ninputs = {json.dumps(inputs)}\nencoder = "e"\n{more}\n'


@pytest.mark.parametrize(
    ("text", "place", "said", "remedy"),
    [
        ("# mine\nfeature = 1\n", "shop.toml:2", "unknown key 'feature'", "did you mean 'features'?"),
        ("\n" + TEXT.replace("kind", "sort"), "shop.toml:2", "'kind' is missing", "write kind = ..."),
        (
            TEXT.replace("encoder", "encodr"),
            "shop.toml:1",
            "'encoder' is missing",
            "rename 'encodr' to 'encoder'",
        ),
        (
            "\n\n" + TEXT.replace('["text"]', '"text"'),
            "shop.toml:3",
            "inputs: Input should be",
            "correct 'inputs'",
        ),
        (TEXT + 'publish = "yes"\n', "shop.toml:1", "publish: Input should be", "correct 'publish'"),
        (TEXT + "publsh = false\n", "shop.toml:1", "unknown key 'publsh'", "did you mean 'publish'?"),
        (TEXT + "modle = 3\n", "shop.toml:1", "unknown key 'modle'", "did you mean 'model'?"),
        (TEXT + "model = 3\n", "shop.toml:1", "model: Input should be", "correct 'model'"),
        (TEXT + "dim = nan\n", "shop.toml:1", "nan or inf", "write a number"),
        (TEXT + "since = 2020-01-01\n", "shop.toml:1", "options", "correct"),
        (TEXT.replace('["text"]', "[]"), "shop.toml:1", "'inputs' lists each thing", 'inputs = ["text"]'),
        (
            TEXT.replace('["text"]', '["a", "a"]'),
            "shop.toml:1",
            "'inputs' lists each thing",
            'inputs = ["text"]',
        ),
        (TEXT.replace("text]", "Text]"), "shop.toml:1", "'Text' is no name", "small letters"),
        (TEXT.replace("text]", '"a b"]'), "shop.toml:1", "'a b' is no name", "small letters"),
        (TEXT.replace("text]", "a__b]"), "shop.toml:1", "'a__b' is no name", "single _"),
        (TEXT.replace("text]", '"../up"]'), "shop.toml:1", "'../up' is no name", "small letters"),
        ("[features.text\n", "shop.toml", "line 1", "https://toml.io"),
        (TEXT + TEXT, "shop.toml", "line 5", "https://toml.io"),
        ("# old\nfeatures = 3\n", "shop.toml:2", "one table a feature", "[features.NAME]"),
        ("format = 9\n" + TEXT, "shop.toml", "format 9", "reads format 1"),
        (feature("a", "b") + feature("b", "a"), "shop.toml", "a -> b -> a", "break it"),
        (feature("a", "feature:a"), "shop.toml", "a -> a", "break it"),
        (
            TEXT + feature("a", "feature:txt"),
            "shop.toml",
            "[features.a]: there is no feature 'txt'",
            "'text'",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_with_place_reason_and_remedy(
    text: str, place: str, said: str, remedy: str
) -> None:
    with pytest.raises(BadInput) as refused:
        parse(text, "shop.toml")
    assert refused.value.message.startswith(place)
    assert said in refused.value.message
    assert remedy in (refused.value.remedy or "")


def test_keys_that_are_not_ours_are_options_of_the_encoder() -> None:
    found = parse(TEXT + 'dim = 128\nwords = ["a"]\ndescription = "d"\npublish = false\n').get("text")
    assert found.options == {"dim": 128, "words": ["a"]}
    assert (found.description, found.publish, found.model) == ("d", False, None)


def test_a_name_with_a_dot_may_be_written_with_or_without_quotes() -> None:
    bare = parse(feature("image.clip", "image") + feature("image.tiny", "image"))
    quoted = parse(feature('"image.clip"', "image") + feature('"image.tiny"', "image"))
    assert list(bare.features) == ["image.clip", "image.tiny"]
    assert bare == quoted


def test_features_come_after_what_they_read() -> None:
    found = parse(
        feature("c", "b", "a") + feature("b", "feature:a") + feature("a", "title") + feature("d", "title")
    )
    assert [f.name for f in found.ordered()] == ["a", "b", "c", "d"]
    assert [f.name for f in found.ordered(["b"])] == ["a", "b"]
    assert found.upstream("c") == ["b", "a"]


def test_a_bare_name_is_a_column_when_it_is_the_features_own_or_no_feature() -> None:
    found = parse(feature("title", "title") + feature("b", "brand", "title") + TEXT + feature("c", "text"))
    assert found.upstream("title") == []
    assert found.upstream("b") == ["title"]
    assert found.upstream("c") == [], "'text' is the item's document, also where a feature has that name"


def test_an_unknown_feature_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(NotFound) as refused:
        parse(TEXT).get("txet")
    assert refused.value.remedy == "did you mean 'text'?"


def test_a_definitions_hash_follows_options_and_upstream_but_not_publishing() -> None:
    def hash_of_b(more: str = "", above: str = "") -> str:
        return parse(feature("a", "title", more=above) + feature("b", "a", more=more)).hash("b")

    plain = hash_of_b()
    assert hash_of_b() == plain
    assert hash_of_b(more='publish = false\ndescription = "words"') == plain
    assert hash_of_b(above="publish = false") == plain
    different = [
        hash_of_b(more="dim = 3"),
        hash_of_b(more="dim = 4"),
        hash_of_b(more='model = "m"'),
        hash_of_b(above="dim = 3"),
    ]
    assert len({plain, *different}) == 5


def test_a_file_that_is_gone_or_not_utf8_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"features\.toml is gone"):
        definitions.read(tmp_path / "features.toml")
    (tmp_path / "features.toml").write_bytes(b'[features.text]\nkind = "\xe9"\n')
    with pytest.raises(BadInput, match=r"not UTF-8 \(byte 24\)"):
        definitions.read(tmp_path / "features.toml")


# ---- the lock


def test_what_is_locked_is_read_back(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "features.lock.json")
    assert lock.read() == {}
    lock.put("text", Locked("0", RECIPE, {"items": 3}))
    lock.put("other", Locked("1", RECIPE))
    assert Lock(lock.path).read() == {"text": Locked("0", RECIPE, {"items": 3}), "other": Locked("1", RECIPE)}


def test_a_lock_whose_recipe_was_edited_is_refused(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "features.lock.json")
    lock.put("text", Locked("0", RECIPE))
    lock.path.write_text(lock.path.read_text().replace('"dim": 4', '"dim": 5'))
    with pytest.raises(BadInput, match="a recipe was edited"):
        lock.read()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "features": {"a": {}}}'])
def test_a_damaged_lock_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "features.lock.json").write_text(text)
    with pytest.raises(BadInput, match=r"features\.lock\.json cannot be read") as refused:
        Lock(tmp_path / "features.lock.json").read()
    assert refused.value.remedy


def test_a_lock_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "features.lock.json").write_text('{"format": 2, "features": {}}')
    with pytest.raises(BadInput, match="format 2"):
        Lock(tmp_path / "features.lock.json").read()
