"""Pieces of SQL trees. A pattern is SQL in DuckDB's words with :names in it, and each name stands for another tree.

Columns that a query makes for itself begin with `sz_`, so that none has the name of one of the user's.
"""

from functools import cache

from sqlglot import exp, parse_one

Tree = exp.Expr
TRUE, FALSE, NULL = exp.true(), exp.false(), exp.null()


def tree(pattern: str, /, read: str = "duckdb", **parts: Tree) -> Tree:
    """The pattern as a tree with the parts in place of its :names. read: in whose words it is."""
    whole = {name: exp.paren(part) if isinstance(part, exp.Binary | exp.Not) else part for name, part in parts.items()}
    made: Tree = exp.replace_placeholders(_parsed(pattern, read).copy(), **whole)
    left = [each.name for each in made.find_all(exp.Placeholder)]
    assert not left, f"no part for {', '.join(left)} in {pattern}"
    return made


@cache
def _parsed(pattern: str, read: str) -> Tree:
    return parse_one(pattern, dialect=read)


def column(name: str) -> Tree:
    """A column by its exact name."""
    return exp.column(exp.to_identifier(name, quoted=True))


def text(value: str) -> Tree:
    """A text value."""
    return exp.Literal.string(value)


def number(value: int) -> Tree:
    """A whole number."""
    return exp.convert(value)


def named(value: Tree, name: str) -> Tree:
    """The value as a column of this name."""
    return exp.alias_(value, exp.to_identifier(name, quoted=True), copy=False)


def call(name: str, *arguments: Tree) -> Tree:
    """A function that only one dialect has, by the name it has there."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def select(*columns: Tree | str, source: str | Tree) -> exp.Select:
    """SELECT columns FROM source. Text: "*", or a pattern without parts."""
    trees = [exp.Star() if each == "*" else tree(each) if isinstance(each, str) else each for each in columns]
    return exp.select(*trees).from_(exp.to_table(source) if isinstance(source, str) else source)


def is_one_of(value: Tree, texts: frozenset[str]) -> Tree:
    """Whether the value is one of the texts; false for null."""
    return exp.func("COALESCE", exp.In(this=value, expressions=[text(each) for each in sorted(texts)]), FALSE.copy())
