"""Charts as inline SVG: bars, lines and marks over one pair of axes, coloured by the page they stand in (page.py)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sessionize.analytics.page import text

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 26, 34

Point = tuple[float, float]
Tick = tuple[float, str]


@dataclass(slots=True, kw_only=True)
class Chart:
    """A chart being drawn. x, y: what the axes span. x_ticks, y_ticks: (place, text). title: for screen readers.

    Places outside of the axes are drawn at their ends.
    """

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    _drawn: list[str] = field(default_factory=list, init=False)
    _legend: list[tuple[str, int]] = field(default_factory=list, init=False)

    def bars(self, bars: Sequence[tuple[float, float, float, str]], *, colour: int = 1, name: str = "") -> None:
        """Bars from the bottom: (left, right, height, what is said where one points at it). name: for the legend."""
        if name:
            self._legend.append((name, colour))
        floor = self._y(self.y[0])
        for left, right, height, said in bars:
            x, top = self._x(left), self._y(height)
            width = max(self._x(right) - x - 0.5, 0.5)
            self._drawn.append(
                f'<rect class="f{colour}" x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{floor - top:.1f}">'
                f"<title>{text(said)}</title></rect>"
            )

    def line(self, points: Sequence[Point], *, colour: int = 2, name: str = "", dots: Sequence[str] = ()) -> None:
        """A line. name: for the legend. dots: what is said at each point; none without them."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._drawn.append(f'<polyline class="s{colour}" points="{path}"/>')
        for (x, y), said in zip(points, dots, strict=False):
            self._drawn.append(
                f'<circle class="f{colour}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3.5">'
                f"<title>{text(said)}</title></circle>"
            )
        if name:
            self._legend.append((name, colour))

    def mark(self, x: float, label: str, *, row: int = 0) -> None:
        """A vertical line with a label. row: how far down the label stands, where several are close."""
        at, low = self._x(x), self._y(self.y[0])
        anchor = "end" if at > _WIDTH * 0.8 else "start"
        shift = -4 if anchor == "end" else 4
        self._drawn.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{low:.1f}"/>'
            f'<text class="label" x="{at + shift:.1f}" y="{_TOP + 12 + 15 * row}" text-anchor="{anchor}">'
            f"{text(label)}</text>"
        )

    def svg(self) -> str:
        """The drawing."""
        left, right, low = _LEFT, _WIDTH - _RIGHT, self._y(self.y[0])
        axes = [f'<line class="grid" x1="{left}" x2="{right}" y1="{low:.1f}" y2="{low:.1f}"/>']
        for place, said in self.y_ticks:
            at = self._y(place)
            axes.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            axes.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{text(said)}</text>')
        for place, said in self.x_ticks:
            axes.append(f'<text x="{self._x(place):.1f}" y="{low + 18:.1f}" text-anchor="middle">{text(said)}</text>')
        legend = []
        for number, (name, colour) in enumerate(self._legend):
            x = left + 4 + 190 * number
            legend.append(f'<rect class="f{colour}" x="{x}" y="6" width="12" height="12"/>')
            legend.append(f'<text x="{x + 17}" y="16">{text(name)}</text>')
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{text(self.title)}">{"".join(axes)}{"".join(self._drawn)}{"".join(legend)}</svg>'
        )

    def _x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * _share(value, self.x)

    def _y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * _share(value, self.y)


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0


def round_steps(top: float, *, wanted: int = 4) -> list[float]:
    """Round numbers from zero up to `top` for an axis, about so many."""
    if top <= 0:
        return [0.0]
    step = 10.0 ** (len(str(int(top / wanted))) - 1) if top >= wanted else 1.0
    for factor in (1, 2, 5, 10, 20):
        if top / (step * factor) <= wanted + 1:
            step *= factor
            break
    return [step * number for number in range(int(top / step) + 1)]


def short(number: float) -> str:
    """A number for an axis: 1.2M, 35k, 7."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"
