"""Plans, errors and logs show of servers' settings and addresses only what is known to be harmless."""

import itertools
import json
import random
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import explain_config, load_pipeline
from sessionize.connectors.iceberg import CatalogSettings
from sessionize.connectors.shown_settings import address_shown, hides_password, is_harmless, setting_shown
from sessionize.errors import ConfigError

SECRET = "hunter2xyz"

# Names under which real clients take something that nobody else may read.
KAFKA = [
    "sasl.password", "sasl.jaas.config", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem",
    "ssl.certificate.pem", "ssl.ca.pem", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.extensions", "sasl.username", "sasl.kerberos.keytab",
    "sasl.kerberos.principal", "sasl.aws.secret.access.key", "sasl.aws.session.token", "confluent.api.key",
    "plugin.conf",
    "oauth_assertion", "some.setting.of.next.year",
]  # fmt: skip
REGISTRY = [
    f"schema.registry.{name}"
    for name in (
        "basic.auth.user.info",
        "bearer.auth.token",
        "ssl.key.password",
        "ssl.key.pem",
        "sasl.password",
        "api.key",
    )
]
CATALOG = [
    "credential", "token", "header.X-Api-Key", "header.Authorization", "header.x-goog-user-project", "header.Cookie",
    "s3.access-key-id", "s3.secret-access-key", "s3.session-token", "s3.role-arn", "s3.signer.token", "s3.sse.key",
    "gcs.oauth2.token", "gcs.oauth2.token-expires-at", "adls.sas-token", "adls.sas-token.acc.blob.core.windows.net",
    "adls.account-key", "adls.connection-string", "adls.client-secret", "adls.tenant-id", "password",
    "client.access-key-id",
    "client.secret-access-key", "client.profile-name", "oauth2.assertion", "ssl.client.key", "auth.basic.password",
    "rest.custom-signature", "glue.secret-access-key", "dynamodb.session-token", "hf.token",
]  # fmt: skip
ADDRESSES = [
    f"https://{SECRET}@catalog.example/x",
    f"https://catalog.example/x?sig={SECRET}&sv=2024",
    f"https://catalog.example/x?X-Amz-Signature={SECRET}",
    f"https://catalog.example/x?access_token={SECRET}#a",
    f"https://catalog.example/x#{SECRET}",
    f"https://catalog.example/x?{SECRET}",
    f"https://me:{SECRET}@catalog.example/x",
    f"https://me:a/{SECRET}@catalog.example/x",
    f"https://me:a#{SECRET}?@catalog.example/x",
    f"postgresql://me:{SECRET}@db/x",
    f"postgresql://db/x?sslmode=require&password={SECRET}",
    f"postgresql://db/x?sslpassword={SECRET}&options=-c%20a={SECRET}",
    f"redis://:{SECRET}@cache:6379/0",
    f"redis://{SECRET}@cache:6379/0",
    f"redis://cache:6379/0?username=x;password={SECRET}",
    f"s3://{SECRET}@bucket/x",
    f"host=db user=me password={SECRET} sslmode=require",
    f"host=db password='{SECRET} with a blank' user=me",
    f"host = db  sslpassword = {SECRET}",
    f"me:{SECRET}@127.0.0.1:9092",
]


@pytest.mark.parametrize("name", [*KAFKA, *REGISTRY, *CATALOG])
def test_the_value_of_a_setting_that_is_not_known_is_hidden(name: str) -> None:
    assert setting_shown(f"{name}={SECRET}") == f"{name}=…"
    assert setting_shown(f"{name.upper()} = {SECRET}") == f"{name.upper()} =…"
    assert setting_shown(f"{name}=env:PLACE") == f"{name}=env:PLACE"


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_what_may_be_secret(address: str) -> None:
    assert SECRET not in address_shown(address)
    assert SECRET not in setting_shown(f"s3.endpoint={address}")


FORGOTTEN_HOST = [f"redis://:{SECRET}", f"postgresql://u:{SECRET}/db", f"postgres://u@h,u:{SECRET}@h2/db"]


@pytest.mark.parametrize("address", FORGOTTEN_HOST)
def test_a_password_where_a_port_belongs_is_hidden_and_refused(address: str) -> None:
    assert SECRET not in address_shown(address)
    key = "output.redis.url" if address.startswith("redis") else "output.postgres.dsn"
    with pytest.raises(ConfigError, match="contains a password") as caught:
        load_pipeline("kafka_stream", overrides={key: address}, environ={})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["redis://[::1]:6379/0", "postgresql://u@a:5432,b:5433,c/db", "https://h:/x", "s3://b/k:1"]
)
def test_hosts_with_ports_are_no_passwords(address: str) -> None:
    assert not hides_password(address)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@db:5432/shop?sslmode=require&connect_timeout=5", "host=db user=me dbname=shop sslmode=require",
        "redis://cache:6379/0?db=1", "https://catalog:8181/api", "s3://lake/sessions", "broker-1:9092,broker-2:9092",
        "/srv/data/a=b", "",
    ],
)  # fmt: skip
def test_what_is_harmless_is_shown_as_it_is(text: str) -> None:
    assert address_shown(text) == text
    assert setting_shown(f"s3.endpoint={text}") == f"s3.endpoint={text}"


@pytest.mark.parametrize(
    "setting",
    ["security.protocol=SASL_SSL", "sasl.mechanism=PLAIN", "client.id=web", "fetch.wait.max.ms=5",
     "s3.region=eu-west-1",
     "schema.registry.ssl.ca.location=/ca.pem", "queued.min.messages=7"],
)  # fmt: skip
def test_settings_that_are_harmless_are_shown(setting: str) -> None:
    assert setting_shown(setting) == setting


def test_no_name_made_of_words_for_secrets_is_harmless() -> None:
    rng = random.Random(7)
    secret = ["password", "passwd", "pwd", "secret", "token", "credential", "apikey", "api-key", "private.key", "sas",
              "signature", "jaas", "bearer", "cookie", "auth", "passphrase", "keytab", "pin", "access.key"]  # fmt: skip
    around = ["", "sasl.", "ssl.", "s3.", "adls.", "header.", "header.X-", "schema.registry.", "client.", "x.y.", "fs."]
    after = ["", ".value", "-id", "_file_content", "2", ".pem"]
    names = ["".join(parts) for parts in itertools.product(around, secret, after)]
    assert [name for name in rng.sample(names, len(names)) if is_harmless(name)] == []


SETTINGS = [
    f"{name}={SECRET}" for name in CATALOG if name.startswith(("header.X-Api", "header.C", "s3.role", "adls.sas"))
]
PIPELINE = f"""
[input]
kind = "kafka"
[input.kafka]
servers = "127.0.0.1:9092"
settings = ["security.protocol=SASL_SSL", "sasl.username={SECRET}", "plugin.conf={SECRET}", "sasl.password=env:PW"]
[output.catalog]
kind = "rest"
uri = "https://catalog.example/x?sig={SECRET}"
warehouse = "s3://lake/x"
settings = ["header.X-Api-Key={SECRET}", "s3.region=eu-west-1", "s3.endpoint=https://{SECRET}@store"]
[output.postgres]
dsn = "postgresql://db/x?options={SECRET}"
[output.redis]
url = "redis://{SECRET}@cache:6379/0"
"""


def test_a_plan_shows_what_is_known_to_be_harmless(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(PIPELINE)
    lines = {key: value for key, value, _ in explain_config(load_pipeline(str(path), environ={}))}
    assert SECRET not in json.dumps(lines)
    assert lines["input.kafka.settings"] == (
        '["security.protocol=SASL_SSL", "sasl.username=…", "plugin.conf=…", "sasl.password=env:PW"]'
    )
    assert lines["output.catalog.uri"] == '"https://catalog.example/x?sig=…"'
    assert lines["output.catalog.settings"] == (
        '["header.X-Api-Key=…", "s3.region=eu-west-1", "s3.endpoint=https://…@store"]'
    )
    assert lines["output.redis.url"] == '"redis://…@cache:6379/0"'


WRONG_SETTINGS = [
    SECRET, f"header.X-Api-Key={SECRET}", f"[header.X-Api-Key={SECRET}]", [f"x={SECRET}", 5], [SECRET],
    f"x={SECRET}\x07", [f"x={SECRET}\x07"], [[f"x={SECRET}"]], {"x": SECRET}, [f"sasl.password={SECRET}"],
]  # fmt: skip
WRONG_ADDRESSES = [*(f"{address}\x07" for address in ADDRESSES), [ADDRESSES[0]], {"x": ADDRESSES[0]}]


@pytest.mark.parametrize("value", WRONG_SETTINGS, ids=repr)
@pytest.mark.parametrize("key", ["input.kafka.settings", "output.catalog.settings", "output.kafka.settings"])
def test_an_error_about_a_setting_does_not_quote_it(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline("kafka_stream", overrides={"output.kafka.late": "l", key: value}, environ={})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", WRONG_ADDRESSES, ids=repr)
@pytest.mark.parametrize(
    "key", ["output.catalog.uri", "output.postgres.dsn", "output.redis.url", "input.kafka.servers"]
)
def test_an_error_about_an_address_does_not_quote_its_secrets(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline("kafka_stream", overrides={key: value}, environ={})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["api_key", "input.kafka.pw", "output.postgres.pass", "rules.x", "run.gcs"])
def test_the_value_of_a_key_that_is_not_known_is_hidden(key: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_pipeline("kafka_stream", overrides={key: SECRET}, environ={})
    assert SECRET not in str(caught.value)
    assert f"{key} = …" in str(caught.value)


def test_errors_about_a_catalog_name_its_address_without_secrets() -> None:
    settings = CatalogSettings(kind="rest", uri=f"https://{SECRET}@catalog:8181/x?sig={SECRET}")
    assert settings.where == "https://…@catalog:8181/x?sig=…"


def test_errors_of_kafkas_client_do_not_quote_settings() -> None:
    from confluent_kafka import Consumer

    from sessionize.connectors.kafka.client import ClientLog, client_settings, create_client

    with pytest.raises(ConfigError) as caught:
        create_client(Consumer, {"group.id": "g", "ssl.curves.listx": SECRET}, ClientLog())
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        create_client(Consumer, {"group.id": "g", "sasl.oauthbearer.method": SECRET}, ClientLog())
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be changed") as caught:
        client_settings("x:1", {"plugin.conf": SECRET}, {"plugin.conf": "fixed"})
    assert SECRET not in str(caught.value)
