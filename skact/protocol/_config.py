"""What a run does, as a declarative file whose keys are all known."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from skact.files import read_text
from skact.localization import UNITS
from skact.protocol._detection import DETECTORS, METHODS, make_method
from skact.protocol._setups import (
    ANALYSES,
    LOCALIZERS,
    MADE,
    Analyses,
    Localization,
    Prompting,
)
from skact.protocol._source import DRAWN, READERS, check_reading, parameters_of

__all__ = ["Configuration", "Setup", "names_of", "read_configuration"]

_SHIPPED = Path(__file__).parent
_LONGEST, _MOST_DOTS = 2**18, 100  # characters of a configuration, dots in a line
_LONGEST_NAME = 100  # characters of a setup, of which files are called
_NAME = f"letters, digits, - and _, at most {_LONGEST_NAME}"
_KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "a text"),
    "str | dict": (str | dict, "a text or a table"),
    "int": (int, "an int"),
    "int | None": (int, "an int"),
    "float": (int | float, "a number"),
    "dict": (dict, "a table"),
    "Prompting | None": (Prompting, "a table"),
    "Localization | None": (Localization, "a table"),
    "Analyses | None": (Analyses, "a table"),
}
_ASKED = {"prompting": Prompting, "localization": Localization, "analyses": Analyses}


@dataclass(frozen=True)
class Setup:
    """Data read by a model, and what is tried on it.

    Parameters
    ----------
    name : str
        Of the table.
    data : str or dict
        "shapes" or "paragraphs", made with the seed, or a folder as :func:`skact.load_spans` or
        :func:`skact.load_masks` read it; or a table with the name of any ``reader`` of
        :mod:`skact.datasets`, its arguments but `split`, and, where they are wanted,
        ``draw_splits``, the shares of splits to draw anew, ``n_samples``, how many to draw at most,
        and ``fewest``, the samples in train, cal and test that a concept must have to take part.
    model : str
        "shapes" for the model of the package, "minilm" for that of the extra ``demo``; else a name
        or folder.
    n_samples : int, default=600
        How many are made, where they are.
    concepts : list of str, default=[]
        Of a folder, which ones, in this order; none means all.
    at_most : int, default=None
        Samples of each split, the first ones of the data; None takes all.
    layers : list of int or float, default=[]
        Blocks, or depths in (0, 1]; none means all blocks.
    depths : list of int or float, default=[]
        Instead of them, depths in percent, in (0, 100], as the paper gives them.
    methods, detectors : list of str
        Names in :data:`METHODS` and :data:`DETECTORS`; default all.
    prompting : Prompting, default=None
        What a generative model is asked; None asks nothing.
    localization : Localization, default=None
        How maps of concepts are judged; None makes none.
    analyses : Analyses, default=None
        Which of the paper's analyses are made; None makes none.
    """

    name: str
    data: str | dict[str, Any]
    model: str
    n_samples: int = 600
    concepts: list[str] = field(default_factory=list)
    at_most: int | None = None
    layers: list[int | float] = field(default_factory=list)
    depths: list[int | float] = field(default_factory=list)
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    detectors: list[str] = field(default_factory=lambda: list(DETECTORS))
    prompting: Prompting | None = None
    localization: Localization | None = None
    analyses: Analyses | None = None

    def __hash__(self) -> int:
        return hash(self.name)

    def chosen_layers(self, n_blocks: int) -> list[int | float]:
        """Layers as an embedder takes them, of a model with so many blocks."""
        return self.layers or [depth / 100 for depth in self.depths] or list(range(n_blocks))


@dataclass(frozen=True)
class Configuration:
    """All of a run.

    Parameters
    ----------
    setup : list of Setup
        A table for each.
    title : str, default=""
        For a person.
    seed : int, default=0
        Of data that are made, of splits and of resamples.
    resamples : int, default=1000
        Of the samples, for intervals.
    methods : dict of str to dict, default={}
        Parameters of concept methods that are to have others than in :data:`METHODS`.
    """

    setup: list[Setup]
    title: str = ""
    seed: int = 0
    resamples: int = 1000
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Give what JSON holds."""
        return asdict(self)


def read_configuration(
    path: str | Path, *, data: str | None = None, model: str | None = None
) -> Configuration:
    """Read a configuration.

    Parameters
    ----------
    path : str or Path
        A TOML file, or the name of one of the package: "small", "folder" or "paper".
    data, model : str, default=None
        What stands for ``{data}`` and ``{model}`` in the keys of that name, that of prompting and
        the paths of a table of data too.

    Returns
    -------
    configuration : Configuration
        Of which all names are known.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no TOML, has a key or name that is not known (naming the nearest), lacks one, or
        holds a value of another kind.
    """
    file = _SHIPPED / f"{path}.toml"
    file = file if str(path).isidentifier() and file.exists() else Path(path)
    raw = _read_toml(file)
    setups = raw.get("setup")
    if not isinstance(setups, list) or not setups or not all(isinstance(s, dict) for s in setups):
        raise ValueError(f"{file.name}: it must hold one or more tables [[setup]].")
    for name, value in (("data", data), ("model", model)):
        if _put(setups, name, value) != (value is not None):
            needs = "needs" if value is None else "has no place for"
            raise ValueError(f"{file.name} {needs} --{name}.")
    filled = [_fill(setup, f"{file.name}, setup {i}") for i, setup in enumerate(setups, 1)]
    _check_apart([setup.name for setup in filled], file.name)
    made = _build(Configuration, {**raw, "setup": filled}, file.name)
    _check_methods(made, file.name)
    if made.resamples < 1 or made.seed < 0:
        raise ValueError(f"{file.name}: resamples must be at least 1, and seed not negative.")
    return made


def _fill(raw: dict[str, Any], where: str) -> Setup:
    """Make a setup of its table."""
    for key, cls in _ASKED.items():
        if isinstance(raw.get(key), dict):
            raw[key] = _build(cls, raw[key], f"{where}, {key}")
    setup = _checked_setup(_build(Setup, raw, where), where)
    if "n_samples" in raw and setup.data not in MADE:
        raise ValueError(
            f"{where}: n_samples says how many samples are made, and those of {setup.data!r} are "
            "read; a table [setup.data] can say how many."
        )
    return setup


def _read_toml(file: Path) -> dict[str, Any]:
    """Read TOML within limits: the time for a key grows with the square of its parts."""
    text = read_text(file)
    for number, line in enumerate(text.split("\n"), start=1):
        if len(text) > _LONGEST or line.count(".") > _MOST_DOTS:
            raise ValueError(
                f"{file}, line {number}: a configuration has at most {_LONGEST} characters, and "
                f"{_MOST_DOTS} dots in a line."
            )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is no TOML: {error}.") from error
    except (ValueError, RecursionError) as error:
        said = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{file} is no TOML that can be read: {said}.") from error


def names_of(configuration: dict[str, Any], where: Path) -> list[str]:
    """Names of the setups of a configuration that a journal holds, of which files are called.

    Parameters
    ----------
    configuration : dict
        As JSON holds it.
    where : Path
        The journal, for errors.

    Returns
    -------
    names : list of str
        Each letters, digits, ``-`` and ``_``.

    Raises
    ------
    ValueError
        If there is none, or one is another text.
    """
    setups = configuration.get("setup")
    if not isinstance(setups, list) or not setups:
        raise ValueError(f"{where}: its configuration has no setup.")
    names = []
    for setup in setups:
        name = setup.get("name") if isinstance(setup, dict) else None
        if not isinstance(name, str) or not _is_name(name):
            raise ValueError(f"{where}: name of a setup must be {_NAME}, got {name!r:.80}.")
        names.append(name)
    return names


def _is_name(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and name.replace("-", "_").isidentifier()


def _put(setups: list[dict[str, Any]], name: str, value: str | None) -> bool:
    """Put a value where its placeholder stands in the keys of its name; whether there is one."""
    tables = [t for setup in setups for t in (setup, setup.get("prompting")) if isinstance(t, dict)]
    mark, places = f"{{{name}}}", [t for t in tables if f"{{{name}}}" in str(t.get(name))]
    for table in places if value is not None else ():
        table[name] = _replaced(table[name], mark, str(value))
    return bool(places)


def _replaced(place: Any, mark: str, value: str) -> Any:
    if isinstance(place, dict):
        return {key: _replaced(one, mark, value) for key, one in place.items()}
    return place.replace(mark, value) if isinstance(place, str) else place


def _build(cls: Any, raw: dict[str, Any], where: str) -> Any:
    """Make a record of a table; every key is a field, of the kind of its default."""
    known = {f.name: f for f in fields(cls)}
    for key in raw:
        _check_known(key, known, f"{where}: there is no key")
    for key, value in raw.items():
        kind, words = _KINDS.get(str(known[key].type).split("[")[0], (list, "a list"))
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise ValueError(f"{where}: {key} must be {words}, got {value!r:.80}.")
    try:
        return cls(**raw)
    except TypeError as error:  # a key is missing
        raise ValueError(f"{where}: {str(error).split('() ')[-1]}.") from error


def _check_methods(made: Configuration, where: str) -> None:
    for name, parameters in made.methods.items():
        _check_known(name, METHODS, f"{where}, methods: there is no")
        if not isinstance(parameters, dict):
            raise ValueError(f"{where}: methods.{name} must be a table, got {parameters!r:.80}.")
        if not any(name in setup.methods for setup in made.setup):
            raise ValueError(f"{where}: methods.{name} is set, and no setup has the method.")
        try:
            make_method(name, parameters)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _checked_setup(setup: Setup, where: str) -> Setup:
    for key, known in (("methods", METHODS), ("detectors", DETECTORS)):
        names = getattr(setup, key)
        for name in names:
            _check_known(name, known, f"{where}: {key} has no")
        _check_apart(names, f"{where}, {key}")
    if not _is_name(setup.name):
        raise ValueError(f"{where}: name must be {_NAME}, got {setup.name!r:.80}.")
    if isinstance(setup.data, dict):
        _check_data(setup.data, f"{where}, data")
    if "SuperActivator" not in setup.detectors or not setup.methods:
        raise ValueError(f"{where}: detectors must hold SuperActivator, and methods a name.")
    for layer in (*setup.layers, *setup.depths):
        if isinstance(layer, bool) or not isinstance(layer, int | float):
            raise ValueError(f"{where}: layers and depths must be numbers, got {layer!r:.80}.")
    if setup.layers and setup.depths:
        raise ValueError(f"{where}: layers and depths are two ways to say the same; give one.")
    for depth in setup.depths:
        if not 0 < depth <= 100:
            raise ValueError(f"{where}: depths are percents in (0, 100], got {depth!r:.80}.")
    _check_asked(setup, where)
    _check_samples(setup, where)
    return setup


def _check_samples(setup: Setup, where: str) -> None:
    """Check which samples and concepts are taken; what a folder has is not known yet."""
    if setup.n_samples < 20:
        raise ValueError(f"{where}: n_samples must be at least 20, got {setup.n_samples}.")
    if setup.at_most is not None and setup.at_most < 1:
        raise ValueError(f"{where}: at_most must be at least 1, got {setup.at_most}.")
    for name in setup.concepts:
        if not isinstance(name, str):
            raise ValueError(f"{where}: concepts must be names, got {name!r}.")
    _check_apart(setup.concepts, f"{where}, concepts")
    if setup.concepts and isinstance(setup.data, dict):
        raise ValueError(
            f"{where}: concepts of data that a table reads belong into that table, [setup.data]."
        )
    if setup.concepts and setup.data in MADE:
        raise ValueError(
            f"{where}: concepts choose among those of a folder, and data = {setup.data!r} is made "
            "with all of its own."
        )


def _check_data(table: dict[str, Any], where: str) -> None:
    """Check which reader is asked for, and its keys; values are checked where data are read."""
    if "reader" not in table:
        raise ValueError(f"{where} needs 'reader', such as 'load_coco'.")
    _check_known(table["reader"], READERS, f"{where}: there is no reader")
    known = ["reader", *parameters_of(table["reader"]), *DRAWN]
    for key in table:
        _check_known(key, known, f"{where}: there is no key")
    check_reading(table, where)


def _check_asked(setup: Setup, where: str) -> None:
    """Check what is asked for beside detection."""
    lists = (
        (setup.prompting, "prompting", "scores", ("answer", "logits")),
        (setup.localization, "localization", "methods", tuple(LOCALIZERS)),
        (setup.localization, "localization", "targets", ("global", "local")),
        (setup.analyses, "analyses", "names", ANALYSES),
    )
    for record, kind, key, known in lists:
        names = [] if record is None else getattr(record, key)
        for name in names:
            _check_known(name, known, f"{where}, {kind}: {key} has no")
        _check_apart(names, f"{where}, {kind}, {key}")
        if record is not None and not names:
            raise ValueError(f"{where}, {kind}: {key} must hold a name.")
    for kind in _ASKED:
        record = getattr(setup, kind)
        for key, value in [] if record is None else asdict(record).items():
            if isinstance(value, int | float) and value < 1 and key != "layer":
                raise ValueError(f"{where}, {kind}: {key} must be at least 1, got {value}.")
    if setup.localization is not None:
        units = [unit for names in UNITS.values() for unit in names]
        _check_known(setup.localization.unit, units, f"{where}, localization: unit has no")
    if setup.prompting is not None and "{concept}" not in (setup.prompting.prompt or "{concept}"):
        raise ValueError(f"{where}, prompting: prompt must hold {{concept}}.")


def _check_known(name: Any, known: Iterable[str], problem: str) -> None:
    names = list(known)
    if name not in names:
        near = get_close_matches(str(name)[:80], names, 1, 0)
        raise ValueError(f"{problem} {name!r:.80}; the nearest is {near[0]!r}.")


def _check_apart(names: list[str], where: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{where}: {name!r} comes twice.")
