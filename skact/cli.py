"""The command ``skact``: everyday use from a shell, each command a thin call of the library.

An error is one sentence on stderr and exit code 2; before it, nothing is lost that was computed.
Commands import libraries, so that help is there at once and Ctrl-C is heard from then on.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

if TYPE_CHECKING:
    from sklearn.utils import Bunch

__all__ = ["main"]

_IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_TABLES = {".csv", ".json", ".jsonl", ".parquet", ".tsv", ".xls", ".xlsx"}
_INPUT = (
    "a file with a text on each line, a folder of images, or a folder as load_spans or load_masks "
    "read it"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str or None, default=None
        What stands behind ``skact``; None takes those of the process.

    Returns
    -------
    code : int
        Exit code: 0, 2 after an error, 130 after Ctrl-C.
    """
    asked = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _each_warning_once(asked.command):
            asked.run(asked)
    except KeyboardInterrupt:
        print(f"skact {asked.command}: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read has seen enough
        with suppress(OSError):
            sys.stdout.close()
        return 0
    except Exception as error:
        print(f"skact {asked.command}: {_sentence(error)}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _each_warning_once(command: str) -> Iterator[None]:
    """Say each warning in a line of its own, without the place in the code, and never twice."""
    said = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        line = f"skact {command}: warning: {' '.join(str(message).split())}"
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _sentence(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if said else f"{type(error).__name__} without a message."


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="skact", description="Find concepts in what a transformer sees.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Any], None], words: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words)
        made.set_defaults(run=run)
        return made

    embed = command("embed", _embed, "Embed samples into a store; only what it lacks.")
    embed.add_argument("input", help=_INPUT)
    embed.add_argument("--model", required=True, help="name on the hub, or folder")
    embed.add_argument("--store", required=True, help="folder of the store")
    embed.add_argument(
        "--layer", type=_layer, nargs="+", default=[-1], help="blocks, or depths such as 0.5"
    )
    embed.add_argument("--jobs", type=int, default=1, help="processes")
    fit = command("fit", _fit, "Fit a ConceptDetector on a labelled data set, and save it.")
    fit.add_argument("input", help="a folder as load_spans or load_masks read it; not split test")
    fit.add_argument("--model", required=True, help="name on the hub, or folder")
    fit.add_argument("--out", required=True, help="the file")
    fit.add_argument(
        "--layer", type=_layer, nargs="+", help="blocks or depths to choose from; default auto"
    )
    fit.add_argument("--cv", type=int, default=5, help="folds of the cross-validation")
    fit.add_argument("--store", help="folder of a store, where activations are kept")
    fit.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    fit.add_argument("--jobs", type=int, default=1, help="processes")
    detect = command("detect", _detect, "Say which samples hold which concept, as CSV.")
    detect.add_argument("detector", help="file of a saved ConceptDetector")
    detect.add_argument("input", help=_INPUT)
    detect.add_argument("--out", help="write there and not to the screen")
    words = "Write a page on what a detector finds and where it errs, or that of a finished run."
    report = command("report", _report, words)
    report.add_argument(
        "detector", help="file of a saved ConceptDetector, or folder of a run of skact paper alone"
    )
    report.add_argument("input", nargs="?", help=f"{_INPUT}, whose labels are then used")
    report.add_argument("--out", help="the HTML file of a detector")
    report.add_argument("--title", help="of the page")
    _add_paper(command("paper", _paper, "Run the paper's protocol from one file."))
    describe = command("describe", _describe, "Say what a saved file holds, as Markdown.")
    describe.add_argument("file", help="written by save")
    models = command("models", _models, "Say what models are, and whether they can be read.")
    models.add_argument("model", nargs="*", help="names or folders; default that of the package")
    return parser


def _add_paper(paper: argparse.ArgumentParser) -> None:
    paper.add_argument("config", help="TOML file, or one of the package: small, folder, paper")
    paper.add_argument("--out", required=True, help="folder of the journal, store and tables")
    paper.add_argument("--data", help="folder that stands for {data} in the file")
    paper.add_argument("--model", help="name or folder that stands for {model} in the file")
    paper.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    paper.add_argument(
        "--dry-run", action="store_true", help="say what it takes, and write nothing"
    )
    paper.add_argument("--jobs", type=int, default=1, help="workers")
    backends = ("loky", "threading", "dask", "ray")
    paper.add_argument("--backend", choices=backends, help="of the workers; by default loky")


def _layer(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _read(given: str) -> Bunch:
    """Read samples, with target and target_names where they are labelled."""
    from sklearn.utils import Bunch

    from skact.datasets import load_masks, load_spans
    from skact.files import check_link

    path = Path(given)
    if path.is_dir():
        if (path / "samples.jsonl").exists():
            return load_spans(path)
        if (path / "index.jsonl").exists():
            return load_masks(path)
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGES)
        images = [str(check_link(path, image)) for image in inside]
        if not images:
            raise ValueError(f"input {given!r} is a folder without images, and no data set.")
        return Bunch(data=images, ids=[Path(image).name for image in images])
    if not path.is_file():
        raise FileNotFoundError(f"input names {given!r}, and there is no such file or folder.")
    if path.suffix.lower() in _IMAGES:
        return Bunch(data=[str(path)], ids=[path.name])
    if path.suffix.lower() in _TABLES:
        raise ValueError(
            f"input {given!r} is a table, whose lines are no texts: write its column of texts to a "
            ".txt file, a text on each line, or read it in Python by load_table."
        )
    try:
        with path.open(encoding="utf-8") as file:
            lines = [(str(n), line.strip()) for n, line in enumerate(file, 1)]
    except UnicodeDecodeError as error:
        raise ValueError(f"input {given!r} is no text in UTF-8: {error}.") from error
    kept = [(n, line) for n, line in lines if line]
    if not kept:
        raise ValueError(f"input {given!r} holds no text.")
    return Bunch(data=[line for _, line in kept], ids=[n for n, _ in kept])


def _embed(asked: Any) -> None:
    from skact.embedding import TransformerEmbedder, embed_to_store

    samples = _read(asked.input).data
    embedder = TransformerEmbedder(asked.model, asked.layer)
    done = embed_to_store(
        samples, embedder, asked.store, n_jobs=asked.jobs, progress=sys.stderr.isatty()
    )
    print(
        f"{done.n_samples} samples in {asked.store}: {done.n_embedded} embedded now, "
        f"{done.n_found} there before, {done.seconds:.1f} s"
    )


def _fit(asked: Any) -> None:
    import numpy as np
    from sklearn.utils import _safe_indexing

    from skact.auto import ConceptDetector
    from skact.files import check_folder

    check_folder(asked.out)
    data = _read(asked.input)
    kind = next((kind for kind in ("spans", "masks") if kind in data), None)
    if kind is None:
        raise ValueError(
            f"input {asked.input!r} has no labels; give a folder with samples.jsonl or index.jsonl."
        )
    rows = np.flatnonzero(np.asarray(data.split) != "test")
    detector = ConceptDetector(
        asked.model,
        layer=asked.layer or "auto",
        cv=asked.cv,
        store=asked.store,
        random_state=asked.seed,
        n_jobs=asked.jobs,
    )
    detector.fit(_safe_indexing(data.data, rows), **{kind: _safe_indexing(data[kind], rows)})
    detector.save(asked.out)
    _write(
        sys.stdout, tuple(detector.results_), list(zip(*detector.results_.values(), strict=True))
    )


def _load_detector(path: str) -> Any:
    from skact.auto import ConceptDetector
    from skact.persistence import load

    detector = load(path)
    if not isinstance(detector, ConceptDetector):
        raise TypeError(
            f"detector must be a saved ConceptDetector, got a {type(detector).__name__} in {path}."
        )
    return detector


def _detect(asked: Any) -> None:
    import numpy as np

    from skact.files import check_folder, in_one_step

    if asked.out:
        check_folder(asked.out)
    data, detector = _read(asked.input), _load_detector(asked.detector)
    decision = np.reshape(detector.decision_function(data.data), (len(data.data), -1))
    rows = [
        (identifier, name, f"{value:.6g}", int(value >= 0))
        for identifier, of_sample in zip(data.ids, decision, strict=True)
        for name, value in zip(detector.concept_names_, of_sample, strict=True)
    ]
    heads = "sample", "concept", "score", "present"
    if not asked.out:
        _write(sys.stdout, heads, rows)
        return
    with (
        in_one_step(Path(asked.out)) as path,
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        _write(file, heads, rows)


def _write(file: TextIO, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)


def _report(asked: Any) -> None:
    from skact.files import check_folder
    from skact.protocol import write_report
    from skact.reporting import report

    if Path(asked.detector).is_dir():
        if asked.input or asked.out or asked.title:
            raise ValueError(
                f"{asked.detector!r} is a folder, so the page is that of a run and goes there; "
                "give nothing but the folder."
            )
        print(write_report(asked.detector))
        return
    if not Path(asked.detector).exists():
        raise FileNotFoundError(
            f"detector names {asked.detector!r}, and there is no such file or folder."
        )
    if not asked.input or not asked.out:
        raise ValueError("a detector needs an input, and --out names the page.")
    check_folder(asked.out)
    data, detector = _read(asked.input), _load_detector(asked.detector)
    report(detector, data.data, asked.out, _labels(data, detector), title=asked.title)
    print(asked.out)


def _labels(data: Bunch, detector: Any) -> Any:
    """Columns of the target in the detector's order; None where the data name other concepts."""
    names = list(data.get("target_names", []))
    wanted = list(detector.concept_names_)
    if not detector.multilabel_ or not set(wanted) <= set(names):
        return None
    return data.target[:, [names.index(name) for name in wanted]]


def _paper(asked: Any) -> None:
    from skact.protocol import REPORT, dry_run, forecast_table, read_configuration, run

    configuration = read_configuration(asked.config, data=asked.data, model=asked.model)
    if asked.dry_run:
        print(forecast_table(dry_run(configuration, n_jobs=asked.jobs)), end="")
        return
    done = run(
        configuration,
        asked.out,
        resume=asked.resume,
        n_jobs=asked.jobs,
        backend=asked.backend,
        progress=sys.stderr.isatty(),
    )
    print(*done, Path(asked.out) / REPORT, sep="\n")


def _describe(asked: Any) -> None:
    from skact.persistence import describe

    print(describe(asked.file).to_markdown(), end="")


def _models(asked: Any) -> None:
    from skact.datasets import shapes_model_path
    from skact.embedding import TransformerEmbedder
    from skact.models import identify

    names = asked.model or [shapes_model_path()]
    n_unread = 0
    for model in names:
        try:
            loaded = TransformerEmbedder(model).reader.loaded
        except (ImportError, OSError, ValueError) as error:  # the others are told of all the same
            n_unread += 1
            print(f"{model}: cannot be read: {_sentence(error)}")
            continue
        print(
            f"{model}: reads {loaded.modality}s, {len(loaded.blocks)} blocks, {loaded.width} wide, "
            f"{identify(loaded).revision}"
        )
    if n_unread:
        raise ValueError(f"{n_unread} of {len(names)} models cannot be read.")
