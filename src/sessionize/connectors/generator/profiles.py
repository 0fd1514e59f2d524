"""The five profiles: the activities of users, their think times, and the records of the activities.

A profile is a table: activities with their think times, the probabilities of the next activity (the rest to 1.0 is
the probability of leaving), and the record as a sequence of fixed text, fields, and text that depends on the activity
and the product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from sessionize.connectors.generator.catalogue import Product
from sessionize.connectors.generator.settings import ProfileName


class Field(Enum):
    """A part of a record that differs between events."""

    EVENT_ID = auto()  # 19 characters, unique in a run
    REFERENCE = auto()  # 4 characters of the event id for a conversion, empty for other events
    USER = auto()
    TIME_MS = auto()
    TIME_ISO = auto()  # 2026-01-05T10:00:00.000Z


Text = Callable[[str, Product], str]
Part = str | Field | Text


@dataclass(frozen=True, slots=True)
class Activity:
    """One activity of a user. think_s: the median time until the next."""

    name: str
    think_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The behaviour of a population and the form of its records.

    start: probability of each first activity. moves[a][b]: probability that b follows a. opening, closing: activities
    that begin every visit, and end closing_share of them. looks: activities that select another product. conversions:
    activities that count as success. hesitation: (from, to), the replacement of an activity on a flash-sale product.
    line: the record. user_field, time_field: names of the two required fields; time_form: the encoding of the time.
    """

    name: ProfileName
    activities: tuple[Activity, ...]
    start: tuple[float, ...]
    moves: tuple[tuple[float, ...], ...]
    looks: tuple[str, ...]
    conversions: tuple[str, ...]
    line: tuple[Part, ...]
    user_field: str
    time_field: str
    time_form: Literal["ms", "ms_text", "iso"]
    opening: str | None = None
    closing: str | None = None
    closing_share: float = 0.0
    hesitation: tuple[str, str] | None = None

    def code(self, activity: str) -> int:
        """The index of an activity in `activities`."""
        return [a.name for a in self.activities].index(activity)


_CARDS = 5


def _booking_page(activity: str, product: Product) -> str:
    return "booking" if activity == "booked" else activity


def _booking_details(activity: str, product: Product) -> str:
    return "BK-" if activity == "booked" else ""


def _event_details(activity: str, product: Product) -> str:
    card = product.number % _CARDS + 1
    kind, value = {
        "home": ("page-view", "home-opened"),
        "search": ("user-action", f"destination-{product.number + 1}-searched"),
        "selection": ("user-action", f"card-{card}-selected"),
        "review": ("user-action", f"card-{card}-reviewed"),
        "booking": ("user-action", f"card-{card}-checkout"),
        "booked": ("booking", f"card-{card}-booked"),
        "logout": ("user-action", "logged-out"),
    }[activity]
    name = _booking_page(activity, product)
    return f'"event_name":"user-{name}","event_type":"{kind}","event_value":"{value}"'


CLICKSTREAM = Profile(
    name="clickstream",
    activities=(
        Activity("home", 12),
        Activity("search", 18),
        Activity("selection", 25),
        Activity("review", 40),
        Activity("booking", 60),
        Activity("booked", 15),
        Activity("logout", 5),
    ),
    start=(0.80, 0.12, 0.08, 0, 0, 0, 0),
    moves=(
        (0.05, 0.72, 0.10, 0, 0, 0, 0),
        (0.10, 0.25, 0.54, 0, 0, 0, 0.01),
        (0.07, 0.30, 0.22, 0.32, 0, 0, 0.01),
        (0.05, 0.18, 0.36, 0.08, 0.24, 0, 0.01),
        (0.02, 0.04, 0.08, 0.22, 0.04, 0.48, 0),
        (0.18, 0.04, 0, 0, 0, 0, 0.30),
        (0, 0, 0, 0, 0, 0, 0),
    ),
    looks=("search", "selection"),
    conversions=("booked",),
    line=(
        '{"event_id":"',
        Field.EVENT_ID,
        lambda activity, product: f'","page_name":"{_booking_page(activity, product)}","event_timestamp":"',
        Field.TIME_MS,
        lambda activity, product: f'","booking_details":"{_booking_details(activity, product)}',
        Field.REFERENCE,
        '","uuid":"',
        Field.USER,
        lambda activity, product: f'","event_details":{{{_event_details(activity, product)}}}}}\n',
    ),
    user_field="uuid",
    time_field="event_timestamp",
    time_form="ms_text",
)


def _shop_page(activity: str, product: Product) -> str:
    """A path of a shop, for the profiles that identify pages by path."""
    match activity:
        case "PAGE_VIEW" | "page_view":
            pages = ("/", f"/category/{product.category}", f"/product/{product.product_id}", "/offers")
            return pages[product.number % len(pages)]
        case "SEARCH" | "search":
            return f"/search?q={product.category}"
        case "ADD_TO_CART" | "cart":
            return "/cart"
        case "PURCHASE" | "bought":
            return "/checkout/confirmation"
        case "session_start" | "session_end" | "home":
            return "/"
        case "checkout":
            return "/checkout"
    return f"/product/{product.product_id}"


def _amount(activity: str, product: Product) -> str:
    if activity != "PURCHASE":
        return ""
    pieces = product.number % 3 + 1
    return f',"amount":{pieces * float(product.price):.2f}'


USER_EVENTS = Profile(
    name="user-events",
    activities=(
        Activity("PAGE_VIEW", 8),
        Activity("SEARCH", 10),
        Activity("CLICK", 8),
        Activity("ADD_TO_CART", 12),
        Activity("PURCHASE", 10),
    ),
    start=(0.75, 0.15, 0.10, 0, 0),
    moves=(
        (0.32, 0.14, 0.44, 0.01, 0),
        (0.24, 0.22, 0.46, 0, 0),
        (0.40, 0.10, 0.32, 0.10, 0),
        (0.38, 0.08, 0.20, 0.05, 0.16),
        (0.30, 0.03, 0.05, 0, 0),
    ),
    looks=("PAGE_VIEW", "SEARCH", "CLICK"),
    conversions=("PURCHASE",),
    line=(
        '{"eventId":"',
        Field.EVENT_ID,
        '","userId":"',
        Field.USER,
        lambda activity, product: f'","eventType":"{activity}","timestamp":',
        Field.TIME_MS,
        lambda activity, product: f',"pageUrl":"{_shop_page(activity, product)}"{_amount(activity, product)}}}\n',
    ),
    user_field="userId",
    time_field="timestamp",
    time_form="ms",
)

USER_ACTIVITY = Profile(
    name="user_activity",
    activities=(
        Activity("session_start", 3),
        Activity("page_view", 20),
        Activity("click", 10),
        Activity("session_end", 5),
    ),
    start=(0, 1, 0, 0),
    moves=(
        (0, 1, 0, 0),
        (0, 0.50, 0.36, 0),
        (0, 0.62, 0.26, 0),
        (0, 0, 0, 0),
    ),
    looks=("page_view", "click"),
    conversions=(),
    line=(
        '{"user_id":"',
        Field.USER,
        '","event_time":"',
        Field.TIME_ISO,
        lambda activity, product: f'","event_type":"{activity}","page_url":"{_shop_page(activity, product)}"}}\n',
    ),
    user_field="user_id",
    time_field="event_time",
    time_form="iso",
    opening="session_start",
    closing="session_end",
    closing_share=0.85,
)

CLICKS = Profile(
    name="clicks",
    activities=(
        Activity("home", 10),
        Activity("search", 15),
        Activity("product", 25),
        Activity("cart", 20),
        Activity("checkout", 50),
        Activity("bought", 15),
    ),
    start=(0.60, 0.15, 0.25, 0, 0, 0),
    moves=(
        (0.05, 0.45, 0.32, 0, 0, 0),
        (0.06, 0.25, 0.58, 0, 0, 0),
        (0.08, 0.22, 0.48, 0.10, 0, 0),
        (0.04, 0.08, 0.38, 0.05, 0.30, 0),
        (0, 0, 0, 0.15, 0.05, 0.55),
        (0.25, 0.05, 0.05, 0, 0, 0),
    ),
    looks=("search", "product"),
    conversions=("bought",),
    line=(
        '{"user_id":"',
        Field.USER,
        '","timestamp":"',
        Field.TIME_ISO,
        lambda activity, product: f'","url":"https://shop.example{_shop_page(activity, product)}"}}\n',
    ),
    user_field="user_id",
    time_field="timestamp",
    time_form="iso",
)

ECOMMERCE = Profile(
    name="ecommerce",
    activities=(Activity("view", 22), Activity("add_to_cart", 20), Activity("purchase", 30)),
    start=(1, 0, 0),
    moves=(
        (0.80, 0.09, 0),
        (0.50, 0.02, 0.28),
        (0.25, 0, 0),
    ),
    looks=("view",),
    conversions=("purchase",),
    hesitation=("purchase", "view"),
    line=(
        '{"event_id":"',
        Field.EVENT_ID,
        '","user_id":"',
        Field.USER,
        '","event_timestamp":"',
        Field.TIME_ISO,
        lambda activity, product: (
            f'","event_type":"{activity}","product_id":"{product.product_id}",'
            f'"category":"{product.category}","price":{product.price}}}\n'
        ),
    ),
    user_field="user_id",
    time_field="event_timestamp",
    time_form="iso",
)

PROFILES: dict[ProfileName, Profile] = {p.name: p for p in (CLICKSTREAM, USER_EVENTS, USER_ACTIVITY, CLICKS, ECOMMERCE)}
