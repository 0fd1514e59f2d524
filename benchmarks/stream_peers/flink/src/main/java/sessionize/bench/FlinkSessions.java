package sessionize.bench;

import java.util.UUID;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Flink SQL, session windows: JSON events from a topic, sessions as JSON to another; ends where the topic ends.
 *
 * Flink gets the schema of three fields, reuses objects, takes a checkpoint every 10 s, and runs with one slot per core
 * in this JVM. Arguments: servers, input topic, output topic, hashmap or rocksdb, parallelism, folder of checkpoints.
 */
public final class FlinkSessions {
  private static final String SOURCE =
      """
      CREATE TABLE events (
        uuid STRING,
        event_timestamp STRING,
        happened AS TO_TIMESTAMP_LTZ(CAST(event_timestamp AS BIGINT), 3),
        WATERMARK FOR happened AS happened - INTERVAL '61' SECOND
      ) WITH (
        'connector' = 'kafka', 'format' = 'json', 'topic' = '%s', 'properties.bootstrap.servers' = '%s',
        'properties.group.id' = '%s', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'
      )""";
  private static final String SINK =
      """
      CREATE TABLE sessions (`user` STRING, `start` BIGINT, `end` BIGINT, event_count BIGINT)
      WITH ('connector' = 'kafka', 'format' = 'json', 'topic' = '%s', 'properties.bootstrap.servers' = '%s')""";
  private static final String JOB =
      """
      INSERT INTO sessions
      SELECT uuid, MIN(CAST(event_timestamp AS BIGINT)), MAX(CAST(event_timestamp AS BIGINT)), COUNT(*)
      FROM SESSION(TABLE events PARTITION BY uuid, DESCRIPTOR(happened), INTERVAL '30' MINUTES)
      GROUP BY uuid, window_start, window_end""";

  public static void main(String[] given) throws Exception {
    String servers = given[0];
    Configuration settings = new Configuration();
    settings.setString("state.backend.type", given[3]);
    settings.setString("parallelism.default", given[4]);
    settings.setString("taskmanager.numberOfTaskSlots", given[4]);
    settings.setString("taskmanager.memory.managed.size", "512m");
    settings.setString("pipeline.object-reuse", "true");
    settings.setString("execution.checkpointing.interval", "10 s");
    settings.setString("execution.checkpointing.dir", "file://" + given[5]);
    settings.setString("execution.checkpointing.incremental", "true");
    TableEnvironment tables =
        TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings).build());
    tables.executeSql(SOURCE.formatted(given[1], servers, "flink-" + UUID.randomUUID()));
    tables.executeSql(SINK.formatted(given[2], servers));
    tables.executeSql(JOB).await();
    System.exit(0);
  }
}
