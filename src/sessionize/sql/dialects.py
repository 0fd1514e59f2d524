"""What databases say differently: one class each, with a method for every piece of SQL that is not the same everywhere.

A dialect is offered once the tests run its queries in the database itself. The others are `--untested`: written by
sqlglot from the general form, never run.
"""

import re
from typing import ClassVar

from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session.columns import BUCKET_COUNT, USER_HASH_BUCKET
from sessionize.sql.tree import Tree, call, column, named, number, text, tree

_PLAIN = re.compile(r"(?!.*(?:__SQLGLOT|sz_apart))[ -~]*")


class Dialect:
    """The general form, in DuckDB's words where databases agree on none; sqlglot writes it in those of `target`."""

    name: ClassVar[str] = ""
    target: ClassVar[str] = ""
    counts_rows: ClassVar[bool] = False  # whether counts_by needs the count of each type beside its first row
    has_rolling: ClassVar[bool] = True  # recursion, and frames of so many milliseconds

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


class DuckDB(Dialect):
    """DuckDB 1.4 and later."""

    name = target = "duckdb"


class Postgres(Dialect):
    """PostgreSQL 14 and later. Maps are JSONB, and there is no hash for the user's bucket."""

    name = target = "postgres"
    counts_rows = True

    def time_ms(self, time: Tree) -> Tree:
        pattern = "CASE WHEN ISFINITE(:t) THEN CAST(FLOOR(EXTRACT(EPOCH FROM :t) * 1000) AS BIGINT) END"
        return tree(pattern, read="postgres", t=time)

    def divided(self, value: Tree, by: int) -> Tree:
        return tree(":v / :by", read="postgres", v=value, by=number(by))

    def byte_length(self, value: Tree) -> Tree:
        return call("OCTET_LENGTH", value)

    def half_even(self, value: Tree) -> Tree:
        return call("ROUND", value)  # of a double

    def is_nan(self, value: Tree) -> Tree:
        return tree(":v = CAST('NaN' AS DOUBLE PRECISION)", read="postgres", v=value)

    def local_day(self, time: Tree, zone: str) -> Tree:
        pattern = (
            "CAST((CAST('1970-01-01' AS TIMESTAMP) + :t * CAST('1 millisecond' AS INTERVAL)) "
            "AT TIME ZONE 'UTC' AT TIME ZONE :zone AS DATE)"
        )
        return tree(pattern, read="postgres", t=time, zone=text(zone))

    def bytewise(self, value: Tree) -> Tree:
        return tree(':v COLLATE "C"', read="postgres", v=value)

    def list_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        pattern = "COALESCE(ARRAY_AGG(:v ORDER BY :o) FILTER (WHERE :k), CAST('{}' AS TEXT[]))"
        return tree(pattern, read="postgres", v=value, o=order, k=keep)

    def last_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        pattern = "(ARRAY_AGG(:v ORDER BY :o DESC) FILTER (WHERE :k))[1]"
        return tree(pattern, read="postgres", v=value, o=order, k=keep)

    def first_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        pattern = "(ARRAY_AGG(:v ORDER BY :o) FILTER (WHERE :k))[1]"
        return tree(pattern, read="postgres", v=value, o=order, k=keep)

    def counts_by(self, value: Tree, count: Tree, is_first: Tree) -> Tree:
        firsts = exp.Filter(this=call("JSONB_OBJECT_AGG", value, count), expression=exp.Where(this=is_first))
        return exp.func("COALESCE", firsts, exp.cast(text("{}"), "jsonb"))

    def carried_row(self, source: str) -> Tree:
        return named(column(source), "sz_row")

    def without(self, own: list[str]) -> Tree:
        return exp.Dot(this=exp.paren(column("sz_row")), expression=exp.Star())


class ClickHouse(Dialect):
    """ClickHouse 25 and later."""

    name = target = "clickhouse"

    def time_ms(self, time: Tree) -> Tree:
        # adding nothing turns a DateTime into a DateTime64, and refuses a number
        return self.floor_div(call("toUnixTimestamp64Micro", call("addMicroseconds", time, number(0))), 1_000)

    def whole_ms(self, time: Tree, unit: str) -> Tree:
        # a DateTime times one is an error; cast to a number it would be seconds
        return super().whole_ms(tree(":t * 1", t=time), unit)

    def divided(self, value: Tree, by: int) -> Tree:
        return call("intDiv", value, number(by))

    def byte_length(self, value: Tree) -> Tree:
        return call("length", value)

    def translated(self, value: Tree, characters: str, into: str) -> Tree:
        return call("translateUTF8", value, text(characters), text(into))

    def half_even(self, value: Tree) -> Tree:
        return call("round", value)  # of a double

    def is_nan(self, value: Tree) -> Tree:
        return call("isNaN", value)

    def matches(self, value: Tree, pattern: str) -> Tree:
        # its LIKE has no ESCAPE, and a backslash always escapes
        like = "%".join(re.sub(r"([\\%_])", r"\\\1", part) for part in pattern.split("*"))
        return call("like", value, text(like))

    def local_day(self, time: Tree, zone: str) -> Tree:
        return call("toDate32", call("fromUnixTimestamp64Milli", call("toInt64", time), text(zone)))

    def wide_sum(self, value: Tree) -> Tree:
        return call("sum", call("toInt128", value))

    def amount(self, micros: Tree) -> Tree:
        # reading text as a number rounds roughly, unless it is JSON
        return call("JSONExtractFloat", call("concat", text("["), call("toString", micros), text("e-6]")), number(1))

    def list_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        pairs = call("arraySort", call("groupArrayIf", call("tuple", order, call("assumeNotNull", value)), keep))
        return call("tupleElement", pairs, number(2))

    def last_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        return call("argMaxIf", value, order, keep)

    def first_of(self, value: Tree, order: Tree, keep: Tree) -> Tree:
        return call("argMinIf", value, order, keep)

    def counts_by(self, value: Tree, count: Tree, is_first: Tree) -> Tree:
        one = call("map", call("assumeNotNull", value), call("toInt64", number(1)))
        return call("sumMapIf", one, tree(":v IS NOT NULL", v=value))

    def date_of(self, days: Tree) -> Tree:
        return call("addDays", call("toDate32", text("1970-01-01")), call("toInt32", days))

    def user_bucket(self, user: Tree) -> Tree | None:
        hashed = call("bitAnd", call("murmurHash3_32", user), number(0x7FFFFFFF))
        return call("toInt32", tree(":h % :n", h=hashed, n=number(BUCKET_COUNT)))


class Untested(Dialect):
    """A dialect that sqlglot knows, written from the general form."""

    def __init__(self, name: str) -> None:
        self.name = self.target = name  # type: ignore[misc]  # of the instance, not of the class


DIALECTS: dict[str, Dialect] = {each.name: each for each in (DuckDB(), Postgres(), ClickHouse())}
UNTESTED = ("bigquery", "redshift", "snowflake", "spark", "trino")


def dialect_named(name: str, *, untested: bool = False) -> Dialect:
    """The dialect. untested: also one that no test runs. Errors: ConfigError for any other."""
    if name in DIALECTS:
        return DIALECTS[name]
    if name not in UNTESTED:
        known = ", ".join([*DIALECTS, *(f"{each} (--untested)" for each in UNTESTED)])
        raise ConfigError("unknown SQL dialect", detail=f"dialect {name!r}", hint=f"one of {known}")
    if not untested:
        raise ConfigError(
            "no test runs this SQL dialect",
            detail=f"dialect {name!r}",
            hint=f"--untested writes it all the same; tested are {', '.join(DIALECTS)}",
        )
    return Untested(name)
