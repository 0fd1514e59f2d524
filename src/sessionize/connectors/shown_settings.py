"""What may be shown of the settings and addresses of servers: what is known to be harmless, and nothing else.

A list of what is secret is never complete (`header.X-Api-Key`, `sslpassword`, `?sig=`), so this one says what is not.
Every message, log line and plan that quotes a setting or an address asks here.
"""

import re
from urllib.parse import urlsplit

HIDDEN = "…"

# Settings of Kafka's client, the schema registry, Iceberg catalogs and their storage, and parameters of addresses.
_NAMES = frozenset(
    """
    acks allow.auto.create.topics api.version.request auto.offset.reset bootstrap.servers check.crcs client.id
    client.rack compression.codec compression.level compression.type connections.max.idle.ms debug enable.auto.commit
    enable.auto.offset.store enable.idempotence enable.partition.eof enable.ssl.certificate.verification group.id
    group.instance.id heartbeat.interval.ms isolation.level linger.ms log_level max.in.flight
    max.in.flight.requests.per.connection max.poll.interval.ms message.max.bytes partitioner
    receive.message.max.bytes request.timeout.ms retries retry.backoff.max.ms retry.backoff.ms
    sasl.kerberos.service.name sasl.mechanism sasl.mechanisms security.protocol session.timeout.ms
    statistics.interval.ms transaction.timeout.ms transactional.id ssl.ca.location ssl.certificate.location
    ssl.cipher.suites ssl.curves.list ssl.endpoint.identification.algorithm ssl.key.location ssl.keystore.location
    ssl.sigalgs.list schema.registry.ssl.ca.location schema.registry.ssl.certificate.location
    schema.registry.ssl.key.location schema.registry.url

    client.region gcs.default-bucket-location gcs.endpoint gcs.project-id gcs.service.host header.content-type
    hdfs.host hdfs.port oauth2-server-uri prefix py-io-impl rest.authorization-url rest.signing-name
    rest.signing-region rest.sigv4-enabled s3.anonymous s3.connect-timeout s3.endpoint s3.force-virtual-addressing
    s3.path-style-access s3.proxy-uri s3.region s3.request-timeout s3.resolve-region s3.retry-strategy-impl s3.signer
    s3.signer.endpoint s3.signer.uri scope snapshot-loading-mode adls.account-host adls.account-name adls.endpoint
    token-refresh-enabled type uri warehouse echo pool_pre_ping init_catalog_tables

    application_name channel_binding client_encoding connect_timeout dbname gssencmode host hostaddr keepalives
    keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts passfile port requirepeer service
    sslcert sslcompression sslcrl sslkey sslmode sslnegotiation sslrootcert sslsni ssl_max_protocol_version
    ssl_min_protocol_version target_session_attrs tcp_user_timeout user

    db decode_responses health_check_interval max_connections protocol retry_on_timeout socket_connect_timeout
    socket_keepalive socket_timeout ssl_ca_certs ssl_ca_path ssl_cert_reqs ssl_certfile ssl_check_hostname ssl_keyfile
    """.split()  # noqa: SIM905 - nobody could read it as a list
)
_BEGINNINGS = (
    "broker.address.",
    "fetch.",
    "metadata.",
    "queue.",
    "queued.",
    "reconnect.",
    "socket.",
    "topic.metadata.",
)
# `name=env:VARIABLE` and `name=file:PATH` say where the value is, and so do names with these endings.
_PLACES = ("env:", "file:")
_PLACE_ENDINGS = ("-env", "-file")
_USERS_SHOWN = ("postgresql", "postgres", "postgresql+psycopg")  # where a user without a password is a plain name
_LOOSE_PASSWORD = re.compile(r"://[^/?#@]*:.*@")  # one that is not escaped runs on into what looks like port and path
_ONE_SLASH = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")  # what pathlib makes of an address
_PAIR = re.compile(r"([A-Za-z_][\w.-]*)(\s*=\s*)('(?:[^'\\]|\\.)*'?|\S*)")


def is_harmless(name: str) -> bool:
    """Whether the value of a setting or parameter of this name may be shown."""
    lower = name.strip().lower()
    return lower in _NAMES or lower.startswith(_BEGINNINGS) or lower.endswith(_PLACE_ENDINGS)


def value_shown(name: str, value: object) -> str:
    """The value of a setting as it may be shown."""
    text = str(value)
    if text.startswith(_PLACES):
        return text
    return address_shown(text) if is_harmless(name) else HIDDEN


def setting_shown(setting: str) -> str:
    """A setting `name=value` as it may be shown; what has no name is hidden as a whole."""
    name, equals, value = setting.partition("=")
    return f"{name}={value_shown(name, value)}" if equals else HIDDEN


def address_shown(text: str) -> str:
    """An address, or parameters `host=db user=me`, without what stands before @ and what is not known as harmless."""
    text = _ONE_SLASH.sub(r"\1://", text)
    if "://" not in text:
        if re.match(r"\s*[\w.-]+\s*=", text):
            return _PAIR.sub(lambda pair: f"{pair[1]}{pair[2]}{value_shown(pair[1], pair[3])}", text)
        return f"{HIDDEN}@{text.rpartition('@')[2]}" if re.search(r":[^/]*@", text) else text
    head, _, rest = text.partition("://")
    if hides_password(text):
        return f"{head}://{HIDDEN}"
    try:
        user_info = urlsplit(text).netloc.rpartition("@")[0]
    except ValueError:
        user_info = ""
    if _LOOSE_PASSWORD.search(text):
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    elif user_info and head.lower() not in _USERS_SHOWN:
        rest = f"{HIDDEN}@{rest.partition('@')[2]}"
    rest, fragment, _ = rest.partition("#")
    path, question, query = rest.partition("?")
    shown = "&".join(map(_parameter_shown, re.split("[&;]", query))) if question else ""
    return f"{head}://{path}{question}{shown}{fragment and '#' + HIDDEN}"


def hides_password(text: str) -> bool:
    """Whether an address has a password where nobody looks for one: as a port, because "@host" was forgotten, or before
    a host that is not the first of a list.
    """
    for number, host in enumerate(re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0].split(",")):
        user_info, _, name = host.rpartition("@")
        port = re.sub(r"^\[[^\]]*\]", "", name).partition(":")[2]
        if not re.fullmatch(r"\d*", port, re.ASCII) or (number > 0 and ":" in user_info):
            return True
    return False


def _parameter_shown(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return HIDDEN if name else ""
    return f"{name}={value if is_harmless(name) else HIDDEN}"
