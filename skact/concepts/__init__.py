"""Concept methods: from tokens to scores of concepts."""

from skact.concepts._adam import Adam
from skact.concepts._autoencoder import SparseAutoencoder
from skact.concepts._autoencoder_recipe import AutoencoderTraining, TrainingState
from skact.concepts._base import BaseConcepts, BaseUnits
from skact.concepts._difference import DifferenceInMeans, SeenTokens
from skact.concepts._kmeans import KMeansConcepts, elbow_curve
from skact.concepts._kmeans_separator import KMeansSeparator
from skact.concepts._linear import LinearSeparator
from skact.concepts._logistic import LBFGS
from skact.concepts._max_separator import MaxSeparator
from skact.concepts._minibatch import Descent, Minibatch
from skact.concepts._nmf import NMFConcepts, SemiNMFConcepts
from skact.concepts._pca import PCAConcepts
from skact.concepts._prototype import MeanPrototype
from skact.concepts._statistics import Moments, cosines
from skact.concepts._unit_filter import SAEUnitFilter

__all__ = [
    "Adam",
    "AutoencoderTraining",
    "BaseConcepts",
    "BaseUnits",
    "Descent",
    "DifferenceInMeans",
    "KMeansConcepts",
    "KMeansSeparator",
    "LBFGS",
    "LinearSeparator",
    "MaxSeparator",
    "MeanPrototype",
    "Minibatch",
    "Moments",
    "NMFConcepts",
    "PCAConcepts",
    "SAEUnitFilter",
    "SeenTokens",
    "SemiNMFConcepts",
    "SparseAutoencoder",
    "TrainingState",
    "cosines",
    "elbow_curve",
]
