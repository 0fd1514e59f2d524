"""The pieces of SQL that are not the same everywhere, one method each, in the general form."""

import re
from functools import cache
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sessionize.session.columns import USER_HASH_BUCKET
from sessionize.sql.tree import Tree, call, column, number, text, tree

INTEGER = r"-?[0-9]{1,18}"
NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/?#:]*)"
_PLAIN = re.compile(r"(?!.*(?:__SQLGLOT|sz_apart))[ -~]*")


def parameter_pattern(name: str) -> str:
    """A pattern for the first value of a name in the query of an address, with the = before it."""
    return r"^[^?#]*\?(?:[^#]*?&)??" + re.escape(name) + r"(=[^&#]*)"


@cache
def case_pairs(*, upper: bool) -> tuple[str, str]:
    """All characters that have another case, and what they are in it, in the same order."""
    every = pa.array([chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000])
    other = pc.utf8_upper(every) if upper else pc.utf8_lower(every)
    changed = pc.not_equal(every, other)
    return "".join(every.filter(changed).to_pylist()), "".join(other.filter(changed).to_pylist())


class Dialect:
    """The general form, in DuckDB's words where databases agree on none; sqlglot writes it in those of `target`."""

    name: ClassVar[str] = ""
    target: ClassVar[str] = ""
    counts_rows: ClassVar[bool] = False  # whether counts_by needs the count of each type beside its first row

    def write(self, query: Tree) -> str:
        """The query as text, every name quoted.

        sqlglot lays out a query line by line, also within texts and names; those that are not plain go in afterwards.
        """
        kept: dict[str, str] = {}

        def apart(node: Tree) -> Tree:
            is_text = isinstance(node, exp.Literal) and node.is_string
            if not (is_text or isinstance(node, exp.Identifier)) or _PLAIN.fullmatch(node.this):
                return node
            token = f"sz_apart_{len(kept)}_"
            kept[token] = node.sql(dialect=self.target, identify=True)
            return exp.Var(this=token)

        text = query.transform(apart).sql(dialect=self.target, pretty=True, identify=True)
        return re.sub(r"sz_apart_\d+_", lambda found: kept[found[0]], text)

    def time_ms(self, time: Tree) -> Tree:
        """A timestamp as whole milliseconds since 1970, UTC; fractions floored, null for infinity."""
        return self.floor_div(tree("CASE WHEN ISFINITE(:t) THEN EPOCH_US(:t) END", t=time), 1_000)

    def whole_ms(self, time: Tree, unit: str) -> Tree:
        """Numbers of a unit as milliseconds since 1970; fractions floored."""
        match unit:
            case "ms":
                return tree("CAST(:t AS BIGINT)", t=time)
            case "s":
                micros = self.half_even(tree("CAST(:t AS DOUBLE) * 1000000", t=time))
                return tree("CAST(FLOOR(:micros / 1000) AS BIGINT)", micros=micros)
            case _:
                return self.floor_div(tree("CAST(:t AS BIGINT)", t=time), 1_000 if unit == "us" else 1_000_000)

    def floor_div(self, value: Tree, by: int) -> Tree:
        """A whole number divided by a positive one and floored, also below zero."""
        return self.divided(tree("(:v - ((:v % :by) + :by) % :by)", v=value, by=number(by)), by)

    def divided(self, value: Tree, by: int) -> Tree:
        """A whole number divided by a positive one, without the rest."""
        return tree(":v // :by", v=value, by=number(by))

    def byte_length(self, value: Tree) -> Tree:
        """The bytes of a text in UTF-8."""
        return call("STRLEN", value)

    def translated(self, value: Tree, characters: str, into: str) -> Tree:
        """The text with each of the characters replaced."""
        return call("TRANSLATE", value, text(characters), text(into))

    def half_even(self, value: Tree) -> Tree:
        """A double rounded to a whole number, halves to the even one."""
        return call("ROUND_EVEN", value, number(0))

    def micros(self, value: Tree) -> Tree:
        """An amount within the limits in whole millionths, halves to the even one; anything where it is none."""
        return exp.cast(self.half_even(tree(":v * 1000000", v=value)), "bigint")

    def is_nan(self, value: Tree) -> Tree:
        """Whether a double is not a number."""
        return call("ISNAN", value)

    def matches(self, value: Tree, pattern: str) -> Tree:
        """Whether the whole text has the form of the pattern, in which * is any text."""
        like = "%".join(re.sub(r"([\\%_])", r"\\\1", part) for part in pattern.split("*"))
        return exp.Escape(this=exp.Like(this=value, expression=text(like)), expression=text("\\"))

    def local_day(self, time: Tree, zone: str) -> Tree:
        """The day of a time by the clock of a zone."""
        pattern = "CAST(MAKE_TIMESTAMP(:t * 1000) AT TIME ZONE 'UTC' AT TIME ZONE :zone AS DATE)"
        return tree(pattern, t=time, zone=text(zone))

    def bytewise(self, value: Tree) -> Tree:
        """A text that sorts by its bytes."""
        return value

    def wide_sum(self, value: Tree) -> Tree:
        """The sum of whole numbers of 64 bits, without overflow."""
        return tree("SUM(:v)", v=value)

    def amount(self, micros: Tree) -> Tree:
        """Whole millionths as the nearest double: dividing a large number would round twice, reading text does not."""
        return tree("CAST(CAST(:m AS TEXT) || 'e-6' AS DOUBLE)", m=micros)

    def list_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        """The values of the rows to keep as a list in this order; an empty one for none."""
        pattern = "COALESCE(ARRAY_AGG(:v ORDER BY :o) FILTER (WHERE :k), CAST([] AS TEXT[]))"
        return tree(pattern, v=value, o=order, k=keep)

    def last_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        """The value of the last row to keep; null for none."""
        return tree("MAX_BY(:v, CASE WHEN :k THEN :o END)", v=value, o=order, k=keep)

    def first_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        """The value of the first row to keep; null for none."""
        return tree("MIN_BY(:v, CASE WHEN :k THEN :o END)", v=value, o=order, k=keep)

    def counts_by(self, value: Tree, count: Tree, is_first: Tree) -> Tree:
        """How often each text occurs, as a map in alphabetical order; an empty one for none.

        count, is_first: of each row, how many rows of the session have its text, and whether it is the first of them.
        """
        pattern = "COALESCE(CAST(HISTOGRAM(:v) AS MAP(TEXT, BIGINT)), CAST(:none AS MAP(TEXT, BIGINT)))"
        return tree(pattern, v=value, none=call("MAP"))

    def finite(self, value: Tree) -> Tree:
        """Null for a double that is no finite number; no negative zero. It is written once, as it may be long."""
        pattern = "NULLIF(NULLIF(NULLIF(:v, CAST('inf' AS DOUBLE)), CAST('-inf' AS DOUBLE)), CAST('nan' AS DOUBLE)) + 0"
        return exp.paren(tree(pattern, v=value))

    def whole(self, value: Tree) -> Tree:
        """A double without its fraction as a whole number; null beyond 64 bits."""
        return tree("TRY_CAST(TRUNC(:v) AS BIGINT)", v=value)

    def read_integer(self, value: Tree) -> Tree:
        """Text as a whole number; null for other text."""
        return tree("TRY_CAST(NULLIF(REGEXP_EXTRACT(:v, :p, 1), '') AS BIGINT)", v=value, p=text(f"^({INTEGER})$"))

    def read_number(self, value: Tree) -> Tree:
        """Text as a double; null for other text."""
        return tree("TRY_CAST(NULLIF(REGEXP_EXTRACT(:v, :p, 1), '') AS DOUBLE)", v=value, p=text(f"^({NUMBER})$"))

    def nearest(self, whole: Tree) -> Tree:
        """A whole number of any size as the nearest double."""
        return tree("CAST(CAST(:m AS TEXT) AS DOUBLE)", m=whole)

    def like(self, value: Tree, pattern: str) -> Tree:
        """SQL's LIKE with a pattern that has no backslash."""
        return tree(":v LIKE :p", v=value, p=text(pattern))

    def lower(self, value: Tree) -> Tree:
        """In lower case, character by character."""
        return call("LOWER", value)

    def upper(self, value: Tree) -> Tree:
        """In upper case, character by character."""
        return call("UPPER", value)

    def length(self, value: Tree) -> Tree:
        """The number of characters."""
        return call("LENGTH", value)

    def url_host(self, value: Tree) -> Tree:
        """The host of an address, in lower case; null for none."""
        return tree("NULLIF(LOWER(REGEXP_EXTRACT(:v, :p, 1)), '')", v=value, p=text(HOST))

    def query_parameter(self, value: Tree, name: str) -> Tree:
        """The first value of this name in the query of an address, decoded; null for none."""
        pattern = "URL_DECODE(REPLACE(SUBSTRING(NULLIF(REGEXP_EXTRACT(:v, :p, 1), ''), 2), '+', ' '))"
        return tree(pattern, v=value, p=text(parameter_pattern(name)))

    def shortened(self, values: Tree, most: int) -> Tree:
        """At most so many values of a list."""
        return call("LIST_SLICE", values, number(1), number(most))

    def date_of(self, days: Tree) -> Tree:
        """The date of a day since 1970."""
        return tree("CAST('1970-01-01' AS DATE) + CAST(:d AS INT)", d=days)

    def user_bucket(self, user: Tree) -> Tree | None:
        """Iceberg's bucket of the user, 0 to 99; None where the database has no such hash."""
        return None

    def can_fill(self, session_column: str) -> bool:
        """Whether the dialect has what a session column needs."""
        return session_column != USER_HASH_BUCKET or self.user_bucket(column("sz_user")) is not None

    def carried_row(self, source: str) -> Tree:
        """All columns of the user's row, as they go from step to step."""
        return exp.Star()

    def without(self, own: list[str]) -> Tree:
        """All columns of the user's row, without those that the query has added."""
        return exp.Star(except_=[exp.to_identifier(name, quoted=True) for name in own])
