package sessionize.bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.SessionStore;

/**
 * Kafka Streams, session windows that are told when they close: JSON events from a topic, sessions as JSON to another.
 *
 * The topic is keyed by user, so nothing is repartitioned; state is RocksDB with a changelog. Windows only close when a
 * record arrives at least a second after the last look, so once the input is read the clock is nudged through a topic of
 * its own. Arguments: servers, input topic, output topic, nudging topic, guarantee, threads, state folder, number of
 * input records, number of sessions at which it is done, time of a nudge in ms, how long the store keeps sessions in ms.
 */
public final class StreamsSessions {
  private static final JsonFactory JSON = new JsonFactory();
  private static final int PARTITIONS = 2;
  private static final long NUDGE_MS = 1_100;
  private static final int NUDGES_MAX = 20;

  /** Event time out of the JSON value. */
  public static final class EventTime implements TimestampExtractor {
    @Override
    public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
      try (JsonParser parser = JSON.createParser((byte[]) record.value())) {
        parser.nextToken();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
          boolean found = parser.currentName().equals("event_timestamp");
          JsonToken value = parser.nextToken();
          if (found) {
            return Long.parseLong(parser.getText());
          }
          if (value.isStructStart()) {
            parser.skipChildren();
          }
        }
      } catch (IOException broken) {
        return -1;
      }
      return -1;
    }
  }

  public static void main(String[] given) throws Exception {
    String servers = given[0];
    boolean exact = given[4].equals("exactly_once_v2");
    long records = Long.parseLong(given[7]);
    long sessions = Long.parseLong(given[8]);
    AtomicLong in = new AtomicLong();
    AtomicLong out = new AtomicLong();

    Properties settings = new Properties();
    settings.putAll(
        Map.of(
            "bootstrap.servers", servers,
            "application.id", "kstreams-" + UUID.randomUUID(),
            "processing.guarantee", given[4],
            "num.stream.threads", given[5],
            "state.dir", given[6],
            "auto.offset.reset", "earliest",
            "default.timestamp.extractor", EventTime.class.getName(),
            "statestore.cache.max.bytes", String.valueOf(64L << 20),
            "producer.linger.ms", "20",
            "commit.interval.ms", exact ? "1000" : "10000"));
    settings.put("max.task.idle.ms", "-1");

    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(List.of(given[1], given[3]), Consumed.with(Serdes.String(), Serdes.ByteArray()))
        .peek((user, event) -> in.incrementAndGet())
        .groupByKey(Grouped.with(Serdes.String(), Serdes.ByteArray()))
        .windowedBy(SessionWindows.ofInactivityGapAndGrace(Duration.ofMinutes(30), Duration.ofSeconds(61)))
        .emitStrategy(EmitStrategy.onWindowClose())
        .aggregate(
            () -> 0L,
            (user, event, count) -> count + 1,
            (user, one, other) -> one + other,
            Materialized.<String, Long, SessionStore<Bytes, byte[]>>as("sessions")
                .withStoreType(Materialized.StoreType.ROCKS_DB)
                .withRetention(Duration.ofMillis(Long.parseLong(given[10])))
                .withKeySerde(Serdes.String())
                .withValueSerde(Serdes.Long()))
        .toStream()
        .map(
            (window, count) -> {
              out.incrementAndGet();
              String json =
                  "{\"user\":\"%s\",\"start\":%d,\"end\":%d,\"event_count\":%d}";
              return KeyValue.pair(
                  window.key(),
                  json.formatted(window.key(), window.window().start(), window.window().end(), count));
            })
        .to(given[2], Produced.with(Serdes.String(), Serdes.String()));

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.start();
    long nudges = 0;
    while (out.get() < sessions && nudges < NUDGES_MAX) {
      Thread.sleep(50);
      if (in.get() >= records) {
        nudge(servers, given[3], Long.parseLong(given[9]));
        nudges++;
        long until = System.nanoTime() + NUDGE_MS * 1_000_000;
        while (out.get() < sessions && System.nanoTime() < until) {
          Thread.sleep(20);
        }
      }
    }
    streams.close(Duration.ofSeconds(60));
    System.out.printf("{\"records\":%d,\"sessions\":%d,\"nudges\":%d}%n", in.get(), out.get(), nudges);
    System.exit(out.get() >= sessions ? 0 : 1);
  }

  private static void nudge(String servers, String topic, long time) {
    Properties settings = new Properties();
    settings.put("bootstrap.servers", servers);
    try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
      for (int partition = 0; partition < PARTITIONS; partition++) {
        String event = "{\"uuid\":\"sentinel\",\"event_timestamp\":\"%d\"}".formatted(time);
        producer.send(new ProducerRecord<>(topic, partition, "sentinel", event.getBytes()));
      }
    }
  }
}
