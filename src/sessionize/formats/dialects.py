"""The known dialects: the field names of producers, each with a sample record in docs/dialects.md.

This module imports nothing heavy, for `--help`.
"""

import difflib

from sessionize.errors import ConfigError
from sessionize.formats.dialect import (
    EVENT_COLUMNS,
    JOINTS,
    OTHER_COLUMNS,
    Dialect,
    Field,
    FieldType,
    Paths,
)
from sessionize.formats.time.forms import TimeFormat

__all__ = [
    "DIALECTS",
    "EVENT_COLUMNS",
    "JOINTS",
    "OTHER_COLUMNS",
    "PROFILE_DIALECTS",
    "Dialect",
    "Field",
    "FieldType",
    "Paths",
    "TimeFormat",
    "dialect_named",
]


def _fields(types: dict[str, FieldType] | None = None, /, **paths: str | Paths) -> tuple[Field, ...]:
    """Fields that records may have."""
    return tuple(
        Field(name, (path,) if isinstance(path, str) else path, (types or {}).get(name, "text"), required=False)
        for name, path in paths.items()
    )


# Snowplow: "Understanding the enriched TSV format", docs.snowplow.io; the order of the columns in the files.
_SNOWPLOW_COLUMNS = (
    "app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker "
    "v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid "
    "geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp ip_organization "
    "ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost page_urlport page_urlpath "
    "page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery "
    "refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content mkt_campaign "
    "contexts se_category se_action se_label se_property se_value unstruct_event tr_orderid tr_affiliation tr_total "
    "tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity "
    "pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type "
    "br_renderengine br_lang br_features_pdf br_features_flash br_features_java br_features_director "
    "br_features_quicktime br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight "
    "br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone dvce_type "
    "dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height tr_currency tr_total_base "
    "tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone mkt_clickid mkt_network "
    "etl_tags dvce_sent_tstamp refr_domain_userid refr_dvce_tstamp derived_contexts domain_sessionid derived_tstamp "
    "event_vendor event_name event_format event_version event_fingerprint true_tstamp"
)
_COMMON_LOG_TIME = "%d/%b/%Y:%H:%M:%S %z"

# Those that the generator can write.
PROFILE_DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="clickstream",
            time_zone="UTC",
            user=("uuid",),
            event_time_ms=("event_timestamp",),
            event_id=("event_id",),
            event_type=("event_details.event_type",),
            page=("page_name",),
            user_name="uuid",
            conversion_events=("booking",),
        ),
        Dialect(
            name="user-events",
            time_zone="UTC",
            user=("userId", "user_id"),
            event_time_ms=("timestamp",),
            event_id=("eventId",),
            event_type=("eventType",),
            page=("pageUrl", "page"),
            value=("amount", "value"),
            conversion_events=("PURCHASE", "purchase"),
        ),
        Dialect(
            name="user_activity",
            time_zone="UTC",
            user=("user_id",),
            event_time_ms=("event_time",),
            event_type=("event_type",),
            page=("page_url",),
            conversion_events=("purchase",),
        ),
        Dialect(
            name="clicks",
            time_zone="UTC",
            user=("user_id",),
            event_time_ms=("timestamp",),
            page=("url",),
            conversion_events=(),
        ),
        Dialect(
            name="ecommerce",
            time_zone="UTC",
            user=("user_id",),
            event_time_ms=("event_timestamp",),
            event_id=("event_id",),
            event_type=("event_type",),
            product=("product_id",),
            category=("category",),
            value=("price",),
            conversion_events=("purchase",),
        ),
    )
}

_PUBLIC = (
    Dialect(
        name="segment",
        time_zone="UTC",
        user=("userId", "anonymousId"),
        event_time_ms=("timestamp", "originalTimestamp"),
        event_id=("messageId",),
        event_type=("event", "type"),
        page=("properties.path", "context.page.path"),
        value=("properties.revenue", "properties.total"),
        user_name="userId",
        conversion_events=("Order Completed",),
        fields=_fields(
            referrer="context.page.referrer",
            utm_source="context.campaign.source",
            utm_medium="context.campaign.medium",
            utm_campaign="context.campaign.name",
            user_agent="context.userAgent",
        ),
    ),
    Dialect(
        name="snowplow",
        time_zone="UTC",
        user=("user_id", "domain_userid", "network_userid"),
        event_time_ms=("derived_tstamp", "collector_tstamp"),
        event_id=("event_id",),
        event_type=("event_name", "event"),
        page=("page_url",),
        value=("tr_total",),
        conversion_events=("transaction",),
        fields=_fields(
            referrer="page_referrer",
            utm_source="mkt_source",
            utm_medium="mkt_medium",
            utm_campaign="mkt_campaign",
            country="geo_country",
            user_agent="useragent",
        ),
        header=tuple(_SNOWPLOW_COLUMNS.split()),
    ),
    Dialect(
        name="ga4",
        time_zone="UTC",
        user=("user_id", "user_pseudo_id"),
        event_time_ms=("event_timestamp",),
        time_format="us",
        event_type=("event_name",),
        page=("event_params[page_location]",),
        value=("ecommerce.purchase_revenue", "event_params[value]"),
        conversion_events=("purchase",),
        fields=_fields(
            {"ga_session_id": "integer"},
            referrer="event_params[page_referrer]",
            utm_source="event_params[source]",
            utm_medium="event_params[medium]",
            utm_campaign="event_params[campaign]",
            ga_session_id="event_params[ga_session_id]",
            country="geo.country",
            device="device.category",
        ),
    ),
    Dialect(
        name="cloudevents",
        time_zone="UTC",
        user=("subject",),
        event_time_ms=("time",),
        event_id=("id",),
        event_type=("type",),
        page=("data.page", "data.url"),
        value=("data.value", "data.amount"),
        user_name="subject",
        fields=_fields(source="source"),
    ),
    Dialect(
        name="matomo",
        time_zone="UTC",
        user=("userId", "visitorId"),
        event_time_ms=("timestamp",),
        time_format="s",
        event_type=("type",),
        page=("url",),
        value=("revenue",),
        user_name="userId",
        conversion_events=("goal", "ecommerceOrder"),
        fields=_fields(referrer="referrerUrl", utm_source="referrerName", country="countryCode", device="deviceType"),
    ),
    # Of log formats: the fields that formats/ makes of a line; for W3C those that the file names.
    Dialect(
        name="combined",
        time_zone="UTC",
        user=("ip",),
        event_time_ms=("time",),
        time_format=_COMMON_LOG_TIME,
        page=("page",),
        user_name="ip",
        conversion_events=(),
        fields=_fields(
            {"status": "integer", "bytes": "integer"},
            method="method",
            status="status",
            bytes="bytes",
            referrer="referrer",
            user_agent="user_agent",
        ),
    ),
    Dialect(
        name="w3c",
        time_zone="UTC",
        user=("c-ip",),
        event_time_ms=("time",),
        page=("cs-uri-stem",),
        user_name="c-ip",
        conversion_events=(),
        fields=_fields(
            {"status": "integer"},
            method="cs-method",
            status="sc-status",
            query="cs-uri-query",
            referrer="cs(Referer)",
            user_agent="cs(User-Agent)",
        ),
    ),
)
DIALECTS: dict[str, Dialect] = PROFILE_DIALECTS | {dialect.name: dialect for dialect in _PUBLIC}


def dialect_named(name: str) -> Dialect:
    """The built-in dialect of that name. Errors: ConfigError, with the nearest name."""
    if name in DIALECTS:
        return DIALECTS[name]
    near = difflib.get_close_matches(name.lower().replace(" ", "_"), DIALECTS, n=1, cutoff=0.5)
    known = f"one of {', '.join(DIALECTS)}, or map the fields yourself"
    raise ConfigError(
        "unknown dialect",
        detail=f"dialect {name!r}",
        hint=f"did you mean {near[0]!r}? {known}" if near else known,
    )
