from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featurestore import files
from featurestore.artifacts import Artifacts
from featurestore.errors import BadInput, NotFound
from ingest.describe import prompts
from ingest.describe.base import Turn
from ingest.describe.prompts import Slot, parse

WHOLE = """Who wrote it.

## system
You describe {{things}}.

## user

{image}
Title: {title?}
By {column:brand?} since {column:year?}
{text}

About {words} words, unlike {feature:msr.image}.
"""
PICTURE = Image.new("RGB", (4, 3))


def rendered(said: str, /, **values: object) -> list[object]:
    """Parts of the user's turn. values: by key, with _ for :."""
    given = {name.replace("_", ":", 1): value for name, value in values.items()}
    return list(parse(said, "p.md").render(given)[-1].parts)  # type: ignore[arg-type]


def refusal(text: str) -> tuple[str, str]:
    with pytest.raises(BadInput) as raised:
        parse(text, "p.md")
    return raised.value.message, raised.value.remedy or ""


def test_turns_texts_and_the_picture_come_in_the_order_of_the_file() -> None:
    prompt = parse(WHOLE, "p.md")
    assert prompt.header == "Who wrote it."
    values = {
        "image": PICTURE,
        "column:title": "Mug",
        "column:brand": "Cuppa",
        "column:year": "1990",
        "text": "tall\ngreen",
        "words": "80",
        "feature:msr.image": "a mug",
    }
    system, user = prompt.render(values)
    assert system == Turn("system", ("You describe {things}.",))
    said = "Title: Mug\nBy Cuppa since 1990\ntall\ngreen\n\nAbout 80 words, unlike a mug."
    assert user == Turn("user", (PICTURE, said))
    assert list(prompt.slots) == [
        "image", "column:title", "column:brand", "column:year", "text", "words", "feature:msr.image",
    ]  # fmt: skip


def test_an_optional_slot_takes_its_line_with_it_and_another_must_be_filled() -> None:
    text = "## user\nA\n{text?} and {title?}\n{title?}\n{column:brand}\n"
    assert rendered(text, column_brand="x", column_title="t") == ["A\nt\nx"]
    with pytest.raises(KeyError, match="column:brand"):
        rendered(text, text="t")


def test_a_picture_alone_and_one_in_the_middle() -> None:
    assert rendered("## user\n\n{image}\n", image=PICTURE) == [PICTURE]
    assert rendered("## user\nSee {image} here", image=PICTURE) == ["See", PICTURE, "here"]
    assert rendered("## user\n{image?}\nSay so.", image=None) == ["Say so."]


def test_a_slot_that_stands_twice_is_optional_only_if_it_is_so_twice() -> None:
    assert parse("## user\n{text?}\n{text}", "p").slots["text"] == Slot("text", False)
    assert parse("## user\n{text?}\n{text?}", "p").slots["text"] == Slot("text", True)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_an_item_says_is_never_read_as_a_prompt(text: str) -> None:
    assert rendered("## user\nIt says: {text} -- end", text=text) == [f"It says: {text} -- end"]


@given(st.text(alphabet="ab {}\n#?:"))
def test_any_file_is_a_prompt_or_a_refusal_that_names_it(text: str) -> None:
    try:
        parse("## user\nsay\n" + text, "p.md")
    except BadInput as error:
        said = str(error)
    else:
        return
    assert said.startswith("p.md")
    assert "what to do: " in said


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("## user\nsee\n{imagee}", "p.md:3: there is no slot {imagee}", "did you mean 'image'?"),
        ("## user\n{colum:brand}", "p.md:2: there is no slot {colum:brand}", "did you mean 'column:brand'?"),
        ("## user\n{image:a}", "p.md:2: there is no slot {image:a}", "column:"),
        ("## user\n{}", "p.md:2: there is no slot {}", "known: "),
        ("## user\n{column:}", "p.md:2: there is no slot {column:}", "column:NAME"),
        ("## user\n{text", "p.md:2: a single {", "write {{"),
        ("## user\ntext}", "p.md:2: a single }", "write }}"),
        ("## user\n{image} {image}", "p.md: {image} stands in it twice", "one picture"),
        ("## system\n{image}\n## user\nx", "p.md:2: {image} stands in the system's turn", "user's"),
        ("## user\n{words?}", "p.md:2: {words?} is never empty", "{words}"),
        ("## usr\nx", "p.md:1: there is no section 'usr'", "did you mean 'user'?"),
        ("## user\nx\n## user\ny", "p.md:3: '## user' stands here twice", "one"),
        ("x", "p.md: there is no turn of the user", "## user"),
        ("## user\n \n", "p.md: the turn 'user' is empty", "write"),
        ('## user\nx\n## schema\n{"type":\n  1,}', "p.md:5: the schema is no JSON", "line"),
        ("## user\nx\n## schema\n[]", "p.md:4: the schema is no JSON object", "{"),
        ('## user\nx\n## schema\n{"type": "thing"}', "p.md:4: this is no JSON schema", "json-schema.org"),
        ('## user\nx\n## schema\n{"$ref": "http://a/b"}', "'http://a/b', which is not in it", "nothing is fetched"),
    ],
)  # fmt: skip
def test_a_refusal_names_file_and_line(text: str, message: str, remedy: str) -> None:
    said, next_ = refusal(text)
    assert message in said
    assert remedy in next_


def test_lines_for_people_and_blanks_at_ends_are_no_part_of_what_a_prompt_is() -> None:
    prompt = parse(WHOLE, "a.md")
    other = "Someone else\n" + WHOLE.replace("Who wrote it.", "").replace("{text}\n", "{text}  \n") + "\n\n"
    assert parse(other, "b.md").sha256 == prompt.sha256
    assert parse(WHOLE.replace("unlike", "like"), "a.md").sha256 != prompt.sha256
    assert parse(WHOLE + "\n## schema\n{}", "a.md").sha256 != prompt.sha256


def test_a_prompt_read_back_from_its_artifact_is_the_same(tmp_path: Path) -> None:
    text = WHOLE + '\n## schema\n{"type": "object"}\n'
    prompt = parse(text, "a.md")
    kept = Artifacts(tmp_path).put(prompt.contents)
    assert kept == prompt.sha256
    again = parse((Artifacts(tmp_path).path(kept) / prompts.FILE).read_text(), "a.md")
    assert (again.text, again.turns, again.schema) == (prompt.text, prompt.turns, prompt.schema)


def test_a_hash_of_contents_is_that_of_the_folder(tmp_path: Path) -> None:
    contents = {"b/a.txt": b"1", "a.txt": b"", "b.txt": b"\xff"}
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert files.sha256_contents(contents) == files.sha256_folder(tmp_path)


def test_a_prompt_file_may_begin_with_a_mark_of_its_encoding_and_end_lines_as_windows_does(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.md").write_bytes(b"\xef\xbb\xbf## user\r\nsay {title}\r\n")
    assert prompts.find("mine.md", tmp_path).sha256 == parse("## user\nsay {title}\n", "p").sha256


def test_shipped_prompts_are_found_by_name_with_and_without_version(tmp_path: Path) -> None:
    names = {name.partition("@")[0] for name in prompts.shipped()}
    assert names >= {
        "dmesr-image",
        "dmesr-text",
        "dmesr-both",
        "msr-image",
        "msr-text",
        "msr-fusion",
        "describe",
    }
    for name in names:
        prompt = prompts.find(name, tmp_path)
        assert prompt.sha256 == prompts.find(prompt.source, tmp_path).sha256
        if name != "text":
            assert "wording is ours" in prompt.header
    reads = {
        name: set(prompts.find(f"dmesr-{name}", tmp_path).slots) - {"words"}
        for name in ("image", "text", "both")
    }
    assert reads == {"image": {"image"}, "text": {"text"}, "both": {"image", "text"}}


def test_a_wrong_name_or_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no shipped prompt 'dmesr-imag'") as raised:
        prompts.find("dmesr-imag", tmp_path)
    assert "did you mean 'dmesr-image'?" in (raised.value.remedy or "")
    with pytest.raises(NotFound, match=r"mine\.md cannot be read"):
        prompts.find("mine.md", tmp_path)
    (tmp_path / "mine.md").write_bytes(b"## user\n\xff")
    with pytest.raises(BadInput, match="not UTF-8"):
        prompts.find("mine.md", tmp_path)
    (tmp_path / "mine.md").write_text("## user\n{txt}")
    with pytest.raises(BadInput, match=r"mine\.md:2"):
        prompts.find("./mine.md", tmp_path)
