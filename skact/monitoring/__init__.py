"""A fitted detector where samples are not there as a whole: streams, generations, batches."""

from skact.monitoring._monitor import Monitor
from skact.monitoring._reader import Reading, State, Stream
from skact.monitoring._watch import Generated, Watch

__all__ = ["Generated", "Monitor", "Reading", "State", "Stream", "Watch"]
