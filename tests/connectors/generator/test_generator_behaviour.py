"""What the made-up visitors do: visits and pauses, funnels, busy users and quiet nights."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from sessionize.connectors.generator import PROFILE_NAMES, GeneratorSettings
from sessionize.connectors.generator.catalogue import FLASH_COUNT, PRODUCTS
from sessionize.connectors.generator.diurnal_cycle import DiurnalCycle
from sessionize.connectors.generator.profiles import PROFILES
from sessionize.connectors.generator.stream import Stream

GAP_MS = 1_800_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass
class Observed:
    """All events of a run, ordered by user and time; starts: the row where each visit begins."""

    time_ms: np.ndarray
    user: np.ndarray
    visit: np.ndarray
    activity: np.ndarray
    product: np.ndarray
    starts: np.ndarray

    @property
    def session_count(self):
        return 1 + np.count_nonzero((np.diff(self.user) != 0) | (np.diff(self.time_ms) > GAP_MS))

    @property
    def visit_ms(self):
        ends = np.append(self.starts[1:], len(self.user)) - 1
        return self.time_ms[ends] - self.time_ms[self.starts]


def observe(**run):
    blocks = list(Stream(GeneratorSettings(**run)).blocks())
    time_ms = np.concatenate([b.records.time_ms for b in blocks])
    user, visit, activity, product = (
        np.concatenate([getattr(b.records.steps, name) for b in blocks])
        for name in ("user", "visit", "activity", "product")
    )
    order = np.lexsort((time_ms, user))
    user, visit = user[order], visit[order]
    starts = np.flatnonzero(np.append(True, (np.diff(user) != 0) | (np.diff(visit) != 0)))
    return Observed(time_ms[order], user, visit, activity[order], product[order], starts)


def counts(observed, profile):
    """How often each activity was seen, by name."""
    return {a.name: int(np.count_nonzero(observed.activity == n)) for n, a in enumerate(PROFILES[profile].activities)}


@pytest.fixture(scope="module")
def days():
    """A day of each profile."""
    return {name: observe(profile=name, users=4_000, events=60_000) for name in PROFILE_NAMES}


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_a_gap_of_30_minutes_finds_the_visits(days, profile):
    day = days[profile]
    assert len(day.starts) > 3_000
    assert day.session_count == pytest.approx(len(day.starts), rel=0.001)


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_visits_have_lengths_as_people_have_them(days, profile):
    minutes = days[profile].visit_ms / 60_000
    assert 1 < np.median(minutes) < 10
    assert np.quantile(minutes, 0.99) > 12
    assert 0 < np.count_nonzero(minutes > 120) < 0.005 * len(minutes)


def test_think_times_are_mostly_short_and_sometimes_very_long(days):
    day = days["clickstream"]
    think_s = np.diff(day.time_ms)[(np.diff(day.user) == 0) & (np.diff(day.visit) == 0)] / 1_000
    assert 10 < np.median(think_s) < 30
    assert 1.5 * np.median(think_s) < think_s.mean()
    assert np.count_nonzero(think_s < 1) > 0
    assert 600 < think_s.max() < 1_800


def test_each_step_of_the_clickstream_funnel_loses_some(days):
    seen = counts(days["clickstream"], "clickstream")
    assert seen["search"] > seen["selection"] > seen["review"] > seen["booking"] > seen["booked"] > 0
    assert 0 < seen["logout"] < seen["home"]


def test_clickstream_visitors_go_back(days):
    day = days["clickstream"]
    same = (np.diff(day.user) == 0) & (np.diff(day.visit) == 0)
    names = [a.name for a in PROFILES["clickstream"].activities]
    pairs = zip(day.activity[:-1][same].tolist(), day.activity[1:][same].tolist(), strict=True)
    moves = Counter((names[a], names[b]) for a, b in pairs)
    assert moves["review", "selection"] > 100
    assert moves["selection", "search"] > 100
    assert ("home", "booked") not in moves
    assert ("search", "review") not in moves


@pytest.mark.parametrize(
    ("profile", "bought", "least", "most"),
    [
        ("clickstream", "booked", 0.05, 0.25),
        ("user-events", "PURCHASE", 0.04, 0.12),
        ("clicks", "bought", 0.03, 0.12),
        ("ecommerce", "purchase", 0.05, 0.25),
    ],
)
def test_some_visits_end_in_a_purchase(days, profile, bought, least, most):
    day = days[profile]
    converts = day.activity == PROFILES[profile].code(bought)
    share = np.maximum.reduceat(converts.astype(int), day.starts).mean()
    assert least < share < most


def test_shop_funnels_lose_some_at_each_step(days):
    shop, events, clicks = (counts(days[p], p) for p in ("ecommerce", "user-events", "clicks"))
    assert shop["view"] > shop["add_to_cart"] > shop["purchase"] > 0
    assert events["PAGE_VIEW"] > events["SEARCH"] > events["ADD_TO_CART"] > events["PURCHASE"] > 0
    assert clicks["product"] > clicks["cart"] > clicks["checkout"] > clicks["bought"] > 0


def test_user_activity_starts_every_visit_and_ends_most(days):
    day = days["user_activity"]
    profile = PROFILES["user_activity"]
    started = day.activity == profile.code("session_start")
    ended = day.activity == profile.code("session_end")
    whole = day.visit[day.starts] > 0  # the first visit of a user may have been under way at the start
    assert started[day.starts][whole].all()
    assert np.count_nonzero(started) <= len(day.starts)
    ends = np.append(day.starts[1:], len(day.user)) - 1
    assert np.count_nonzero(ended) == np.count_nonzero(ended[ends])
    assert 0.8 < ended[ends].mean() < 0.9


def test_cart_and_purchase_are_about_the_product_that_was_viewed(days):
    day = days["ecommerce"]
    profile = PROFILES["ecommerce"]
    follows = np.flatnonzero(day.activity[1:] == profile.code("purchase")) + 1
    in_visit = (day.user[follows] == day.user[follows - 1]) & (day.visit[follows] == day.visit[follows - 1])
    follows = follows[in_visit]
    assert len(follows) > 500
    assert (day.product[follows] == day.product[follows - 1]).all()


def test_flash_sale_products_are_looked_at_and_not_bought():
    busy = observe(profile="ecommerce", users=5_000, events=60_000, rate_per_s=100)
    profile = PROFILES["ecommerce"]
    window = busy.time_ms < busy.time_ms.min() + 600_000
    for product in range(FLASH_COUNT):
        mine = window & (busy.product == product)
        assert np.count_nonzero(busy.activity[mine] == profile.code("view")) > 100
        assert np.count_nonzero(busy.activity[mine] == profile.code("purchase")) < 5 * 10
    views = np.bincount(busy.product[busy.activity == profile.code("view")], minlength=len(PRODUCTS))
    bought = np.bincount(busy.product[busy.activity == profile.code("purchase")], minlength=len(PRODUCTS))
    assert (bought / views)[:FLASH_COUNT].max() < 0.2 * bought[FLASH_COUNT:].sum() / views[FLASH_COUNT:].sum()
    assert (bought[FLASH_COUNT:] > 0).all()


def test_skew_is_a_power_law():
    week = observe(users=1_000, events=200_000, duration_ms=7 * DAY_MS, skew=1.0)
    events = np.bincount(week.user, minlength=1_000)
    weight = 1 / np.arange(1, 1_001)
    for first, last in ((0, 3), (3, 30), (30, 200), (200, 1_000)):
        share = weight[first:last].sum() / weight.sum()
        assert events[first:last].sum() / events.sum() == pytest.approx(share, rel=0.2)


def test_without_skew_users_are_alike():
    events = np.bincount(observe(users=100, events=60_000).user, minlength=100)
    assert events.max() < 2.5 * events.mean()
    assert events.min() > 0.4 * events.mean()


def test_nights_are_quiet_and_the_day_is_as_long_as_asked_for():
    run = GeneratorSettings(users=4_000, events=60_000)
    day = observe(users=4_000, events=60_000)
    hours = np.histogram(day.time_ms, bins=24, range=(run.start_ms, run.start_ms + DAY_MS))[0]
    assert hours[2:4].mean() < 0.35 * hours.mean()
    assert hours[14:20].mean() > 1.3 * hours.mean()
    assert (day.time_ms.max() - run.start_ms) / DAY_MS == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("users", "rate_per_s", "events"),
    [(10, 5, 20_000), (50, 500, 20_000), (5_000, 100, 20_000), (1_000, 20, 20_000), (100_000, 5_000, 50_000)],
)
def test_a_rate_holds_at_every_moment(users, rate_per_s, events):
    run = GeneratorSettings(users=users, rate_per_s=rate_per_s, events=events)
    seen = observe(users=users, rate_per_s=rate_per_s, events=events)
    since_s = np.sort(seen.time_ms - run.start_ms) / 1_000
    due_s = np.arange(1, events + 1) / rate_per_s
    assert np.abs(since_s - due_s).max() < 0.12 * due_s[-1]
    assert since_s[-1] == pytest.approx(due_s[-1], rel=0.05)


def test_a_few_users_at_a_high_rate_pause_all_the_same():
    busy = observe(users=10, rate_per_s=5, duration_ms=12 * HOUR_MS)
    assert len(busy.starts) > 40
    assert busy.session_count == len(busy.starts)
    assert np.count_nonzero(busy.visit_ms > 2 * HOUR_MS) > 0


def test_a_single_user_makes_all_events():
    alone = observe(users=1, events=2_000)
    assert len(alone.time_ms) == 2_000
    assert (alone.time_ms.max() - alone.time_ms.min()) / DAY_MS == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize(("users", "events"), [(1, 1), (1, 30), (1_000, 30), (1_000, 300), (1_000, 3_000)])
def test_a_thin_run_is_not_much_longer_than_its_duration(users, events):
    for seed in range(10):
        run = GeneratorSettings(users=users, events=events, seed=seed)
        seen = observe(users=users, events=events, seed=seed)
        assert len(seen.time_ms) == events
        assert seen.time_ms.max() < run.start_ms + 1.3 * DAY_MS


def test_rhythm_is_undone_by_its_inverse():
    for daily in (True, False):
        rhythm = DiurnalCycle(origin_ms=1_767_571_234_567, daily=daily)
        times = np.linspace(-3 * DAY_MS, 40 * DAY_MS, 10_001)
        assert np.abs(rhythm.time_ms(rhythm.busy_ms(times)) - times).max() < 100
        assert (np.diff(rhythm.busy_ms(times)) > 0).all()
        assert rhythm.busy_ms(np.array([0.0, 10.0 * DAY_MS])) == pytest.approx([0, 10 * DAY_MS])


def test_rhythm_is_the_slope_of_busy_time():
    rhythm = DiurnalCycle(origin_ms=1_767_571_234_567, daily=True)
    for time_ms in (0.0, 5.5 * HOUR_MS, 13.0 * HOUR_MS, 55.0 * HOUR_MS):
        before, after = rhythm.busy_ms(np.array([time_ms - 500, time_ms + 500]))
        assert rhythm.at(time_ms) == pytest.approx((after - before) / 1_000, rel=1e-3)
