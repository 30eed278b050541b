"""What may stand in a filter: a walk over the parsed tree that allows few kinds of node and writes SQL from them.

The grammar is told in `featurestore.filters`. Everything is a refusal unless a rule here takes it: a node without a
rule, an argument that its rule does not read, a column that is not there, a value of another kind than its column.
A refusal quotes the place in the filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from featurestore.errors import BadInput, did_you_mean

if TYPE_CHECKING:
    from sqlglot import exp

MAX_DEPTH = 60  # brackets and NOTs inside each other
REMEDY = "see `featurestore.filters` for the grammar, such as: price < 20 AND category IN ('mug', 'cup')"

Value = str | bool | int | float


class Kind(StrEnum):
    NUMBER = "number"
    TEXT = "text"
    YES_NO = "yes/no"
    TEXTS = "list of texts"


def kind_of(type_: pa.DataType) -> Kind | None:
    """How a column of this type is compared; None where no condition can be put on it."""
    if pa.types.is_boolean(type_):
        return Kind.YES_NO
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return Kind.NUMBER
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return Kind.TEXT
    if (pa.types.is_list(type_) or pa.types.is_large_list(type_)) and kind_of(type_.value_type) is Kind.TEXT:
        return Kind.TEXTS
    return None


@dataclass(frozen=True)
class _Column:
    name: str
    sql: str
    kind: Kind
    whole: bool  # holds integers


@dataclass(frozen=True)
class _Literal:
    value: Value
    kind: Kind


class Writer:
    """Walks a parsed filter, refuses what the grammar does not have and writes the SQL that is run."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        from sqlglot import exp

        self.text = text
        self.schema = schema
        self.columns: list[str] = []
        self.values: list[Value] = []
        # node -> (what writes it, the arguments it may have)
        self.rules: dict[type[exp.Expr], tuple[Callable[[Any, int], str], frozenset[str]]] = {
            exp.Not: (self.negation, frozenset({"this"})),
            exp.Paren: (self.bracket, frozenset({"this"})),
            exp.And: (self.chain, frozenset({"this", "expression"})),
            exp.Or: (self.chain, frozenset({"this", "expression"})),
            exp.Column: (self.lone_column, frozenset({"this"})),
            exp.In: (self.membership, frozenset({"this", "expressions", "field"})),
            exp.Between: (self.between, frozenset({"this", "low", "high"})),
            exp.Like: (self.like, frozenset({"this", "expression", "negate"})),
            exp.ILike: (self.like, frozenset({"this", "expression", "negate"})),
            exp.Is: (self.test, frozenset({"this", "expression"})),
            exp.Contains: (self.contains, frozenset({"this", "expression"})),
            exp.ArrayContains: (self.contains, frozenset({"this", "expression"})),
        }
        self.comparisons: dict[type[exp.Expr], str] = {
            exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
        }  # fmt: skip
        for node in self.comparisons:
            self.rules[node] = (self.comparison, frozenset({"this", "expression"}))

    # conditions: each returns SQL that is true, false or NULL

    def condition(self, node: exp.Expr, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise BadInput(f"the filter is nested more than {MAX_DEPTH} deep", remedy="use IN lists")
        rule = self.rules.get(type(node))
        if rule is None:
            self.refuse(node, f"{_name(node)} is not part of a filter")
        write, allowed = rule
        self.only(node, allowed)
        return write(node, depth)

    def negation(self, node: exp.Not, depth: int) -> str:
        return f"(NOT {self.condition(node.this, depth + 1)})"

    def bracket(self, node: exp.Paren, depth: int) -> str:
        return self.condition(node.this, depth + 1)

    def chain(self, node: exp.And | exp.Or, depth: int) -> str:
        """a AND b AND c: the tree leans left and may be long, so it is walked without recursion."""
        parts: list[exp.Expr] = []
        left: exp.Expr = node
        while type(left) is type(node):
            self.only(left, frozenset({"this", "expression"}))
            parts.append(left.expression)
            left = left.this
        parts.append(left)
        joint = f" {type(node).__name__.upper()} "
        return "(" + joint.join(self.condition(part, depth + 1) for part in reversed(parts)) + ")"

    def lone_column(self, node: exp.Column, depth: int) -> str:
        column = self.column(node)
        if column.kind is not Kind.YES_NO:
            self.refuse(
                node, f"'{column.name}' is a {column.kind} column and says nothing on its own", "compare it"
            )
        return column.sql

    def comparison(self, node: exp.Binary, depth: int) -> str:
        left, right = self.operand(node.this), self.operand(node.expression)
        if isinstance(left, _Literal) and isinstance(right, _Literal):
            self.refuse(node, "a comparison needs a column")
        operator = self.comparisons[type(node)]
        column = left if isinstance(left, _Column) else right
        assert isinstance(column, _Column)
        other = right if column is left else left
        self.same_kind(node, column, other)
        if column.kind is Kind.TEXTS:
            self.refuse(node, f"'{column.name}' is a list", f"ask contains({column.name}, 'x')")
        if column.kind is Kind.YES_NO and operator not in ("=", "<>"):
            self.refuse(node, f"'{column.name}' is a yes/no column and has no order", "use = or <>")
        written = [self.write(side, whole=column.whole) for side in (left, right)]
        return f"({written[0]} {operator} {written[1]})"

    def membership(self, node: exp.In, depth: int) -> str:
        listed = node.args.get("field")
        if listed is not None:
            if not isinstance(node.this, self.nodes.Literal):
                self.refuse(node, "IN takes values in brackets, or asks for one value in a list column")
            return self.in_list(node, listed, node.this)
        column = self.scalar_column(node, "IN")
        literals = [self.literal(value) for value in node.expressions]
        if not literals:
            self.refuse(node, "IN lists no value")
        for literal in literals:
            self.same_kind(node, column, literal)
        # an integer column is compared with integers only, exactly; a fraction is never one of its values
        kept = [
            v
            for v in literals
            if not (column.whole and isinstance(v.value, float) and not v.value.is_integer())
        ]
        if not kept:
            return f"({column.sql} = 0.5)"
        return f"({column.sql} IN ({', '.join(self.write(v, whole=column.whole) for v in kept)}))"

    def between(self, node: exp.Between, depth: int) -> str:
        column = self.scalar_column(node, "BETWEEN")
        if column.kind is Kind.YES_NO:
            self.refuse(node, f"'{column.name}' is a yes/no column and has no order")
        bounds = [self.operand(node.args["low"]), self.operand(node.args["high"])]
        for bound in bounds:
            self.same_kind(node, column, bound)
        low, high = (self.write(bound, whole=column.whole) for bound in bounds)
        return f"(({column.sql} >= {low}) AND ({column.sql} <= {high}))"

    def like(self, node: exp.Like | exp.ILike, depth: int) -> str:
        word = type(node).__name__.upper()
        column = self.scalar_column(node, word)
        if column.kind is not Kind.TEXT:
            self.refuse(node, f"{word} reads text, '{column.name}' is a {column.kind} column")
        pattern = self.literal(node.expression)
        self.same_kind(node, column, pattern)
        written = f"({column.sql} {word} {self.write(pattern)})"
        return f"(NOT {written})" if node.args.get("negate") else written

    def test(self, node: exp.Is, depth: int) -> str:
        if not isinstance(node.this, self.nodes.Column):
            self.refuse(node, "IS asks about one column")
        column = self.column(node.this)
        if isinstance(node.expression, self.nodes.Null):
            return f"({column.sql} IS NULL)"
        if not isinstance(node.expression, self.nodes.Boolean):
            self.refuse(node, "IS asks for NULL, TRUE or FALSE")
        if column.kind is not Kind.YES_NO:
            self.refuse(node, f"'{column.name}' is a {column.kind} column, neither true nor false")
        return f"(coalesce({column.sql}, {not node.expression.this}) = {bool(node.expression.this)})"

    def contains(self, node: exp.Binary, depth: int) -> str:
        return self.in_list(node, node.this, node.expression)

    def in_list(self, node: exp.Expr, listed: exp.Expr, wanted: exp.Expr) -> str:
        if not isinstance(listed, self.nodes.Column):
            self.refuse(node, "contains asks about one list column")
        column = self.column(listed)
        if column.kind is Kind.TEXT:
            self.refuse(node, f"'{column.name}' is text, not a list", f"write {column.name} ILIKE '%word%'")
        if column.kind is not Kind.TEXTS:
            self.refuse(node, f"'{column.name}' is a {column.kind} column, not a list")
        literal = self.literal(wanted)
        if literal.kind is not Kind.TEXT:
            self.refuse(node, f"'{column.name}' lists texts", f"write '{literal.value}' in quotes")
        return f"list_contains({column.sql}, {self.write(literal)})"

    # operands

    def operand(self, node: exp.Expr) -> _Column | _Literal:
        while isinstance(node, self.nodes.Paren):
            node = node.this
        return self.column(node) if isinstance(node, self.nodes.Column) else self.literal(node)

    def scalar_column(self, node: exp.Expr, word: str) -> _Column:
        if not isinstance(node.this, self.nodes.Column):
            self.refuse(node, f"{word} stands after a column")
        column = self.column(node.this)
        if column.kind is Kind.TEXTS:
            self.refuse(node, f"'{column.name}' is a list", f"ask contains({column.name}, 'x')")
        return column

    def column(self, node: exp.Column) -> _Column:
        self.only(node, frozenset({"this"}))
        if not isinstance(node.this, self.nodes.Identifier):
            self.refuse(node, f"{_name(node.this)} is not a column")
        asked = node.this.this
        known = [f.name for f in self.schema if not f.name.startswith("_")]
        folded = [name for name in known if name.lower() == asked.lower()]
        name = asked if asked in known else folded[0] if len(folded) == 1 else None
        if name is None:
            hint = f"'{asked}' may be {' or '.join(folded)}" if folded else did_you_mean(asked, known)
            self.refuse(node, f"there is no column '{asked}'", hint)
        type_ = self.schema.field(name).type
        kind = kind_of(type_)
        if kind is None:
            self.refuse(node, f"column '{name}' ({type_}) cannot be filtered by")
        if name not in self.columns:
            self.columns.append(name)
        return _Column(name, f"c{self.columns.index(name)}", kind, pa.types.is_integer(type_))

    def literal(self, node: exp.Expr) -> _Literal:
        negative = False
        if (
            isinstance(node, self.nodes.Neg)
            and isinstance(node.this, self.nodes.Literal)
            and not node.this.is_string
        ):
            node, negative = node.this, True
        if isinstance(node, self.nodes.Boolean):
            return _Literal(bool(node.this), Kind.YES_NO)
        if isinstance(node, self.nodes.Null):
            self.refuse(node, "a comparison with NULL is never true", "write IS NULL or IS NOT NULL")
        if not isinstance(node, self.nodes.Literal):
            self.refuse(node, f"{_name(node)} stands where a value was expected")
        if node.is_string:
            return _Literal(node.this, Kind.TEXT)
        number = _number(node.this)
        if number is None:
            self.refuse(node, f"{node.this} is not a number that can be compared with")
        return _Literal(-number if negative else number, Kind.NUMBER)

    def write(self, side: _Column | _Literal, whole: bool = False) -> str:
        """SQL of an operand. whole: it meets integers, so 3.0 is bound as 3 and the comparison stays exact."""
        if isinstance(side, _Column):
            return side.sql
        value = side.value
        if whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and not (whole and abs(value) < 2**127):
            value = float(value)
        self.values.append(value)
        return "?"

    # refusals

    @property
    def nodes(self) -> Any:
        from sqlglot import exp

        return exp

    def same_kind(self, node: exp.Expr, column: _Column, other: _Column | _Literal) -> None:
        if column.kind is other.kind:
            return
        if isinstance(other, _Column):
            self.refuse(
                node, f"'{column.name}' ({column.kind}) is compared with '{other.name}' ({other.kind})"
            )
        if column.kind is Kind.NUMBER and other.kind is Kind.TEXT:
            number = _number(str(other.value).strip().lstrip("-"))
            hint = (
                f"write {str(other.value).strip()} without quotes"
                if number is not None
                else "compare it with a number"
            )
        elif column.kind is Kind.TEXT:
            hint = f"write '{other.value}' in quotes"
        elif column.kind is Kind.YES_NO:
            hint = "compare it with true or false"
        elif column.kind is Kind.TEXTS:
            hint = f"ask contains({column.name}, 'x')"
        else:
            hint = "compare it with a number"
        shown = f"'{other.value}'" if other.kind is Kind.TEXT else str(other.value).lower()
        self.refuse(node, f"'{column.name}' is a {column.kind} column, {shown} is {other.kind}", hint)

    def only(self, node: exp.Expr, allowed: Iterable[str]) -> None:
        """Refuse a node that carries more than the arguments that we read, such as a table's name or SYMMETRIC."""
        if extra := [name for name, value in node.args.items() if value and name not in allowed]:
            self.refuse(node, f"{_name(node)} with '{extra[0]}' is not part of a filter")

    def refuse(self, node: exp.Expr, reason: str, remedy: str = REMEDY) -> NoReturn:
        places = [
            (n.meta["start"], n.meta["end"]) for n in node.walk() if "start" in n.meta and "end" in n.meta
        ]
        if places:
            place = point(self.text, min(p[0] for p in places), max(p[1] for p in places))
        else:
            place = f"\n  {around(self.text, 0)[0]}"
        raise BadInput(f"{reason}:{place}", remedy=remedy)


def _name(node: exp.Expr) -> str:
    name = str(node.this) if type(node).__name__ == "Anonymous" else type(node).__name__
    return f"{name}()" if type(node).__name__ == "Anonymous" else name


def _number(text: str) -> int | float | None:
    """None for what is no number, or one that no column could hold."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    try:
        return int(text)
    except ValueError:
        return value


def point(text: str, start: int, end: int) -> str:
    """The filter's text around a place, with marks under it."""
    shown, offset = around(text, start)
    begin = start - offset
    return f"\n  {shown}\n  {' ' * begin}{'^' * max(1, min(end + 1 - start, len(shown) - begin))}"


def around(text: str, place: int, width: int = 90) -> tuple[str, int]:
    """Up to `width` characters of one line of text around `place`, and where they begin."""
    offset = max(0, min(place - width // 3, len(text) - width))
    return "".join(c if c.isprintable() else " " for c in text[offset : offset + width]), offset
