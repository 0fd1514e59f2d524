"""What tables are called where a pipeline or a command names none. Loads nothing, so that options may use it."""

DATABASE = "sessions"
USER_SESSIONS = "user_sessions"
# The pipelines that the commands of these names are, as tables record them.
BATCH, LABEL = "batch", "label"
# The preset that `check` goes by where no pipeline is named.
DATA_QUALITY_CHECKER = "data_quality_checker"
