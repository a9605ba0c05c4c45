"""Concept methods: from tokens to scores of concepts."""

from skact.concepts._adam import Adam
from skact.concepts._autoencoder import SparseAutoencoder
from skact.concepts._autoencoder_recipe import AutoencoderTraining, TrainingState
from skact.concepts._autoencoder_weights import scale_input
from skact.concepts._base import BaseConcepts, BaseUnits, check_separable
from skact.concepts._difference import DifferenceInMeans, SeenTokens
from skact.concepts._isolated import IsolatedConcepts
from skact.concepts._kmeans import KMeansConcepts, elbow_curve
from skact.concepts._kmeans_separator import KMeansSeparator
from skact.concepts._linear import LinearSeparator
from skact.concepts._logistic import LBFGS
from skact.concepts._max_separator import MaxSeparator
from skact.concepts._minibatch import Descent, Minibatch
from skact.concepts._multi_layer import MultiLayerAutoencoder
from skact.concepts._nmf import NMFConcepts, SemiNMFConcepts
from skact.concepts._pca import PCAConcepts
from skact.concepts._prototype import MeanPrototype
from skact.concepts._statistics import Moments, cosines, labelled_sums, moments
from skact.concepts._unit_filter import SAEUnitFilter

__all__ = [
    "Adam",
    "AutoencoderTraining",
    "BaseConcepts",
    "BaseUnits",
    "Descent",
    "DifferenceInMeans",
    "IsolatedConcepts",
    "KMeansConcepts",
    "KMeansSeparator",
    "LBFGS",
    "LinearSeparator",
    "MaxSeparator",
    "MeanPrototype",
    "Minibatch",
    "Moments",
    "MultiLayerAutoencoder",
    "NMFConcepts",
    "PCAConcepts",
    "SAEUnitFilter",
    "SeenTokens",
    "SemiNMFConcepts",
    "SparseAutoencoder",
    "TrainingState",
    "check_separable",
    "cosines",
    "elbow_curve",
    "labelled_sums",
    "moments",
    "scale_input",
]
