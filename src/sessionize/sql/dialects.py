"""The databases: one class each, with what they say in words of their own.

A dialect is offered once the tests run its queries in the database itself. The others are `--untested`: written by
sqlglot from the general form, never run.
"""

import re

from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session.columns import BUCKET_COUNT
from sessionize.sql.dialect import HOST, INTEGER, NUMBER, Dialect, case_pairs, parameter_pattern
from sessionize.sql.tree import Tree, call, column, named, number, text, tree


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

    def finite(self, value: Tree) -> Tree:
        none = "CAST('{}' AS DOUBLE PRECISION)".format
        pattern = f"NULLIF(NULLIF(NULLIF(:v, {none('Infinity')}), {none('-Infinity')}), {none('NaN')}) + 0"
        return exp.paren(tree(pattern, read="postgres", v=value))

    def whole(self, value: Tree) -> Tree:
        # what is beyond 64 bits is moved to the first doubles that are, which are no numbers here
        least, most = (
            tree(f"CAST({each}.0 AS DOUBLE PRECISION)", read="postgres") for each in (-(2**63) - 2_048, 2**63)
        )
        clamped = tree("GREATEST(LEAST(TRUNC(:v), :most), :least)", read="postgres", v=value, most=most, least=least)
        return tree(
            "CAST(NULLIF(NULLIF(:v, :most), :least) AS BIGINT)", read="postgres", v=clamped, most=most, least=least
        )

    def read_integer(self, value: Tree) -> Tree:
        return tree("CAST(SUBSTRING(:v FROM :p) AS BIGINT)", read="postgres", v=value, p=text(f"^{INTEGER}$"))

    def read_number(self, value: Tree) -> Tree:
        pattern = "CAST(SUBSTRING(:v FROM :p) AS DOUBLE PRECISION)"
        return tree(pattern, read="postgres", v=value, p=text(f"^{NUMBER}$"))

    def lower(self, value: Tree) -> Tree:
        # its own functions go by the locale of the database, which often knows ASCII alone
        return self.translated(value, *case_pairs(upper=False))

    def upper(self, value: Tree) -> Tree:
        return self.translated(value, *case_pairs(upper=True))

    def url_host(self, value: Tree) -> Tree:
        found = tree("SUBSTRING(:v FROM :p)", read="postgres", v=value, p=text(HOST))
        return exp.func("NULLIF", self.lower(found), text(""))

    def query_parameter(self, value: Tree, name: str) -> Tree:
        raise ConfigError(
            "postgres cannot decode the parameters of an address",
            detail=f"query_parameter(…, {name!r}) in session_columns",
            hint="make it a column of the table, and name that",
        )

    def shortened(self, values: Tree, most: int) -> Tree:
        return tree("(:v)[1 : :n]", read="postgres", v=values, n=number(most))

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

    def micros(self, value: Tree) -> Tree:
        # it looks at rows that do not count too, and at what lies beneath a null
        return call("accurateCastOrNull", self.half_even(tree(":v * 1000000", v=value)), text("Int64"))

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

    def finite(self, value: Tree) -> Tree:
        infinite = call("CAST", text("inf"), text("Float64"))
        return exp.paren(tree(":v + 0", v=call("nullIf", call("ifNotFinite", value, infinite), infinite.copy())))

    def whole(self, value: Tree) -> Tree:
        return call("accurateCastOrNull", call("trunc", value), text("Int64"))

    def read_integer(self, value: Tree) -> Tree:
        return call("toInt64OrNull", call("extract", value, text(f"^({INTEGER})$")))

    def read_number(self, value: Tree) -> Tree:
        return call("toFloat64OrNull", call("extract", value, text(f"^({NUMBER})$")))

    def nearest(self, whole: Tree) -> Tree:
        return call("JSONExtractFloat", call("concat", text("["), call("toString", whole), text("]")), number(1))

    def like(self, value: Tree, pattern: str) -> Tree:
        return call("like", value, text(pattern))

    def lower(self, value: Tree) -> Tree:
        return call("lowerUTF8", value)

    def upper(self, value: Tree) -> Tree:
        return call("upperUTF8", value)

    def length(self, value: Tree) -> Tree:
        return call("toInt64", call("lengthUTF8", value))

    def url_host(self, value: Tree) -> Tree:
        return call("nullIf", call("lowerUTF8", call("extract", value, text(HOST))), text(""))

    def query_parameter(self, value: Tree, name: str) -> Tree:
        found = call("nullIf", call("extract", value, text(parameter_pattern(name))), text(""))
        return call("decodeURLComponent", call("replaceAll", call("substring", found, number(2)), text("+"), text(" ")))

    def shortened(self, values: Tree, most: int) -> Tree:
        return call("arraySlice", values, number(1), number(most))

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
