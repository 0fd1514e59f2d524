"""Which topic it is: a name may be used again, and then its offsets are those of other records."""

from collections.abc import Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription  # type: ignore[attr-defined]  # its own way

from sessionize.connectors.kafka.client import AUTH_ERRORS, Log, Settings, client_settings, denied, made, unavailable
from sessionize.errors import InputError

_NONE = "AAAAAAAAAAAAAAAAAAAAAA"  # what a server says that gives topics no ids


def topic_id(servers: str, topic: str, security: Settings, *, timeout_s: float = 10.0) -> str | None:
    """The id that the servers gave the topic when it was created; None from servers older than such ids.

    Errors: those of topic_ids.
    """
    return topic_ids(servers, [topic], security, timeout_s=timeout_s).get(topic)


def topic_ids(servers: str, topics: Sequence[str], security: Settings, *, timeout_s: float = 10.0) -> dict[str, str]:
    """The ids of topics by name, without those that have none.

    Errors: UnavailableError when they are not told in time, InputError when access is denied.
    """
    admin = made(AdminClient, client_settings(servers, security, {}), Log())
    found = {}
    told: dict[str, Future[TopicDescription]] = admin.describe_topics(
        TopicCollection(list(topics)), request_timeout=timeout_s
    )
    for topic, answer in told.items():
        try:
            found[topic] = str(answer.result(timeout_s + 1).topic_id)
        except KafkaException as error:
            if error.args[0].code() in AUTH_ERRORS:
                raise denied(servers, error.args[0], InputError) from None
            raise unavailable(servers, error.args[0].str()) from None
        except TimeoutError:
            raise unavailable(servers, f"the id of topic {topic} is not told in time") from None
    return {topic: id_ for topic, id_ in found.items() if id_ != _NONE}
