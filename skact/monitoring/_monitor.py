"""A fitted detector on streams of tokens, on generations, and on batches of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skact.arguments import checked
from skact.monitoring._lines import Line, lines_of
from skact.monitoring._reader import Reader, Reading, State, Stream
from skact.monitoring._watch import Watch, watching
from skact.rows import Array, as_numpy
from skact.tokens import TokenArray

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
        If its detector cannot go on with a stream (RandomToken), or reads grids.

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
        names, lines, self.embedder = lines_of(estimator)
        self._reader = Reader(names, lines)
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

    def update(self, tokens: Any) -> Reading:
        """Take in the next tokens of the monitor's own stream.

        Parameters
        ----------
        tokens : array-like of shape (n_features,) or (n_tokens, n_features), or mapping
            One token or several, as the model puts them out; a mapping of block to such where the
            detector reads several layers.

        Returns
        -------
        reading : Reading
            ``scores`` and ``marks`` of these tokens, (n_tokens, n_concepts).

        Raises
        ------
        ValueError
            If they have another number of features, a layer is missing, or a number is not finite;
            nothing is taken in then.
        """
        return self._stream.update(tokens)

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
            Whether a row ends as soon as one of the concepts is found in it.

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

    def __call__(self, batch: Any) -> Any:
        """Judge a batch of whole samples, for engines that hand on batches.

        Parameters
        ----------
        batch : mapping of str to arrays or lists, or DataFrame
            With the activations under the names of ``inputs``: an array of shape (n_samples,
            n_tokens, n_features), or a list, array of objects or column of arrays (n_tokens,
            n_features). It is not changed.

        Returns
        -------
        batch : dict of str to arrays, or DataFrame
            What came in without the activations, and ``decision``, ``present`` and ``probability``,
            of shape (n_samples, n_concepts); in a data frame a column of each for each concept. A
            sample gets the same whatever it is together with.

        Raises
        ------
        KeyError
            If there are no activations of that name.
        ValueError
            If they do not fit.
        """
        found = {name for name in self._keys.values() if name in batch}
        if missing := [name for name in self._keys.values() if name not in found]:
            raise KeyError(
                f"batch lacks {missing[0]!r}, the activations of block "
                f"{next(b for b, n in self._keys.items() if n == missing[0])}; it has "
                f"{[str(key) for key in batch]}. Monitor(inputs=...) says what they are called."
            )
        samples = {block: list(batch[name]) for block, name in self._keys.items()}
        n_samples = len(next(iter(samples.values())))
        pooled = [
            self._pooled(line, samples[line.block]) if n_samples else self._nothing(line)
            for line in self._reader.lines
        ]
        decision, chances = self._reader.judge(pooled)
        said = {"decision": decision, "present": decision > 0, "probability": chances}
        if hasattr(batch, "assign"):
            columns = {
                f"{what}_{name}": values[:, c]
                for what, values in said.items()
                for c, name in enumerate(self.concept_names_)
            }
            return batch.drop(columns=list(found)).assign(**columns)
        return {key: value for key, value in batch.items() if key not in found} | said

    @staticmethod
    def _nothing(line: Line) -> Array:
        return np.empty((0, line.detector.n_features_in_))

    def _pooled(self, line: Line, samples: list[Any]) -> Array:
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
        # Scored one by one, so that the last bits do not depend on the batch.
        scores = np.concatenate([line.score(array) for array in arrays])
        return line.detector.pool(TokenArray(scores, offsets))


def _array(sample: Any) -> Array:
    """Turn a sample as engines hand it on, perhaps an array of arrays, into one array."""
    array = as_numpy(sample)
    return np.stack([_array(row) for row in array]) if array.dtype == object else array
