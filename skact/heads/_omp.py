r"""Few rows of a dictionary that explain many samples at once.

Simultaneous orthogonal matching pursuit starts at the residual :math:`R = H` and repeats

.. math:: p = \arg\max_j \sum_i |\langle R_i, D_j \rangle|, \quad S \leftarrow S \cup \{p\}, \quad
          W = \arg\min_W \|H - W D_S\|, \quad R = H - W D_S .

It is done here without residuals. With an orthonormal basis :math:`q_1, q_2, \dots` of the chosen
rows, in the order in which they were chosen, a step takes :math:`\langle R, q_k \rangle q_k` out of
every residual. So of the correlations :math:`C = D R^\top` and of :math:`Q_k = D q_k`,

.. math:: Q_k = \frac{G_p - \sum_{l<k} Q_{lp} Q_l}{\sqrt{G_{pp} - \sum_{l<k} Q_{lp}^2}}, \qquad
          C \leftarrow C - Q_k\, y_k^\top, \qquad y_k = C_p / \sqrt{G_{pp} - \dots},

is all that a step needs, with one column :math:`G_p = D D_p` of the Gram matrix: many sets of
samples share one dictionary. The energy that a step explains is :math:`\|y_k\|^2`.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from skact.arguments import Number
from skact.base import NestedParamsMixin
from skact.cached import cached_property
from skact.rows import Array

__all__ = ["Atoms", "Pursuit", "SimultaneousOMP", "pursue"]

_SMALL = 2048  # atoms of which all of the Gram matrix is kept
_PIECE = 1 << 16  # correlations that are updated at a time, so that they stay in the cache


class Atoms:
    """The rows of a dictionary, ready to explain any number of sets of samples.

    Parameters
    ----------
    dictionary : ndarray of shape (n_atoms, n_features), float32 or float64
        The rows.
    normalize : bool
        Whether rows are scaled to norm 1; zero rows stay as they are, and are never chosen.

    Attributes
    ----------
    rows : ndarray of shape (n_atoms, n_features)
        Rows as they are used, over a power of two without ``normalize``.
    exponent : int
        Of that power.
    squares : ndarray of shape (n_atoms,)
        Their squared norms.
    rank : int
        An upper bound on how many of them are linearly independent.
    """

    def __init__(self, dictionary: Array, normalize: bool) -> None:
        exponents = _exponents(np.abs(dictionary).max(axis=1, initial=0))
        self.exponent = 0 if normalize else int(exponents.max())
        self.rows = np.ldexp(dictionary, -exponents[:, None] if normalize else -self.exponent)
        self.squares = np.einsum("vd,vd->v", self.rows, self.rows)
        if normalize:
            norms = np.sqrt(self.squares)
            self.rows = self.rows / np.where(norms > 0, norms, 1)[:, None]
            self.squares = np.einsum("vd,vd->v", self.rows, self.rows)
        self.rank = min(self.rows.shape)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _gram(self) -> Array:
        return self.rows @ self.rows.T

    def column(self, atom: int) -> Array:
        """Products of all atoms with one, (n_atoms,)."""
        return self._gram[atom] if len(self) <= _SMALL else self.rows @ self.rows[atom]


def _exponents(sizes: Any) -> Any:
    """Exponents by which sizes come to lie in [0.5, 1), so that no square leaves the range."""
    return np.frexp(sizes)[1]


class Pursuit(NamedTuple):
    """What was chosen for one set of samples.

    Parameters
    ----------
    support : ndarray of shape (n_steps,), int
        The atoms, in the order in which they were chosen.
    coef : ndarray of shape (n_samples, n_steps)
        Least squares of the samples on these atoms.
    explained : ndarray of shape (n_steps,)
        Share of the energy of the samples that is explained after each step.
    """

    support: Array
    coef: Array
    explained: Array


def pursue(samples: Array, atoms: Atoms, n_steps: int) -> Pursuit:
    """Choose atoms that explain samples, one after the other.

    Parameters
    ----------
    samples : ndarray of shape (n_samples, n_features)
        Of the dtype of the atoms; not all of it zero.
    atoms : Atoms
        The dictionary.
    n_steps : int
        Steps at most. Fewer are done where nothing is left to explain, or no atom that is linearly
        independent of those chosen.

    Returns
    -------
    pursuit : Pursuit
        What was chosen.
    """
    n_steps = min(n_steps, len(atoms), atoms.rank)
    tolerance = 100 * np.finfo(samples.dtype).eps
    exponent = int(_exponents(np.abs(samples).max()))
    samples = np.ldexp(samples, -exponent)
    energy = left = float(np.einsum("nd,nd->", samples, samples, dtype=np.float64))
    corr = atoms.rows @ samples.T
    total = np.abs(corr).sum(axis=1)
    shape = n_steps, len(atoms)
    basis, factor = np.zeros(shape, samples.dtype), np.zeros((n_steps, n_steps), samples.dtype)
    along = np.zeros((n_steps, len(samples)), samples.dtype)
    support: list[int] = []
    explained: list[float] = []
    free = atoms.squares > 0
    while len(support) < n_steps and left > tolerance * energy:
        atom = int(np.argmax(np.where(free, total, -1)))
        if not free[atom]:
            break
        free[atom], k = False, len(support)
        shares = basis[:k, atom]
        square = atoms.squares[atom] - float(shares @ shares)
        if square <= tolerance * atoms.squares[atom]:
            continue  # a combination of those chosen
        norm = np.sqrt(square)
        basis[k] = (atoms.column(atom) - shares @ basis[:k]) / norm
        along[k] = corr[atom] / norm
        factor[k, :k], factor[k, k] = shares, norm
        support.append(atom)
        left -= float(np.einsum("n,n->", along[k], along[k], dtype=np.float64))
        explained.append(1 - left / energy)
        total = _take_out(corr, basis[k], along[k])
    n = len(support)
    coef = solve_triangular(factor[:n, :n], along[:n], lower=True, trans="T").T
    coef = np.ldexp(coef, exponent - atoms.exponent)
    return Pursuit(np.array(support, np.int64), coef, np.array(explained))


def _take_out(corr: Array, direction: Array, along: Array) -> Array:
    """Take a direction out of correlations, in place, and sum their sizes over samples."""
    total = np.empty(len(corr), corr.dtype)
    n_rows = max(1, _PIECE // corr.shape[1])
    space = np.empty((n_rows, corr.shape[1]), corr.dtype)
    ones = np.ones(corr.shape[1], corr.dtype)
    for start in range(0, len(corr), n_rows):
        rows = corr[start : start + n_rows]
        moved = space[: len(rows)]
        np.multiply(direction[start : start + n_rows, None], along, out=moved)
        rows -= moved
        np.abs(rows, out=moved)
        np.dot(moved, ones, out=total[start : start + n_rows])
    return total


class SimultaneousOMP(
    NestedParamsMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    r"""Explain all samples by the same few rows of a dictionary.

    Simultaneous orthogonal matching pursuit [1]_: in each step the row with the largest sum of
    absolute products with the residuals is chosen, and the samples are fitted anew on all rows
    chosen so far,

    .. math:: p = \arg\max_j \sum_i |\langle R_i, D_j \rangle|, \qquad
              R = H - W D_S, \quad W = \arg\min_W \|H - W D_S\| .

    Parameters
    ----------
    n_nonzero_coefs : int, default=50
        Rows to choose at most. Fewer are chosen if the dictionary has fewer that are linearly
        independent, or if nothing is left to explain.
    normalize : bool, default=True
        Whether rows of the dictionary are scaled to norm 1.
    center : bool, default=True
        Whether the mean of the samples is taken out before.

    Attributes
    ----------
    support_ : ndarray of shape (n_steps,), dtype int64
        Rows of the dictionary, in the order in which they were chosen.
    components_ : ndarray of shape (n_steps, n_features)
        These rows as they are used, scaled or not.
    coef_ : ndarray of shape (n_samples, n_steps)
        What each sample of ``fit`` has of each of them.
    explained_variance_ratio_ : ndarray of shape (n_steps,)
        :math:`1 - \|R\|^2 / \|H\|^2` after each step; it never falls.
    mean_ : ndarray of shape (n_features,)
        Mean of the samples, zeros without ``center``.
    n_features_in_ : int
        Features of a sample.

    References
    ----------
    .. [1] J. A. Tropp, A. C. Gilbert, M. J. Strauss, "Algorithms for simultaneous sparse
       approximation. Part I: Greedy pursuit", Signal Processing 86, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import SimultaneousOMP
    >>> X = np.array([[3.0, 0.0, 1.0], [-3.0, 0.1, 1.0]])
    >>> omp = SimultaneousOMP(2, center=False).fit(X, np.eye(3))
    >>> omp.support_, omp.explained_variance_ratio_.round(4)
    (array([0, 2]), array([0.8996, 0.9995]))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_nonzero_coefs": [Number(Integral, 1, None, closed="left")],
        "normalize": ["boolean"],
        "center": ["boolean"],
    }

    def __init__(
        self, n_nonzero_coefs: int = 50, *, normalize: bool = True, center: bool = True
    ) -> None:
        self.n_nonzero_coefs = n_nonzero_coefs
        self.normalize = normalize
        self.center = center

    def fit(self, X: Any, dictionary: Any) -> Self:
        """Choose rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples. If both are float32 all is computed in float32, else in float64.
        dictionary : array-like of shape (n_atoms, n_features)
            Rows to choose from.

        Returns
        -------
        self : SimultaneousOMP
            Fitted.

        Raises
        ------
        ValueError
            If the dictionary has other features than X or only zeros, or X has nothing to explain.
        """
        self._validate_params()
        X = validate_data(self, matrix(X, "X"), skip_check_array=True)
        rows = check_dictionary(dictionary, X.shape[1])
        dtype = np.result_type(X, rows)
        X, rows = X.astype(dtype, copy=False), rows.astype(dtype, copy=False)
        self.mean_ = X.mean(axis=0) if self.center else np.zeros(X.shape[1], dtype)
        atoms = Atoms(rows, self.normalize)
        centred = X - self.mean_
        check_energy(centred, X, self.center, "X")
        found = pursue(centred, atoms, self.n_nonzero_coefs)
        self.support_, self.coef_, self.explained_variance_ratio_ = found
        self.components_ = np.ldexp(atoms.rows[self.support_], atoms.exponent)
        return self

    def transform(self, X: Any) -> Array:
        """Fit samples on the chosen rows by least squares.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        coef : ndarray of shape (n_samples, n_steps)
            What each has of each row.

        Raises
        ------
        NotFittedError, ValueError
            Before ``fit``, or if X has other features.
        """
        check_is_fitted(self)
        X = validate_data(self, matrix(X, "X"), skip_check_array=True, reset=False)
        ends = [self.components_, X - self.mean_]
        powers = [int(_exponents(np.abs(end).max(initial=0))) for end in ends]
        rows, rest = (np.ldexp(end, -power) for end, power in zip(ends, powers, strict=True))
        coef: Array = np.linalg.lstsq(rows.T, rest.T, rcond=None)[0].T
        return np.ldexp(coef, powers[1] - powers[0])

    def inverse_transform(self, X: Any) -> Array:
        """Put samples together from what they have of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_steps)
            As from :meth:`transform`.

        Returns
        -------
        samples : ndarray of shape (n_samples, n_features)
            The part of the samples that is explained, and their mean.

        Raises
        ------
        NotFittedError, ValueError
            Before ``fit``, or if X has not one column per chosen row.
        """
        check_is_fitted(self)
        coef = matrix(X, "X")
        if coef.shape[1] != len(self.components_):
            raise ValueError(
                f"X must have {len(self.components_)} features, one for each chosen row, got shape "
                f"{coef.shape}."
            )
        samples: Array = coef @ self.components_ + self.mean_
        return samples

    @property
    def _n_features_out(self) -> int:
        return len(self.support_)


def matrix(values: Any, name: str) -> Array:
    """Turn an argument into a matrix of floats, or raise a ValueError that names it.

    Parameters
    ----------
    values : array-like of shape (n_rows, n_columns)
        The argument.
    name : str
        What it is called.

    Returns
    -------
    array : ndarray of shape (n_rows, n_columns), float32 or float64
        The numbers.
    """
    try:
        return np.asarray(check_array(values, dtype=(np.float64, np.float32), input_name=name))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a matrix of numbers: {error}") from error


def check_dictionary(dictionary: Any, n_features: int) -> Array:
    """Turn rows of a dictionary into floats, and refuse those that fit nothing.

    Parameters
    ----------
    dictionary : array-like of shape (n_atoms, n_features)
        The rows.
    n_features : int
        Features of what they are to explain.

    Returns
    -------
    rows : ndarray of shape (n_atoms, n_features), float32 or float64
        The rows.

    Raises
    ------
    ValueError
        If there is none, they are of another width, or all are zero.
    """
    rows = matrix(dictionary, "dictionary")
    if rows.shape[1] != n_features:
        raise ValueError(
            f"dictionary must have rows of {n_features} features, as what they are to explain, got "
            f"shape {rows.shape}."
        )
    if not rows.any():
        raise ValueError("dictionary must have a row that is not zero.")
    return rows


def check_energy(centred: Array, given: Array, center: bool, what: str) -> None:
    """Refuse samples of which nothing is left, or only what rounding left.

    Parameters
    ----------
    centred, given : ndarray of shape (n_samples, n_features)
        The samples without their mean, and as they were.
    center : bool
        Whether the mean was taken out.
    what : str
        What they are called.

    Raises
    ------
    ValueError
        If all are zero, or equal and centred.
    """
    if np.abs(centred).max() > 4 * np.finfo(given.dtype).eps * np.abs(given).max():
        return
    if given.any() and center:
        raise ValueError(
            f"{what} has {len(given)} equal sample(s), of which nothing is left to explain once "
            "their mean is taken out; give other samples, or set center=False."
        )
    raise ValueError(f"{what} is all zero, so there is nothing to explain.")
