"""A report as one HTML file: no script, no font, no address of anything outside; light and dark, and printable.

A page is built of parts that take plain text and escape it themselves, so that no caller can forget to: user ids and
pages are whatever somebody sent. The result is well-formed XML too.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

_STYLE = files("sessionize.analytics").joinpath("page.css").read_text("utf-8")


def text(value: object) -> str:
    """A value as HTML text or attribute; characters that XML or a reader could not take are replaced."""
    plain = "" if value is None else str(value)
    return escape(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in plain), quote=True
    )


class Page:
    """A page that is being written, part after part."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._parts = [f"<header><h1>{text(title)}</h1>"]
        if subtitle:
            self._parts.append(f'<p class="dim">{text(subtitle)}</p>')
        self._parts.append("</header>")

    def facts(self, facts: Iterable[tuple[str, object]]) -> None:
        """Figures in boxes: (what, how much)."""
        boxes = "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for name, value in facts)
        self._parts.append(f'<div class="facts">{boxes}</div>')

    def heading(self, words: str) -> None:
        """The beginning of a section."""
        self._parts.append(f"<h2>{text(words)}</h2>")

    def paragraph(self, words: str, *, dim: bool = False) -> None:
        """A paragraph."""
        opening = '<p class="dim">' if dim else "<p>"
        self._parts.append(f"{opening}{text(words)}</p>")

    def bullets(self, items: Iterable[str]) -> None:
        """A list, nothing when it is empty."""
        found = "".join(f"<li>{text(item)}</li>" for item in items)
        if found:
            self._parts.append(f"<ul>{found}</ul>")

    def table(
        self,
        head: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        right: Sequence[int] = (),
        kinds: Sequence[str] | None = None,
    ) -> None:
        """A table. right: positions of columns with numbers. kinds: for each row "good", "bad" or "", the colour of its
        first cell.
        """

        def cells(tag: str, row: Sequence[object], kind: str = "") -> str:
            made = []
            for at, value in enumerate(row):
                names = " ".join(filter(None, ("n" if at in right else "", kind if not at else "")))
                opening = f'<{tag} class="{names}">' if names else f"<{tag}>"
                made.append(f"{opening}{text(value)}</{tag}>")
            return f"<tr>{''.join(made)}</tr>"

        colours = iter(kinds or ())
        body = "".join(cells("td", row, next(colours, "")) for row in rows)
        self._parts.append(
            f'<div class="wide"><table><thead>{cells("th", head)}</thead><tbody>{body}</tbody></table></div>'
        )

    def figure(self, drawing: str, caption: str) -> None:
        """A chart (charts.py) and what it shows."""
        self._parts.append(f"<figure>{drawing}<figcaption>{text(caption)}</figcaption></figure>")

    def html(self) -> str:
        """The whole file."""
        return (
            '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8"/>'
            '<meta name="viewport" content="width=device-width,initial-scale=1"/>'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
            f"<title>{text(self._title)}</title><style>{_STYLE}</style></head><body>\n"
            + "\n".join(self._parts)
            + "\n<footer><p>sessionize</p></footer></body></html>\n"
        )
