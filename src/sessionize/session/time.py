"""UTC days, the unit of the dates of sessions and events."""

from datetime import date

MS_PER_DAY = 86_400_000
EPOCH_DATE = date(1970, 1, 1)  # day 0
