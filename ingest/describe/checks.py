"""Whether an answer is a description: what a model gives back instead of one becomes that item's error.

Refusals are told by how an answer opens, loops by what stands in it again and again, an echo by the prompt's own
words. Each check errs on the side of the answer: a wrong refusal loses an item, a bad text is found by reading some.
What is wrong with one answer is a `CellError` (codes below); the answer as it came is kept beside it.

    code         the answer                                                             again, from an endpoint
    empty_answer holds no word, or nothing after a model's thoughts                     may help
    refused      says that it will not, or was withheld                                 will not
    repetition   goes round in a loop                                                   may help
    echo         is the prompt's instructions, or holds the marks of a chat             will not
    too_long     was cut at max_tokens, where `on_length = "error"` or JSON was asked   will not
    not_json     is no JSON, or not what the prompt's schema says                       may help
    garbled      holds control characters or bytes that are no text                     may help

A model in this process answers the same when asked again, so there none of them passes by itself.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.errors import BadInput, CellError
from featurestore.schema import Status
from ingest.describe.base import Answer
from ingest.describe.chat import MARKS

VERSION = 1  # raised when the same answer would be judged otherwise; part of every recipe
AGAIN = frozenset(("empty_answer", "repetition", "not_json", "garbled"))
MISSING = "missing"  # code of a cell whose item has nothing to tell
QUOTED = 120  # characters of the answer that an error's message shows

_I = r"(?:i|we)"
_BE = rf"(?:{_I}(?:['’]m| am|['’]re| are))"
_CANNOT = (
    rf"(?:{_I} (?:can['’]?t|can ?not|could ?n['’]?t|could not|wo['’]?n['’]?t|will not|am not able|are not able|"
    rf"must decline|decline|have to decline|refuse)\b"
    rf"|{_BE} (?:not (?:able|allowed|permitted)|unable|not going)\b)"
)
_SORRY = (
    rf"(?:{_BE} (?:very |so |really |truly |terribly )?(?:sorry|afraid)|(?:so |very )?sorry|apologies|my apologies|"
    rf"{_I} apologi[sz]e|unfortunately|regrettably|{_I} regret)"
)
_DOING = (
    r"(?:to )?(?:help|assist|describe|identify|provide|see|view|access|process|comply|fulfil+|generate|create|write|"
    r"summari[sz]e|analy[sz]e|answer|discuss|engage|recogni[sz]e|determine|display|open|load|read|continue|do|offer|"
    r"give|make|produce|interpret|share|have (?:access|the ability|enough|any|an image|a picture|sufficient))\b"
)
_DO = rf" (?:be able )?(?:(?:currently|directly|actually|really|physically|in good conscience) )?{_DOING}"
_PICTURE = (
    r"(?:image|picture|photo|photograph|attachment|file|text|description|item|details|information|content)s?"
)
REFUSALS = (
    rf"{_SORRY}\b[^.!?\n]{{0,80}}?\b{_CANNOT}(?:{_DO}|\W*$|[^\w\n]*[.!?])",  # I'm sorry, but as an AI I can't help
    rf"{_SORRY}\b[^.!?\n]{{0,80}}?\b{_I} (?:do not|don['’]t) (?:see|have)\b",
    rf"{_SORRY},? (?:but )?(?:this|that|the|your|it|there|no)\b[^.!?\n]{{0,80}}"
    r"\b(?:cannot|can['’]?t|not|no|violat\w+|against|inappropriate|unavailable|missing)\b",
    rf"(?:sorry|apologies|{_BE} sorry|{_I} apologi[sz]e)[,.!]? (?:but )?"
    r"(?:for (?:the|any) (?:confusion|inconvenience|misunderstanding|oversight)|about that)\b",
    rf"(?:as an? (?:\w+[- ]){{0,3}}(?:ai|assistant|model)\b[^.!?\n]{{0,80}}?)"
    rf"\b(?:{_CANNOT}|{_I} (?:do not|don['’]t) have)",
    rf"{_CANNOT}{_DO}",
    rf"{_I} (?:do not|don['’]t) (?:currently )?(?:see (?:any|an|a|the)|have (?:access|the ability|enough|any|an|a)) "
    rf"(?:[\w-]+ ){{0,3}}?(?:{_PICTURE}|to)\b",
    rf"{_I} need (?:more|additional|further) (?:context|{_PICTURE})",
    rf"(?:{_SORRY},? )?(?:there (?:is|was|are) |{_I} (?:see|received|do not see|don['’]t see) )?(?:no|any|an empty) "
    rf"{_PICTURE} (?:(?:was|were|has been|have been|is|are) )?(?:here|provided|attached|given|uploaded|included|"
    r"available|visible|supplied|to (?:describe|summari[sz]e))",
    rf"(?:could|can|would) you (?:please )?(?:provide|upload|share|attach|send|give|paste)\b[^.!?\n]{{0,60}}{_PICTURE}",
    rf"(?:please|kindly) (?:provide|upload|share|attach|send|paste|supply|give)\b[^.!?\n]{{0,60}}{_PICTURE}",
    rf"it (?:seems|looks|appears) (?:like |that )?(?:there (?:is|was) )?(?:no {_PICTURE}\b|"
    rf"(?:you|(?:the|your) {_PICTURE})\b[^.!?\n]{{0,30}}?(?:\b(?:not|missing|forgot|empty)\b|n['’]t\b))",
    r"(?:the|this|your) (?:image|picture|photo|request|content)\b[^.!?\n]{0,20}\b(?:violates|cannot be|can['’]?t be|"
    r"could not be|couldn['’]?t be|did not load|didn['’]?t load|failed to load|is not available)",
    r"(?:n/a|none|null|unknown|not applicable|no description(?: available)?)\W*$",
    # as the model's other tongues have it
    r"(?:很|非常)?(?:抱歉|对不起|不好意思)[，,。！!]?.{0,20}(?:无法|不能|没有|不可以)",
    r"我(?:无法|不能|没有办法|没法)(?:看到|查看|识别|描述|提供|回答|协助|帮助|处理|访问)",
    r"(?:作为|身为)(?:一个|一名)?(?:AI|人工智能).{0,30}(?:无法|不能)",
    r"(?:es tut mir leid|tut mir leid|leider)\b.{0,40}\bkann ich|ich kann (?:leider )?.{0,40}nicht "
    r"(?:beschreiben|helfen|sehen|beantworten|erkennen)",
    r"(?:je suis |désolée?,? ).{0,30}\bje ne (?:peux|suis) pas|je ne peux pas (?:vous aider|décrire|voir|répondre)",
    r"(?:lo siento|lamentablemente|desculpe|sinto muito)\b.{0,30}\b(?:no puedo|não posso|não consigo)",
    r"(?:申し訳|すみません|ごめんなさい).{0,40}(?:できません|いたしかねます|ありません)",
)
_LEAD = r"[\s\"'“”‘’*_#>(\[-]*(?:(?:hello|hi|hmm|oh|well|okay|ok|sure|note|answer|description|summary)\b[\s,.:!*-]*)?"
_REFUSED_WORDS = 60  # a longer answer that only opens so has gone on to describe something

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
_LONGEST_UNIT = 40  # tokens of what is repeated back to back
_AGAIN_ALL = 0.5  # share of 4-grams seen before from which a text is a loop
_AGAIN_TOKENS = 60  # shorter texts have too few of them to say

_ECHO_GRAM = 6  # words
_ECHO_SHARE = 0.5
_ECHO_WORDS = 12

_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)  # the chat template opened it
_THOUGHT_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair
_FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)\n?```", re.DOTALL)


@dataclass(frozen=True)
class Checks:
    """What answers of one feature are held against.

    refusals: regular expressions for how a refusal opens; None for ours. instructions: what the prompt says of itself,
    "" where nobody was told anything. generated: whether a model wrote it; a text that was only read off is not held
    against what models do wrong. varies: whether the same question may be answered otherwise.
    """

    refusals: Sequence[str] | None = None
    instructions: str = ""
    schema: dict[str, Any] | None = None
    on_length: str = "keep"
    generated: bool = True
    varies: bool = False

    def settle(self, answer: Answer) -> tuple[Status, str | None, CellError | None]:
        """(status, text, error) of a cell that has this answer."""
        found = self.judge(answer)
        if isinstance(found, str):
            return Status.OK, found, None
        if found.code == "empty_answer" and not self.generated:  # nobody failed to answer
            return Status.NO_INPUT, None, CellError(MISSING, "there is no text in it")
        return Status.ERROR, None, found

    def judge(self, answer: Answer) -> str | CellError:
        """The text that is kept, or why there is none."""
        found = self._judge(answer)
        if isinstance(found, str):
            return found
        code, said = found
        shown = " ".join(storable(answer.text).split())
        quoted = f": {shown[:QUOTED]}{'…' if len(shown) > QUOTED else ''}" if shown else ""
        return CellError(code, said + quoted, transient=self.varies and code in AGAIN)

    def _judge(self, answer: Answer) -> str | tuple[str, str]:
        if answer.finish == "refused":
            return "refused", "the endpoint withheld the answer"
        text = cleaned(answer.text, cut=answer.finish == "length")
        if answer.finish == "length" and self.on_length == "error":
            return "too_long", "the answer was cut at max_tokens"
        if answer.finish == "length" and _THOUGHT_OPEN.match(text):
            return "empty_answer", "max_tokens was used up by the model's thoughts"
        if not text or (self.schema is None and not re.search(r"\w", text)):
            return "empty_answer", "the answer holds no word"
        if bad := garbled(text):
            return "garbled", f"the answer holds {bad}"
        if not self.generated:
            return text
        if refused(text, self.refusals):
            return "refused", "the model declined"
        prose = text
        if self.schema is not None:
            made = as_json(text, self.schema)
            if not isinstance(made, str):
                cut = "the answer was cut at max_tokens before its JSON was whole"
                return ("too_long", cut) if answer.finish == "length" else made
            text, prose = made, "\n".join(_strings(json.loads(made)))
        if loop := repetition(prose):
            return "repetition", f"the answer goes round in a loop ({loop})"
        if echo := echoes(prose, self.instructions):
            return "echo", f"the answer {echo}"
        return text


def cleaned(text: str, *, cut: bool = False) -> str:
    """Without thoughts, blanks around it and ends of line of other systems; cut: the last character may be half."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _THOUGHT_END.sub("", _THOUGHT.sub("", text))
    text = text.strip()
    return text.rstrip("\ufffd").rstrip() if cut else text


def storable(text: str) -> str:
    """With what no UTF-8 can hold replaced, so that a raw answer can be kept whatever it is, and is judged alike."""
    return _HALF.sub("\ufffd", text)


def garbled(text: str) -> str:
    """What is in a text that cannot be meant; "" for nothing."""
    for character in text:
        if character in "\n\t":
            continue
        kind = unicodedata.category(character)
        if kind == "Cc":
            return f"the control character U+{ord(character):04X}"
        if kind == "Cs" or character == "\ufffd":
            return "bytes that are no text"
    return ""


def compile_refusals(patterns: Sequence[str]) -> None:
    """Raises BadInput for an expression that is none."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(
                f"refusals: '{pattern}' is no regular expression: {error}",
                remedy="correct it, or leave refusals out",
            ) from None


def refused(text: str, patterns: Sequence[str] | None = None) -> bool:
    """Whether a text opens as a refusal does and goes on to nothing else. patterns: None for ours."""
    chosen = REFUSALS if patterns is None else patterns
    if not any(re.match(_LEAD + f"(?:{p})", text, re.IGNORECASE | re.DOTALL) for p in chosen):
        return False
    return len(_TOKEN.findall(text)) <= _REFUSED_WORDS * 1.2 or patterns is not None


def repetition(text: str) -> str:
    """What a text repeats without end, in words; "" for a text as people write it.

    Either one unit of 1 to 40 tokens stands back to back many times, or more than half of the 4-grams of a long text
    stood in it before. A token is a word, a mark, or one sign of a script without spaces.
    """
    tokens = [token.lower() for token in _TOKEN.findall(text)]
    for size in range(1, min(_LONGEST_UNIT, len(tokens) // 2) + 1):
        run = 0  # tokens in a row that equal the one `size` before
        for place in range(size, len(tokens)):
            run = run + 1 if tokens[place] == tokens[place - size] else 0
            if run and _is_loop(tokens[place - size + 1 : place + 1], run // size + 1):
                unit = " ".join(tokens[place - size + 1 : place + 1])
                return f"'{unit[:40]}' {run // size + 1} times and on"
    if len(tokens) >= _AGAIN_TOKENS:
        grams = Counter(zip(*(tokens[start:] for start in range(4)), strict=False))
        again = 1 - len(grams) / grams.total()
        if again > _AGAIN_ALL:
            return f"{again:.0%} of it was said before"
    return ""


def _is_loop(unit: list[str], times: int) -> bool:
    """Rules of a table, dots before a page number or five cheers are none."""
    if not any(re.match(r"\w", token) for token in unit):
        return times * len(unit) >= 60
    return times >= (10 if len(unit) == 1 else 5 if len(unit) < 8 else 3)


def echoes(text: str, instructions: str) -> str:
    """How a text echoes what was asked; "" if it does not."""
    if mark := MARKS.search(text):
        return f"holds {mark[0]}, a mark of the chat"
    said, asked = _words(text), _words(instructions)
    if len(said) < _ECHO_WORDS:
        whole = " ".join(said)
        return "is a part of the prompt" if len(said) >= 5 and whole in " ".join(asked) else ""
    known = set(_grams(asked))
    grams = _grams(said)
    share = sum(gram in known for gram in grams) / len(grams)
    return "is the prompt's own words" if share >= _ECHO_SHARE else ""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(_ECHO_GRAM)), strict=False))


def as_json(text: str, schema: dict[str, Any]) -> str | tuple[str, str]:
    """The answer as one line of JSON if it is what the schema says; a fence around it is taken off."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry

    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return "not_json", f"the answer is no JSON ({error})"
    checker = Draft202012Validator(schema, registry=Registry())  # an empty one: a $ref is never fetched
    wrong = best_match(checker.iter_errors(value))
    if wrong is not None:
        return (
            "not_json",
            f"the answer is not what the schema says, at {wrong.json_path}: {wrong.message[:200]}",
        )
    return json.dumps(value, ensure_ascii=False)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
