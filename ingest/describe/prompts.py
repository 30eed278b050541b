"""Prompts: files of turns with typed slots, found by name or path, and filled in for one item.

    Whatever stands before the first turn is for people: who wrote it, and what for. It is not sent.

    ## system
    You describe products.

    ## user
    {image}
    Title: {title?}
    {text}

A slot is `{image}`, `{text}` (the item's document), `{title}`, `{column:NAME}`, `{feature:NAME}` (of texts) or
`{words}` (the option of that name). A question mark makes it optional: where the item has nothing, its whole line is
left out. `{{` and `}}` are braces. A section `## schema` holds a JSON schema that the answer must satisfy.

A prompt about a user has `{items}` (what was taken, a list in order of time) and `{preference}` (what was said of the
user before) instead of the slots of an item.

What is said is the identity, never the file's name: an edit of the lines for people changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from featurestore.errors import BadInput, NotFound, did_you_mean
from featurestore.files import canonical_json, sha256_contents
from featurestore.recipe import COLUMN, FEATURE
from featurestore.schema import IMAGE, TITLE
from ingest.describe.base import Turn

if TYPE_CHECKING:
    from PIL import Image

SUFFIX = ".md"
ARTIFACT = "prompt"  # its name among a recipe's artifacts
FILE = "prompt.md"  # and of the one file in it
SECTIONS = ("system", "user", "schema")
TEXT = "text"
WORDS = "words"
ITEMS = "items"
PREFERENCE = "preference"
OF_USERS = (ITEMS, PREFERENCE)
PLAIN = (IMAGE, TEXT, TITLE, WORDS, *OF_USERS)
_HEADING = re.compile(r"##\s+(.*?)\s*")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Slot:
    """A place that an item fills. key: "image", "text", "words", "column:NAME" or "feature:NAME"; that a user fills:
    "items", "preference" or "words".
    """

    key: str
    optional: bool = False


Line = tuple[str | Slot, ...]


@dataclass(frozen=True)
class Prompt:
    """What is said to a model about an item. text: the sections as they were written, which is what is hashed."""

    text: str
    turns: tuple[tuple[Literal["system", "user"], tuple[Line, ...]], ...]
    schema: dict[str, Any] | None
    header: str
    source: str

    @property
    def contents(self) -> dict[str, bytes]:
        """As an artifact."""
        return {FILE: self.text.encode()}

    @property
    def sha256(self) -> str:
        """Of the artifact."""
        return sha256_contents(self.contents)

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """By key, in order; one that stands twice is optional if it is so in both places."""
        found: dict[str, Slot] = {}
        for _, lines in self.turns:
            for piece in (piece for line in lines for piece in line if isinstance(piece, Slot)):
                known = found.get(piece.key, piece)
                found[piece.key] = Slot(piece.key, piece.optional and known.optional)
        return found

    @property
    def of_users(self) -> bool:
        """Whether it asks about a user, not about an item."""
        return any(key in OF_USERS for key in self.slots)

    @cached_property
    def instructions(self) -> str:
        """All that is said of itself, whatever the item."""
        lines = ["".join(p for p in line if isinstance(p, str)) for _, all_ in self.turns for line in all_]
        return "\n".join(lines)

    def render(self, values: Mapping[str, str | Image.Image | None]) -> tuple[Turn, ...]:
        """The turns for one item. values: by key of the slot; None or "" where there is nothing.

        Raises KeyError where a slot that is not optional has nothing.
        """
        return tuple(Turn(role, tuple(_parts(lines, values))) for role, lines in self.turns)


def _parts(
    lines: tuple[Line, ...], values: Mapping[str, str | Image.Image | None]
) -> Iterator[str | Image.Image]:
    said: list[str] = []
    for line in lines:
        slots = [piece for piece in line if isinstance(piece, Slot)]
        empty = [slot for slot in slots if not values.get(slot.key)]
        if any(slot.optional for slot in empty):
            continue
        if empty:
            raise KeyError(empty[0].key)
        for piece in line:
            value = piece if isinstance(piece, str) else values[piece.key]
            if isinstance(value, str):
                said.append(value)
            else:
                if text := "".join(said).strip():
                    yield text
                said = []
                assert value is not None
                yield value
        said.append("\n")
    if text := "".join(said).strip():
        yield text


# ---- finding


def shipped() -> dict[str, Path]:
    """The prompts that come with the program: "NAME@VERSION" to file, sorted."""
    folder = resources.files("ingest.describe") / "shipped"
    files = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(SUFFIX)]
    return {file.stem: file for file in sorted(files)}


def is_file(spec: str) -> bool:
    """Whether an option `prompt` is a path; else it names a shipped one."""
    return spec.endswith(SUFFIX) or "/" in spec


def find(spec: str, root: Path) -> Prompt:
    """The prompt that a definition names: "NAME" (its newest version), "NAME@VERSION", or a path.

    root: folder of features.toml, where a relative path starts. Raises NotFound, and BadInput for a bad file.
    """
    if is_file(spec):
        path = root / Path(spec).expanduser()
        try:
            return parse(path.read_text(encoding="utf-8-sig"), spec)
        except OSError as error:
            raise NotFound(
                f"the prompt file {path} cannot be read ({error.strerror})",
                remedy="correct `prompt`: a relative path starts at the folder of features.toml",
            ) from None
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8 (byte {error.start})", remedy="save it as UTF-8") from None
    path = file_of(spec)
    return parse(path.read_text(encoding="utf-8"), path.stem)


def file_of(spec: str) -> Path:
    """The file of a shipped prompt. Raises BadInput for an unknown name."""
    known = shipped()
    versions = [name for name in known if name == spec or name.partition("@")[0] == spec]
    if not versions:
        names = sorted({name.partition("@")[0] for name in known} | set(known))
        raise BadInput(
            f"there is no shipped prompt '{spec}'",
            remedy=f'{did_you_mean(spec, names)}; or name a file of your own: prompt = "prompts/mine{SUFFIX}"',
        )
    return known[max(versions, key=lambda name: int(name.partition("@")[2]))]


def facts(spec: str, root: Path, feature: str | None) -> dict[str, Any]:
    """What a list shows of a prompt. feature: whose it is."""
    found = find(spec, root)
    return {
        "prompt": spec,
        "feature": feature,
        "reads": [f"{key}?" if slot.optional else key for key, slot in found.slots.items()],
        "sha256": found.sha256,
        "about": found.header.split("\n")[0].lstrip("# ").partition(": ")[2] or None,
    }


# ---- reading a file


def parse(text: str, source: str) -> Prompt:
    """Read a prompt. Raises BadInput that names file and line."""
    header, sections = _sections(text, source)
    schema = _schema(sections.pop("schema"), source) if "schema" in sections else None
    if "user" not in sections:
        raise BadInput(
            f"{source}: there is no turn of the user", remedy="write a line '## user', then the text"
        )
    turns: list[tuple[Literal["system", "user"], tuple[Line, ...]]] = []
    said: list[str] = []
    for role in ("system", "user"):
        if role in sections:
            lines = _trimmed(sections[role])
            if not lines:
                raise BadInput(f"{source}: the turn '{role}' is empty", remedy="write its text, or remove it")
            turns.append((role, tuple(_line(line, number, role, source) for number, line in lines)))
            said.append(f"## {role}\n" + "\n".join(line for _, line in lines) + "\n")
    pictures = [
        p for _, lines in turns for line in lines for p in line if isinstance(p, Slot) and p.key == IMAGE
    ]
    if len(pictures) > 1:
        raise BadInput(
            f"{source}: {{{IMAGE}}} stands in it twice", remedy="an item has one picture: show it once"
        )
    if schema is not None:
        said.append(f"## schema\n{canonical_json(schema)}\n")
    made = Prompt("\n".join(said), tuple(turns), schema, header, source)
    mixed = [key for key in made.slots if key not in (*OF_USERS, WORDS)]
    if made.of_users and mixed:
        raise BadInput(
            f"{source}: {{{mixed[0]}}} is of one item, and the prompt asks about a user",
            remedy=f"{{{ITEMS}}} lists what the user took, as the options say",
        )
    return made


Numbered = list[tuple[int, str]]


def _sections(text: str, source: str) -> tuple[str, dict[str, Numbered]]:
    """(what stands before the first section, the lines of each with their numbers)."""
    sections: dict[str, Numbered] = {}
    header: list[str] = []
    into: Numbered | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        heading = _HEADING.fullmatch(line)
        if heading is None:
            if into is None:
                header.append(line)
            else:
                into.append((number, line.rstrip()))
            continue
        name = heading[1].lower()
        if name not in SECTIONS:
            raise BadInput(
                f"{source}:{number}: there is no section '{heading[1]}'",
                remedy=f"{did_you_mean(name, SECTIONS)}; a heading that is to be sent starts with # or ###",
            )
        if name in sections:
            raise BadInput(f"{source}:{number}: '## {name}' stands here twice", remedy="make it one")
        into = sections[name] = []
    return "\n".join(header).strip(), sections


def _trimmed(lines: Numbered) -> Numbered:
    """Without the empty lines around them."""
    filled = [place for place, (_, line) in enumerate(lines) if line]
    return lines[filled[0] : filled[-1] + 1] if filled else []


def _line(line: str, number: int, role: str, source: str) -> Line:
    """Texts and slots of one line."""
    pieces: list[str | Slot] = []
    said = ""
    end = 0
    for token in _TOKEN.finditer(line):
        said += line[end : token.start()]
        end = token.end()
        if token[0] in ("{{", "}}"):
            said += token[0][0]
        elif token[1] is None:
            raise BadInput(
                f"{source}:{number}: a single {token[0]}", remedy=f"write {token[0] * 2} for a brace"
            )
        else:
            pieces += (
                [said, _slot(token[1], number, role, source)]
                if said
                else [_slot(token[1], number, role, source)]
            )
            said = ""
    said += line[end:]
    return tuple([*pieces, said] if said else pieces)


def _slot(inside: str, number: int, role: str, source: str) -> Slot:
    where = f"{source}:{number}"
    name = inside.removesuffix("?")
    optional = name != inside
    kind, colon, rest = name.partition(":")
    if colon and f"{kind}:" in (COLUMN, FEATURE) and rest and rest == rest.strip():
        return Slot(name, optional)
    if name not in PLAIN:
        _unknown(name, inside, where)
    if name == IMAGE and role != "user":
        raise BadInput(f"{where}: {{{IMAGE}}} stands in the system's turn", remedy="show it in the user's")
    if name == WORDS and optional:
        raise BadInput(f"{where}: {{{WORDS}?}} is never empty", remedy=f"write {{{WORDS}}}")
    return Slot(f"{COLUMN}{TITLE}" if name == TITLE else name, optional)


def _unknown(name: str, inside: str, where: str) -> NoReturn:
    kind, colon, rest = name.partition(":")
    if colon:
        near = did_you_mean(f"{kind}:", (COLUMN, FEATURE)).replace(":'", f":{rest or 'NAME'}'")
    else:
        near = did_you_mean(name, [*PLAIN, f"{COLUMN}NAME", f"{FEATURE}NAME"])
    raise BadInput(
        f"{where}: there is no slot {{{inside}}}",
        remedy=f"{near}; a brace that is to be sent is doubled: {{{{ }}}}",
    )


def _schema(lines: Numbered, source: str) -> dict[str, Any]:
    first = lines[0][0] if lines else 1
    try:
        schema = json.loads("\n".join(line for _, line in lines))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{source}:{first + error.lineno - 1}: the schema is no JSON: {error.msg}",
            remedy="correct the line",
        ) from None
    if not isinstance(schema, dict):
        raise BadInput(f"{source}:{first}: the schema is no JSON object", remedy="write { ... }")
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise BadInput(
            f"{source}:{first}: this is no JSON schema: {error.message}", remedy="see https://json-schema.org"
        ) from None
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise BadInput(
                f"{source}:{first}: the schema refers to '{reference}', which is not in it",
                remedy="write all of the schema here: nothing is fetched",
            ) from None
    return schema


def _references(value: Any) -> Iterator[str]:
    """Every `$ref` in a schema."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
