from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import BadInput, CellError
from ingest.describe import checks, prompts
from ingest.describe.base import Answer, Finish
from ingest.describe.checks import Checks

REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I’m sorry, I can’t help with that request.",
    "Sorry, I can't describe this image.",
    "I am sorry, but I am unable to provide a description of this picture.",
    "I'm sorry, but as an AI language model I cannot see images.",
    "As an AI language model, I do not have the ability to view pictures.",
    "As a large language model I am not able to look at photographs, so I can't.",
    "I cannot identify the people in this image.",
    "I can't help with identifying people.",
    "I'm unable to view the image. Please upload it again.",
    "I am not able to process this picture.",
    "I won't describe that.",
    "We are unable to provide that information.",
    "Unfortunately, I cannot generate a description for this item.",
    "Unfortunately, no image was provided.",
    "Apologies, but I can't comply with this request.",
    "I apologize, but I cannot fulfill this request as it violates the content policy.",
    "I apologise for the confusion, but I don't see any image attached.",
    "I don't see an image attached to your message.",
    "I do not have access to the image.",
    "I don't have enough information to describe the item.",
    "No image provided.",
    "There is no image attached.",
    "It seems that no image was attached. Could you share it?",
    "It looks like the image didn't load.",
    "It appears that you forgot to attach the picture.",
    "It seems there is no text here.",
    "Please provide the image you would like me to describe.",
    "Could you please upload the picture?",
    "I need more information about the item.",
    "The image cannot be displayed.",
    "Your request violates our policies.",
    "Description: I'm sorry, but I can't help with that.",
    "Hello! I'm unable to see the picture.",
    "\"I'm sorry, I can't do that.\"",
    "I must decline to describe this.",
    "N/A",
    "None.",
    "抱歉，我无法描述这张图片。",
    "很抱歉，我不能提供相关信息。",
    "对不起，作为一个人工智能，我无法查看图片。",
    "我无法识别图片中的人物。",
    "作为一个AI语言模型，我不能查看图像。",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Ich kann das Bild leider nicht sehen.",
    "Je suis désolé, mais je ne peux pas décrire cette image.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Desculpe, mas não posso ajudar com isso.",
    "申し訳ありませんが、その画像を説明することはできません。",
]
DESCRIPTIONS = [
    "A film poster with a cowboy doll and a toy astronaut before a blue sky.",
    "Sorry, Wrong Number is a 1948 film noir about an invalid who overhears a murder plot on the telephone.",
    "I Am Sam is a drama about a father who fights for the custody of his daughter.",
    "I Can't Wait is a pop single with a bright synthesizer hook and a dancing cover.",
    "I can't wait for you to try these shoes, says the label, in red letters on white.",
    "Unable to sleep, a clerk wanders the city in this slow, rain-soaked drama.",
    "No Country for Old Men: a hunter finds money in the desert and is followed by a killer.",
    "As an aide to the president, she learns that she cannot trust anyone.",
    "Image of a mug: tall, green, glazed, with a wide handle.",
    "The image shows a tall green mug on a white ground. It cannot be told how large it is.",
    "This is the text on the cover: 'I'm sorry, Dave. I'm afraid I can't do that.' A red eye stares out of black.",
    "The picture was not taken in a studio: the shoe stands on gravel, in hard light, with long shadows.",
    "Tora! Tora! Tora! tells the attack on Pearl Harbor from both sides.",
    "Very, very, very soft wool; a blanket for a child, with bears, bears and more bears.",
    "红色运动鞋，鞋面透气，鞋底柔软，适合日常跑步和健身。",
    "Ein hoher grüner Becher, glasiert, mit breitem Henkel. Er fasst einen halben Liter.",
    "It seems that the two should not meet, and they do: a comedy of errors on a train.",
    "Please Don't Eat the Daisies is a comedy about a family that moves to the country.",
    "None but the Lonely Heart is a drama set in the East End of London.",
]


def answer(text: str, finish: Finish = "stop") -> Answer:
    return Answer(text, finish, 10, 20, 0.1)


def code(text: str, given: Checks | None = None, finish: Finish = "stop") -> str:
    found = (given or Checks()).judge(answer(text, finish))
    return found.code if isinstance(found, CellError) else "ok"


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_told_by_how_it_opens(text: str) -> None:
    assert code(text) == "refused"


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_a_description_is_kept_as_it_is(text: str) -> None:
    assert Checks().judge(answer(text)) == text


def test_a_long_answer_that_only_opens_so_is_kept() -> None:
    opening = "I'm unable to identify the people in this image, but here is what the poster shows. "
    rest = (
        "Two figures in long coats stand on a pier at night; a lamp throws a yellow ring on wet planks. " * 4
    )
    assert code(opening) == "refused"
    assert code(opening + " ".join(f"{n} {rest[n * 7 : n * 7 + 30]}" for n in range(10))) == "ok"


def test_own_patterns_take_the_place_of_ours() -> None:
    own = Checks(refusals=["my lips are sealed"])
    assert code("My lips are sealed about this one.", own) == "refused"
    assert code("I'm sorry, but I can't assist with that.", own) == "ok"
    assert code("I'm sorry, but I can't assist with that.", Checks(refusals=[])) == "ok"
    with pytest.raises(BadInput, match="no regular expression"):
        checks.compile_refusals(["("])


def test_what_an_endpoint_withheld_is_a_refusal_whatever_its_text() -> None:
    assert code("", finish="refused") == code("A mug.", finish="refused") == "refused"


@pytest.mark.parametrize("text", ["", "  \n ", "...", "**", "<think>hm</think>\n ", "\u3000"])
def test_an_answer_without_a_word_is_empty(text: str) -> None:
    assert code(text) == "empty_answer"


def test_thoughts_are_no_part_of_an_answer() -> None:
    assert Checks().judge(answer("<think>What is it?\nA mug.</think>\n\nA green mug.")) == "A green mug."
    assert Checks().judge(answer("it may be a mug</think> A green mug.")) == "A green mug."
    assert code("<think>What is it? A mug or", finish="length") == "empty_answer"


@pytest.mark.parametrize(
    "text",
    [
        "The mug is " + "very " * 40 + "green",
        "A green mug. " * 8,
        "A film about a dog. " + "The dog runs home and the boy is glad, and the day is done. " * 6,
        "好" * 30,
        "这是一个绿色的杯子。" * 6,
        "A mug, " + "a cup, a mug, a saucer, " * 7,
        "!" * 200,
        "word\n" * 20,
    ],
)
def test_a_loop_is_told(text: str) -> None:
    assert code(text) in ("repetition", "empty_answer")
    assert code("A tall green mug with a handle. " + text) == "repetition"


def test_a_text_said_over_and_over_with_small_changes_is_a_loop() -> None:
    text = " ".join(
        f"The item number {n} is a very nice item for all who like very nice items." for n in range(12)
    )
    assert code(text) == "repetition"


def test_what_was_only_read_off_is_not_held_against_what_models_do() -> None:
    read = Checks(generated=False)
    for text in (
        "SALE " * 40,
        "I'm sorry, but I can't assist with that.",
        "Describe this item in about 80 words.",
    ):
        assert read.judge(answer(text)) == text.strip()
    assert code("", read) == "empty_answer"


def test_an_echo_of_the_prompt_is_told_and_marks_of_a_chat() -> None:
    from pathlib import Path

    for name in prompts.shipped():
        prompt = prompts.find(name, Path())
        if name.startswith("text"):
            continue
        asked = Checks(instructions=prompt.instructions)
        for _, lines in prompt.turns:
            own = " ".join(part for line in lines for part in line if isinstance(part, str))
            if len(own.split()) < 8:
                continue  # too few words of its own to tell
            said = "\n".join("".join(p if isinstance(p, str) else "80" for p in line) for line in lines)
            assert code(said, asked) == "echo", (name, said)
        for text in DESCRIPTIONS:
            assert code(text, asked) == "ok"
    assert code("A mug.<|im_end|>\n<|im_start|>user") == "echo"


def test_a_cut_answer_is_kept_or_refused_as_asked() -> None:
    assert (
        Checks().judge(answer("A tall green mug with a ha\ufffd", "length")) == "A tall green mug with a ha"
    )
    assert code("A tall green", Checks(on_length="error"), "length") == "too_long"
    assert code("A tall green", Checks(on_length="error")) == "ok"


@pytest.mark.parametrize(
    "text", ["A mug\x00", "A \x1b[31mred\x1b[0m mug", "A mug\ufffd\ufffd of", "A \ud800 mug", "A\x9f mug"]
)
def test_control_characters_and_broken_bytes_are_garbled(text: str) -> None:
    found = Checks().judge(answer(text))
    assert isinstance(found, CellError)
    assert found.code == "garbled"
    found.message.encode()
    checks.storable(text).encode()


SCHEMA = {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}


def test_json_is_held_against_the_schema_and_kept_as_one_line() -> None:
    asked = Checks(schema=SCHEMA)
    assert asked.judge(answer('```json\n{"kind":\n "Becher – grün"}\n```')) == '{"kind": "Becher – grün"}'
    many = {"kind": "mug", "sizes": [{"cm": 10}] * 30}
    assert asked.judge(answer(json.dumps(many))) == json.dumps(many)
    assert code(json.dumps({"kind": "mug " * 40}), asked) == "repetition"
    broken = ("a mug", '{"kind": "mug"', '{"kind": "mug"} and more', '{"kind": NaN}', "[" * 9000)
    for wrong in (*broken, '{"kind": 3}', "[]"):
        assert code(wrong, asked) == "not_json"
    found = asked.judge(answer('{"kind": 3}'))
    assert isinstance(found, CellError)
    assert "$.kind" in found.message


def test_only_what_may_come_out_otherwise_passes_by_itself() -> None:
    here, there = Checks(on_length="error"), Checks(on_length="error", varies=True)
    cases = {"": True, "I can't help with that.": False, "mug " * 40: True, "a\x00b": True}
    for text, again in cases.items():
        for asked, expected in ((here, False), (there, again)):
            found = asked.judge(answer(text))
            assert isinstance(found, CellError)
            assert found.transient is expected
    cut = there.judge(answer("A mug", "length"))
    assert isinstance(cut, CellError)
    assert not cut.transient


def test_a_message_shows_how_the_answer_began() -> None:
    found = Checks().judge(answer("I can't help with that. " + "x " * 20))
    assert isinstance(found, CellError)
    assert found.message == "the model declined: I can't help with that. " + "x " * 19 + "x"


SUBJECTS = [
    "a tall mug",
    "this drama",
    "the red shoe",
    "a pair of friends",
    "the story",
    "a lamp",
    "its cover",
    "the film",
]
VERBS = ["shows", "follows", "comes with", "suits", "recalls", "is made for", "stands before", "cannot hide"]
OBJECTS = [
    "a wide handle",
    "two boys in the war",
    "soft leather",
    "a bright sky",
    "long walks",
    "the year 1948",
    "people who like jazz",
    "no text at all",
    "blue and white stripes",
    "an old house by the sea",
]
OPENERS = [
    "",
    "In the foreground, ",
    "Unfortunately for them, ",
    "As an aside, ",
    "Here, ",
    "Sadly, ",
    "In short, ",
]
SENTENCES = st.builds(
    lambda o, s, v, b, n: f"{o}{s} {v} {b}, {n} of them.",
    *(st.sampled_from(words) for words in (OPENERS, SUBJECTS, VERBS, OBJECTS)),
    st.integers(1, 9999),
)


@given(st.lists(SENTENCES, min_size=1, max_size=14, unique=True))
def test_an_ordinary_paragraph_is_never_refused(sentences: list[str]) -> None:
    text = " ".join(s[0].upper() + s[1:] for s in sentences)
    assert (
        Checks(instructions="Describe the item in this picture in about 80 words.").judge(answer(text))
        == text
    )


@given(st.text(max_size=300), st.sampled_from(["stop", "length", "refused"]), st.booleans())
def test_whatever_comes_back_is_a_text_that_can_be_kept_or_an_error(
    text: str, finish: Finish, schema: bool
) -> None:
    found = Checks(instructions="Say what it is.", schema=SCHEMA if schema else None).judge(
        answer(text, finish)
    )
    checks.storable(text).encode()
    if isinstance(found, str):
        assert found.strip()
        found.encode()
        if schema:
            json.loads(found)
    else:
        found.message.encode()


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=12), st.integers(12, 40))
def test_every_unit_said_often_enough_is_a_loop(unit: list[str], times: int) -> None:
    assert checks.repetition(" ".join(unit * times))
