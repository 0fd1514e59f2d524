"""The id of a topic: a name may be reused, and then its offsets belong to other records."""

from collections.abc import Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription  # type: ignore[attr-defined]  # untyped

from sessionize.connectors.kafka.client import ClientLog, Settings, client_settings, create_client
from sessionize.connectors.kafka.errors import AUTH_ERRORS, denied, unavailable
from sessionize.errors import InputError

_NONE = "AAAAAAAAAAAAAAAAAAAAAA"  # from a server without topic ids


def topic_id(servers: str, topic: str, security: Settings, *, timeout_s: float = 10.0) -> str | None:
    """The id that the topic got when it was created; None from servers without topic ids.

    Errors: those of topic_ids.
    """
    return topic_ids(servers, [topic], security, timeout_s=timeout_s).get(topic)


def topic_ids(servers: str, topics: Sequence[str], security: Settings, *, timeout_s: float = 10.0) -> dict[str, str]:
    """The ids of topics by name, without topics that have none.

    Errors: UnavailableError if there is no answer in time, InputError if access is denied.
    """
    admin = create_client(AdminClient, client_settings(servers, security, {}), ClientLog())
    found = {}
    answers: dict[str, Future[TopicDescription]] = admin.describe_topics(
        TopicCollection(list(topics)), request_timeout=timeout_s
    )
    for topic, answer in answers.items():
        try:
            found[topic] = str(answer.result(timeout_s + 1).topic_id)
        except KafkaException as error:
            if error.args[0].code() in AUTH_ERRORS:
                raise denied(servers, error.args[0], InputError) from None
            raise unavailable(servers, error.args[0].str()) from None
        except TimeoutError:
            raise unavailable(servers, f"the id of topic {topic} was not received in time") from None
    return {topic: id_ for topic, id_ in found.items() if id_ != _NONE}
