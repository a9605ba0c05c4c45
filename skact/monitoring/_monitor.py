"""A fitted detector on streams of tokens, on generations, and on batches of an engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skact.arguments import PATH, checked, instance
from skact.monitoring._export import export
from skact.monitoring._lines import Line, lines_of
from skact.monitoring._reader import Reader, Reading, State, Stream, refuse_masked
from skact.monitoring._watch import Watch, watching
from skact.rows import Array, as_numpy
from skact.tokens import Source, TokenArray

__all__ = ["Monitor"]


class Monitor:
    """Watch for concepts where samples are not there as a whole.

    A monitor reads what a detector was fitted to read, token by token: its decision after each
    token is that of the detector on the sample up to there. It learns nothing.

    Parameters
    ----------
    estimator : Pipeline, detector, ConceptSearchCV, GridSearchCV or ConceptDetector
        Fitted. An embedder at its beginning is passed over: what comes in are activations.
    inputs : str or mapping of int to str, default="activations"
        What activations are called in batches, see :meth:`__call__`; for a detector of several
        layers by block, ``{4: "block4", 8: "block8"}``.

    Attributes
    ----------
    concept_names_ : list of str
        Names of the concepts.
    blocks : list of int or None
        Layers that are read; None stands for one that the detector does not know.
    n_features_in_ : dict
        Features of a token of each layer.

    Raises
    ------
    TypeError
        If the estimator does not end in a detector, or has a step that does not map tokens one by
        one.
    NotFittedError
        If it is not fitted.
    ValueError
        If its detector cannot go on with a stream (RandomToken).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from skact import LinearSeparator, MaxToken, Monitor, TokenScaler
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = [rng.normal(size=(5, 3)) + 3 * label for label in y]
    >>> pipe = make_pipeline(TokenScaler(), LinearSeparator(), MaxToken(0.9)).fit(X, y)
    >>> monitor = Monitor(pipe)
    >>> for token in X[1]:
    ...     reading = monitor.update(token)
    >>> bool(monitor.state.present[0]), bool(pipe.predict([X[1]])[0])
    (True, True)
    """

    def __init__(self, estimator: Any, *, inputs: str | Mapping[int, str] = "activations") -> None:
        if isinstance(estimator, type):
            raise TypeError(f"estimator must be fitted, got the class {estimator.__name__}.")
        check_is_fitted(estimator)
        names, lines, self.embedder, of_one = lines_of(estimator)
        self._reader = Reader(names, lines, of_one)
        self.concept_names_, self.blocks = names, self._reader.blocks
        self.n_features_in_ = self._reader.widths
        self._keys = self._check_inputs(inputs)
        self._stream = self.stream()

    def _check_inputs(self, inputs: Any) -> dict[int | None, str]:
        if isinstance(inputs, str) and inputs and len(self.blocks) == 1:
            return {self.blocks[0]: inputs}
        if isinstance(inputs, Mapping) and set(inputs) == set(self.blocks):
            return dict(inputs)
        if isinstance(inputs, str) and inputs == "activations":
            return {block: f"activations_{block}" for block in self.blocks}
        raise ValueError(
            f"inputs must be a name, or name the activations of each of the layers {self.blocks}; "
            f"got {inputs!r}."
        )

    def stream(self) -> Stream:
        """Begin a stream of its own; any number of them may go on at the same time.

        Returns
        -------
        stream : Stream
            With ``update``, ``state`` and ``reset``.
        """
        return Stream(self._reader)

    def update(self, tokens: Any, *, after_gap: bool = False) -> Reading:
        """Take in the next tokens of the monitor's own stream.

        Parameters
        ----------
        tokens : array-like of shape (n_features,) or (n_tokens, n_features), or mapping
            One token or several, as the model puts them out; a mapping of block to such where the
            detector reads several layers.
        after_gap : bool, default=False
            Whether context was left out before them, as between the turns of a chat: no window of
            the detector reaches over a gap.

        Returns
        -------
        reading : Reading
            ``scores`` and ``marks`` of these tokens, (n_tokens, n_concepts).

        Raises
        ------
        ValueError
            If they have another number of features, a layer is missing, or a number is not finite;
            nothing is taken in then.
        TypeError
            If ``after_gap`` is no bool.
        """
        return self._stream.update(tokens, after_gap=after_gap)

    @property
    def state(self) -> State:
        """What all tokens of the monitor's own stream so far say; see :attr:`Stream.state`."""
        return self._stream.state

    def reset(self) -> None:
        """Begin the monitor's own stream again."""
        self._stream.reset()

    @checked(stop=["boolean"])
    def watch(
        self, model: Any, tokenizer: Any = None, *, stop: bool = False
    ) -> AbstractContextManager[Watch]:
        """Follow what a model generates.

        Every token is scored when the model reads it: those of the prompt, then each generated one.
        Padding, special tokens and the sink do not count. Batches of prompts may be padded on the
        left. When the context ends the model is as it was, also after errors; meanwhile no other
        thread runs it.

        Parameters
        ----------
        model : PreTrainedModel
            With ``generate``; the one that the detector was fitted on.
        tokenizer : tokenizer, default=None
            None takes that of the embedder that the estimator begins with.
        stop : bool, default=False
            Whether a row ends as soon as it reaches the threshold of one of the concepts; also of
            more than two classes, of which one is always the most probable.

        Returns
        -------
        watch : context manager of Watch
            Fills while the model generates; ``watch[0]`` is the first row.

        Raises
        ------
        ValueError
            If the detector was fitted on another model or on arrays of unknown origin, before
            anything runs; from ``generate`` for beams, assistants, generations without a cache, and
            prompts that lack the token after which the detector's samples began.

        Examples
        --------
        ::

            with monitor.watch(model) as log:
                model.generate(**tokenizer("Once upon a time", return_tensors="pt"))
            log[0].plot("joy")
        """
        return watching(self._reader, self.embedder, model, tokenizer, stop)

    @checked(path=[PATH], source=[instance("a Source(...)", Source), None])
    def export(self, path: str | os.PathLike[str], *, source: Source | None = None) -> None:
        """Write the monitor as arrays and JSON, which a dozen lines of numpy can run.

        ``path.npz`` holds for each concept ``weights`` (n_concepts, n_features) and ``bias``, of
        which ``weights @ token + bias`` is the score of a token, its threshold, the lower of two
        (the same where there is one) and the sigmoid of its probability. ``path.json`` names the
        concepts, which windows of scores count, how the threshold was set and on how many samples,
        and where tokens come from: the model, and the layer by block, by index in the
        ``hidden_states`` of transformers, and as the layer id of vLLM. ``of_one`` is true where y
        was a vector of more than two classes: then the most probable concept is found, and
        probabilities are divided by their sum. Embedders are not exported.

        Parameters
        ----------
        path : str or path-like
            Without an ending, or with one of the two; files that are there are replaced.
        source : Source, default=None
            Model and block, for a detector that was fitted on arrays which do not say so.

        Raises
        ------
        TypeError
            If scores are no affine function of a token (cosines, clipped norms, encoders), or the
            detector pools in a way of its own.
        ValueError
            If model or block are not known, or the source is not that of the detector.
        FileNotFoundError, IsADirectoryError
            If there is no such folder, or the path is one.

        Examples
        --------
        ::

            monitor.export("probes/joy", source=Source("a model", block=14))
        """
        export(self._reader, path, source)

    def __call__(self, batch: Any) -> Any:
        """Judge a batch of whole samples, for engines that hand on batches.

        Parameters
        ----------
        batch : mapping of str to arrays or lists, or DataFrame
            With the activations under the names of ``inputs``: an array of shape (n_samples,
            n_tokens, n_features), of which every token counts, padding too
            (:func:`~skact.read_padded` leaves it out), or a list, array of objects or column of
            arrays (n_tokens, n_features), or a TokenArray, which also says where context was left
            out. It is not changed.

        Returns
        -------
        batch : dict of str to arrays, or DataFrame
            What came in without the activations, and ``decision``, ``present`` and ``probability``,
            of shape (n_samples, n_concepts), and ``unsure`` where there are two cuts; in a data
            frame a column of each for each concept. They are those of ``decision_function``,
            ``predict`` and ``predict_proba``, so of more than two classes the most probable one is
            present, and probabilities sum to 1. A sample gets the same whatever it is together
            with.

        Raises
        ------
        TypeError
            If it is neither a mapping nor a DataFrame.
        KeyError
            If there are no activations of that name.
        ValueError
            If they do not fit, differ in length from another column, or are of another model, layer
            or scaling than the detector's, which a TokenArray says; if there is a column that is
            called like an answer; if a sample is missing, or some of it is masked.
        """
        samples = self._samples(batch)
        n_samples = len(next(iter(samples.values())))
        pooled = [
            self._pooled(line, samples[line.block], batch[self._keys[line.block]])
            if n_samples
            else self._nothing(line)
            for line in self._reader.lines
        ]
        said = self._reader.answers(pooled)
        read = list(self._keys.values())
        if _is_frame(batch):
            columns = [answer[:, c] for answer in said for c in range(answer.shape[1])]
            made = dict(zip(self._outputs(batch), columns, strict=True))
            return batch.drop(columns=read).assign(**made)
        kept = {key: value for key, value in batch.items() if key not in read}
        return kept | dict(zip(self._outputs(batch), said, strict=True))

    def _outputs(self, batch: Any) -> list[str]:
        """Name the answers to a batch, in their order."""
        names = self._reader.answer_names
        if not _is_frame(batch):
            return names
        return [f"{what}_{concept}" for what in names for concept in self.concept_names_]

    def _samples(self, batch: Any) -> dict[int | None, list[Any]]:
        """Take the samples of each layer, and check what can be told of a batch as a whole."""
        if not (isinstance(batch, Mapping) or _is_frame(batch)):
            raise TypeError(
                f"batch must be a mapping of names to arrays, or a DataFrame; got "
                f"{type(batch).__name__}. Engines give such on demand, as by "
                'batch_format="numpy".'
            )
        for block, name in self._keys.items():
            if name not in batch:
                raise KeyError(
                    f"batch lacks {name!r}, the activations of block {block}; it has "
                    f"{[str(key) for key in batch]}. Monitor(inputs=...) says what they are called."
                )
        kept = set(batch) - set(self._keys.values())
        if taken := [name for name in self._outputs(batch) if name in kept]:
            raise ValueError(
                f"batch has a column {taken[0]!r} already, which an answer would overwrite; drop "
                "or rename it."
            )
        for line in self._reader.lines:
            line.check_source(batch[self._keys[line.block]], "batch")
        samples = {block: _listed(batch[name], name) for block, name in self._keys.items()}
        first, *_ = self._keys.values()
        counts = {key: n for key in batch if (n := _length(batch[key])) is not None}
        for name, count in counts.items():
            if count != counts[first]:
                raise ValueError(
                    f"batch must have columns of one length, got {counts[first]} of {first!r} and "
                    f"{count} of {name!r}."
                )
        return samples

    @staticmethod
    def _nothing(line: Line) -> Array:
        return np.empty((0, line.detector.n_features_in_))

    def _pooled(self, line: Line, samples: list[Any], given: Any) -> Array:
        """Pool whole samples of one layer: (n_samples, n_columns)."""
        arrays = []
        for i, sample in enumerate(samples):
            try:
                array = self._reader.rows(_array(sample), line.block)
            except ValueError as error:
                raise ValueError(f"sample {i} of the batch: {error}") from error
            if not len(array):
                raise ValueError(f"sample {i} of the batch has no tokens.")
            arrays.append(array)
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])])
        segments = given.segments if isinstance(given, TokenArray) else None
        # Scored one by one, so that the last bits do not depend on the batch.
        scores = np.concatenate([line.score(array) for array in arrays])
        return line.detector.pool(TokenArray(scores, offsets, segments=segments))


def _listed(column: Any, name: str) -> list[Any]:
    try:
        return list(column)
    except TypeError as error:
        raise TypeError(
            f"batch must hold a list or array of samples under {name!r}, got {column!r:.60}."
        ) from error


def _length(column: Any) -> int | None:
    """Count the entries of a column; None of what is no column, such as a text for all samples."""
    is_column = hasattr(column, "__len__") and not isinstance(column, str | bytes | Mapping)
    return len(column) if is_column and getattr(column, "ndim", None) != 0 else None


def _is_frame(batch: Any) -> bool:
    return hasattr(batch, "assign") and hasattr(batch, "columns")


def _array(sample: Any) -> Array:
    """Turn a sample as engines hand it on, perhaps an array of arrays, into one array."""
    parts = sample if isinstance(sample, list | tuple) else [sample]
    for part in parts:
        refuse_masked(part)
    array = as_numpy(sample)
    if array.dtype == object and not array.ndim:
        raise ValueError(f"it must be an array of tokens, got {sample!r}; leave it out.")
    return np.stack([_array(row) for row in array]) if array.dtype == object else array
