"""Who does the work of a run: processes or threads of this machine, or those of dask or ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from joblib import cpu_count, parallel_config

from skact.extras import need

__all__ = ["BACKENDS", "workers"]


@contextmanager
def workers(backend: str | None, n_jobs: int) -> Iterator[None]:
    """Have joblib hand its work to a backend, which is started if nobody has.

    Parameters
    ----------
    backend : str or None
        One of :data:`BACKENDS`; None leaves joblib as it is.
    n_jobs : int
        Workers that are started.

    Yields
    ------
    None
        While it is so. What was started here is stopped.

    Raises
    ------
    ImportError
        If its library is not installed, naming its extra.
    """
    if backend is None:
        yield
        return
    start = _START.get(backend)
    with start(n_jobs) if start else nullcontext(), parallel_config(backend):
        yield


def _count(n_jobs: int) -> int:
    """Count workers, where -1 is one for each core."""
    return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)


@contextmanager
def _dask(n_jobs: int) -> Iterator[None]:
    distributed = need("distributed", 'backend="dask"')
    try:
        distributed.get_client()
    except ValueError:  # there is none: that of the environment, or processes of this machine
        if "DASK_SCHEDULER_ADDRESS" in os.environ:
            with distributed.Client(os.environ["DASK_SCHEDULER_ADDRESS"]):
                yield
            return
        options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with (
            distributed.LocalCluster(n_workers=_count(n_jobs), **options) as cluster,
            distributed.Client(cluster),
        ):
            yield
    else:
        yield


@contextmanager
def _ray(n_jobs: int) -> Iterator[None]:
    ray = need("ray", 'backend="ray"')
    need("ray.util.joblib", 'backend="ray"').register_ray()
    if ray.is_initialized():
        yield
        return
    own = {"include_dashboard": False, "num_cpus": _count(n_jobs)}
    ray.init(log_to_driver=False, **({} if "RAY_ADDRESS" in os.environ else own))
    try:
        yield
    finally:
        ray.shutdown()


_START: dict[str, Callable[[int], AbstractContextManager[None]]] = {"dask": _dask, "ray": _ray}
#: Backends of joblib that can be asked for by name.
BACKENDS = ("loky", "threading", *_START)
