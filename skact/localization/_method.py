"""The one interface of the attribution methods, and what they say that they need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.base import BaseEstimator

from skact.base import NestedParamsMixin
from skact.extras import need
from skact.rows import Array

if TYPE_CHECKING:
    from skact.localization._samples import Sample, Samples

__all__ = ["AttributionMethod", "side_by_side"]


class AttributionMethod(NestedParamsMixin, ABC, BaseEstimator):
    """A way to map targets over the tokens of a sample.

    Attributes
    ----------
    name : str
        Stands for the method with its defaults.
    library : str or None
        What has to be installed for it.
    needs_copies : bool
        Whether it runs copies of the sample of which players are taken away, and so has a budget
        ``n_masks``, a ``baseline`` and a ``unit`` of players.
    needs_gradients : bool
        Whether it needs gradients with respect to what enters the first block.
    needs_fit : bool
        Whether ``fit`` learns something that maps are made with.
    """

    name: ClassVar[str]
    library: ClassVar[str | None] = None
    needs_copies: ClassVar[bool] = False
    needs_gradients: ClassVar[bool] = False
    needs_fit: ClassVar[bool] = False

    _parameter_constraints: dict[str, list[Any]] = {}

    def check(self, sample: Sample) -> None:
        """Check that there is all that is needed, on a sample that is not embedded.

        Parameters
        ----------
        sample : Sample
            One of those to be mapped.

        Raises
        ------
        ImportError
            If the library is not installed.
        ValueError
            If the method does not suit the model or the sample.
        """
        if self.library is not None:
            need(self.library, f'method="{self.name}"')
        self._probe(sample)

    def fit(self, samples: Samples, present: Array) -> Self:
        """Learn what maps are made with; most methods learn nothing.

        One that learns may take ``sample_weight`` too, how often each sample counts.

        Parameters
        ----------
        samples : Samples
            Calibration samples.
        present : ndarray of shape (n_samples, n_concepts), dtype bool
            Samples that hold the concept.

        Returns
        -------
        self : AttributionMethod
            Fitted.
        """
        return self

    def maps(self, samples: Samples, random_state: int) -> Iterator[Array]:
        """Map all samples that have a target.

        Parameters
        ----------
        samples : Samples
            The samples.
        random_state : int
            Seed of each of them.

        Yields
        ------
        attributions : ndarray of shape (n_tokens, n_targets), dtype float64
            One per sample, with a column per target that it has.

        Raises
        ------
        ValueError
            Before the first of them is mapped, if the budget is too small for one.
        """
        yield from (one for (one,) in side_by_side([self], samples, random_state))

    @abstractmethod
    def _explain(self, sample: Sample, random_state: int) -> Array:
        """Map one sample."""

    def _probe(self, sample: Sample) -> None:
        """Try on one sample what may not suit the model."""

    def _check_budget(self, samples: Samples) -> None:
        """Refuse samples that are too large for the settings."""


def side_by_side(
    methods: Sequence[AttributionMethod], samples: Samples, random_state: int
) -> Iterator[list[Array]]:
    """Map all samples that have a target by several methods, which share what they ask for.

    Parameters
    ----------
    methods : sequence of AttributionMethod
        The methods.
    samples : Samples
        The samples.
    random_state : int
        Seed of each sample and method.

    Yields
    ------
    maps : list of ndarray of shape (n_tokens, n_targets)
        One list per sample, with a map per method.

    Raises
    ------
    ValueError
        Before the first sample is mapped, if a budget is too small for one.
    """
    for method in methods:
        method._check_budget(samples)
    for sample in samples.mappable():
        yield [method._explain(sample, random_state) for method in methods]
