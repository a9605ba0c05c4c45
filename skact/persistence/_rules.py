"""Kinds and shapes of the fitted attributes of each class, as their docstrings state them.

A rule is ``"kind size size"``: an array of that kind and of as many dimensions, or without sizes
one object. A kind that ends in ``?`` may be None; entries of ``int<n`` are numbers of something of
which there are n, those of ``int<=n`` how many of them; what is ``(optional)`` need not be there. A
size is a number or has a name, and one name means one size in all attributes of an object; ``any``
is not compared. ``by concept`` is a dict with an entry for each of ``concept_names_``.
"""

from __future__ import annotations

__all__ = ["RULES"]

_READS = {"n_features_in_": "count", "source_": "source?"}
_NAMED = {"concept_names_": "names n_concepts"}
_VECTORS = {"concept_vectors_": "float n_concepts n_features", **_NAMED, **_READS}
_UNITS = {**_VECTORS, "n_iter_": "int"}
_ANSWERS = {**_NAMED, "multilabel_": "bool", "classes_": "array n_classes"}
_SUMS = {"_counts": "float n_concepts (optional)"}
_DETECTOR = {
    **_ANSWERS,
    **_READS,
    "thresholds_": "float n_concepts",
    "unsure_thresholds_": "float n_concepts 2 (optional)",
    "matched_columns_": "int<n_features n_concepts",
    "sigmoids_": "float n_concepts 3",
    "n_samples_": "int",
    "n_positive_": "int n_concepts",
}
_DETECTORS = (
    *("LastToken", "MaxToken", "MeanToken", "SuperActivator", "TopWindows"),
    "WeakSuperActivator",
)
_EDIT = {**_NAMED, **_READS}
_JOINED = {
    "layers_": "int any",  # none where one array was given
    "mean_": "float n_layers n_features",
    "scale_": "float n_layers",
}

#: Fitted attributes by class.
RULES: dict[str, dict[str, str]] = {
    "ActivationSpaceMap": {
        **_READS,
        "matrix_": "float n_targets n_features",
        "intercept_": "float n_targets",
        "explained_": "float",
        "target_names_": "names? n_targets",
        "target_source_": "source?",
    },
    "ConceptBottleneckClassifier": {
        **_NAMED,
        "coef_": "float n_rows n_concepts",
        "intercept_": "float n_rows",
        "mean_": "float n_concepts",
        "scale_": "float n_concepts",
        "classes_": "array n_classes",
        "estimator_": "transformer",
        "n_iter_": "int",
        "n_features_in_": "count (optional)",
    },
    "ConceptRules": {
        **_READS,
        "concept_names_": "names n_names",
        "heads_": "int<n_names n_clauses",
        "bodies_": "bool n_clauses n_names",
    },
    "ConceptSegmenter": {
        **_NAMED,
        **_READS,
        "thresholds_": "float n_features",
        "unit_iou_": "float n_concepts n_features",
        "best_units_": "int<n_features n_concepts",
        "weights_": "float n_concepts n_features",
        "iou_": "float n_concepts",
        "classes_": "array? n_classes",
        "_labels": "str?",
    },
    "ConceptualEmbedding": {**_NAMED, **_READS, "vectors_": "float n_concepts n_features"},
    "DifferenceInMeans": _VECTORS,
    "IsolatedConcepts": {**_VECTORS, "method_": "transformer", "shared_": "float n_concepts"},
    "KMeansConcepts": {**_UNITS, **_SUMS, "inertia_": "float"},
    "KMeansSeparator": {
        **_UNITS,
        "centroids_": "float n_concepts n_features",
        "inertia_": "float",
        "separator_n_iter_": "int",
    },
    "LinearSeparator": {**_UNITS, "n_iter_": "int (optional)"},
    "MaxSeparator": {
        **_UNITS,
        "intercepts_": "float n_concepts",
        "weight_decay_": "float n_concepts",
        "loss_curve_": "float any",
    },
    "MeanPrototype": {**_VECTORS, **_SUMS, "_sums": "float n_concepts n_features (optional)"},
    "MultiLayerAutoencoder": {
        **_JOINED,
        **_READS,
        "autoencoder_": "transformer",
        "layer_profiles_": "float n_concepts n_layers",
        "scalings_": "names n_layers",
        "concept_names_": "names n_concepts",
    },
    "NMFConcepts": {**_UNITS, "reconstruction_err_": "float (optional)"},
    "PCAConcepts": {
        **_VECTORS,
        "mean_": "float n_features",
        "explained_variance_": "float n_concepts",
        "explained_variance_ratio_": "float n_concepts",
    },
    "SAEUnitFilter": {
        **_READS,
        "support_": "bool n_features",
        "frequencies_": "float n_features",
        "strengths_": "float n_features",
        "min_strength_": "float",
        "unit_names_": "names? n_features",
    },
    "SemiNMFConcepts": {**_UNITS, "loss_curve_": "float any", "reconstruction_err_": "float"},
    "SparseAutoencoder": {
        **_VECTORS,
        "encoder_": "float n_features n_concepts",
        "encoder_bias_": "float n_concepts",
        "decoder_bias_": "float n_features",
        "threshold_": "float? n_concepts",
        "activation_": "str",
        "k_": "int<=n_concepts?",
        "centred_": "bool",
        "input_scaling_": "str",
        "loss_curve_": "float any (optional)",
        "n_iter_": "int (optional)",
        "n_dead_": "int (optional)",
    },
    **dict.fromkeys(_DETECTORS, _DETECTOR),
    "RandomToken": {**_DETECTOR, "seed_": "count"},
    "SimultaneousOMP": {
        "support_": "int n_steps",
        "components_": "float n_steps n_features",
        "coef_": "float n_samples n_steps",
        "explained_variance_ratio_": "float n_steps",
        "mean_": "float n_features",
        "n_features_in_": "count",
    },
    "HeadPursuit": {
        "head_scores_": "float n_layers n_heads",
        "layers_": "int n_layers",
        "words_": "names n_words",
        "support_": "int n_layers n_heads n_steps",
        "explained_variance_ratio_": "float n_layers n_heads n_steps",
        "random_scores_": "float n_random_lists n_layers n_heads",
        "n_steps_": "int",
        "ranking_": "int any 2",
    },
    "CALM": {"position_": "float n_positions", "evidence_": "float 2 n_concepts"},
    "ConceptLocalizer": {
        **_NAMED,
        "thresholds_": "float n_concepts",
        "classes_": "array? n_classes",
        "without_target_": "int n_concepts",
        "seed_": "count",
        "method_": "estimator",
    },
    "ConceptSearchCV": {
        **_ANSWERS,
        "best_score_": "float n_concepts",
        "best_index_": "int n_concepts",
        "best_params_": "by concept",
        "best_estimators_": "by concept (optional)",
        "cv_results_": "dict",
        "n_splits_": "int",
        "embedder_": "estimator?",
    },
    "ConceptDetector": {
        **_NAMED,
        "results_": "dict",
        "pipelines_": "by concept",
        "searches_": "by concept",
        "embedder_": "transformer",
    },
    "CrossFitTransformer": {"estimator_": "transformer", "n_features_in_": "count (optional)"},
    "Cascade": {
        **_ANSWERS,
        "first_": "estimator",
        "second_": "estimator?",
        "share_": "float",
        "shares_": "float n_concepts",
    },
    "JoinLayers": {**_JOINED, **_READS},
    "NormClip": {**_READS, "median_norm_": "float", "n_clipped_": "int"},
    "PositionContext": {
        **_READS,
        "mean_": "float n_features",
        "positions_": "float n_positions n_features",
        "shares_": "float 3",
        "grid_": "int? 2",
    },
    "SelectLayer": {**_READS, "layer_": "int?"},
    "TokenPooling": {
        **_READS,
        "column_names_": "names? n_features",
        "feature_names_in_": "names n_features (optional)",
    },
    "TokenScaler": {
        **_READS,
        "mean_": "float n_features",
        "scale_": "float",
        "n_tokens_seen_": "float",
        "_mean_square": "float (optional)",
    },
    "PromptDetector": {**_ANSWERS, "thresholds_": "float n_concepts"},
    "Ablation": {**_EDIT, "basis_": "float n_directions n_features"},
    "ActivationTransport": {
        **_EDIT,
        "slope_": "float n_features",
        "intercept_": "float n_features",
        "support_": "float 2 n_features",
    },
    "Addition": {**_EDIT, "direction_": "float n_features", "median_norm_": "float"},
    "AffineEdit": {**_EDIT, "means_": "float 2 n_features"},
    "LinearErasure": {
        **_EDIT,
        "mean_": "float n_features",
        "reads_": "float rank n_features",
        "writes_": "float rank n_features",
    },
    "MinimalNormEdit": {**_EDIT, "separator_": "float n_features", "intercept_": "float"},
    "UnitEdit": {
        **_READS,
        "concept_names_": "names 0",
        "direction_": "float n_features",
        "median_norm_": "float",
        "encoder_": "float n_rows n_features",
        "encoder_bias_": "float n_rows",
        "row_": "int<n_rows",
        "k_": "int<=n_rows",
    },
}
