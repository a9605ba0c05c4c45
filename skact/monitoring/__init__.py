"""A fitted detector where samples are not there as a whole: streams, generations, batches."""

from skact.monitoring._cascade import Cascade, Cascaded
from skact.monitoring._monitor import Monitor
from skact.monitoring._reader import Reading, State, Stream
from skact.monitoring._recorded import (
    read_arrow,
    read_flat,
    read_padded,
    read_stacked,
    read_vllm,
)
from skact.monitoring._watch import Generated, Watch

__all__ = [
    "Cascade",
    "Cascaded",
    "Generated",
    "Monitor",
    "Reading",
    "State",
    "Stream",
    "Watch",
    "read_arrow",
    "read_flat",
    "read_padded",
    "read_stacked",
    "read_vllm",
]
