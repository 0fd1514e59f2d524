"""pandas: users as a category, sorted by user and time, boundaries by diff, sessions read off at those.

NDJSON is read through pyarrow, which is quicker than pandas.read_json. Reading rows off at the boundaries, and cutting
the column of pages there, spares the groupby, which would call Python for every session's list.
"""

import numpy as np
import pandas as pd
from task import CAP_MS, COUNT, END, GAP_MS, PAGES, START, Task, from_command_line


def events(task: Task) -> pd.DataFrame:
    if not task.is_json:
        return pd.read_parquet(task.source, columns=["user", "ts", *(["page"] if task.pages else [])])
    import pyarrow as pa
    from pyarrow import json

    fields = [("uuid", pa.string()), ("event_timestamp", pa.string())]
    schema = pa.schema(fields + ([("page_name", pa.string())] if task.pages else []))
    table = json.read_json(
        task.source,
        read_options=json.ReadOptions(block_size=4 << 20),
        parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    frame = table.to_pandas().rename(columns={"uuid": "user", "event_timestamp": "ts", "page_name": "page"})
    return frame.astype({"ts": "int64"})


def rolling_cuts(time_ms: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The rows where the cap opens a session, all long chains jumping at once."""
    after = np.append(first[1:], len(time_ms))
    long = time_ms[after - 1] - time_ms[first] >= CAP_MS
    chain = np.arange(len(first))[long]
    lane = np.int64(1 << 41)
    row = np.concatenate([np.arange(a, b) for a, b in zip(first[long], after[long], strict=True)] or [first[:0]])
    key = np.repeat(chain, (after - first)[long]) * lane + time_ms[row] - time_ms.min()
    here = key[np.searchsorted(row, first[long])]
    cuts = []
    while len(here):
        at = np.searchsorted(key, here + CAP_MS)
        inside = at < len(key)
        here, at = here[inside], at[inside]
        same = key[at] // lane == here // lane
        here, at = key[at[same]], at[same]
        cuts.append(row[at])
    return np.concatenate(cuts or [row])


def main() -> None:
    task = from_command_line()
    frame = events(task)
    frame["user"] = frame["user"].astype("category")
    frame = frame.sort_values(["user", "ts"], ignore_index=True)
    opens = ((frame["user"].cat.codes.diff() != 0) | (frame["ts"].diff() > GAP_MS)).to_numpy()
    first = np.flatnonzero(opens)
    if task.capped:
        first = np.sort(np.concatenate((first, rolling_cuts(frame["ts"].to_numpy(), first))))
    after = np.append(first[1:], len(frame))
    sessions = pd.DataFrame(
        {
            task.user: frame["user"].iloc[first].array,
            START: frame["ts"].to_numpy()[first],
            END: frame["ts"].to_numpy()[after - 1],
            COUNT: after - first,
        }
    )
    if task.pages:
        visits = pd.DataFrame({"session": np.cumsum(opens), "page": frame["page"].astype("category").cat.codes})
        kept = np.flatnonzero(~visits.duplicated().to_numpy())
        pages = frame["page"].to_numpy()[kept]
        sessions[PAGES] = np.split(pages, np.searchsorted(kept, first[1:]))
    sessions.to_parquet(task.output)


if __name__ == "__main__":
    main()
