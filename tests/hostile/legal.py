"""What of the nonsense is legal where, or refused by somebody else.

A key is ``function(argument)``, ``Class(argument)`` or ``Class.method(argument)``, or a part of
that which holds for all: ``.method(argument)`` or ``(argument)``.
"""

KINDS = (
    "None|True|text|no text|bytes|object|class|-1|0|1|2.5|nan|inf|-inf|1j|[]|{}|[None]|[nan]|"
    "['a', 'a']|empty array|nan array|inf array|object array|complex array|text array|3-D array"
)
UNSUPERVISED = (
    "KMeansConcepts KMeansSeparator NMFConcepts NormClip PCAConcepts SemiNMFConcepts "
    "SparseAutoencoder TokenScaler"
)

# Keys, separated by spaces, and kinds, separated by bars.
ROWS = [
    ("(random_state)", "None|True|0|1"),  # scikit-learn's own rule
    ("(n_resamples) (n_blocks) (max_iter) (n_init) (n_samples) (n_concepts)", "1"),
    ("(separator_max_iter) (n_passes) (batch_size) (lr_decay) (lr_step)", "1"),
    ("(max_epochs) (patience) (k) (max_size) (max_share)", "1"),
    ("(n_steps) (resample_dead) (stop_f1) (share) PCAConcepts(n_concepts)", "None|1"),
    ("(sharpness) (ratio) (bandwidth) (threshold) (learning_rate)", "1|2.5"),
    ("(weight_decay) (tol) (l0) (l1) (percentile) (noise)", "0|1|2.5"),
    ("(fraction) (min_share) (min_ratio)", "0|1"),
    ("(max_ratio)", "2.5|inf"),
    ("(match_columns) (shuffle) (progress) (with_mean) (with_scale) (reset)", "True"),
    ("(baseline) (pairs) (balance) (init) (training)", "None"),
    (".fit(token_labels) .partial_fit(token_labels)", "None"),
    (".score(sample_weight)", "None|complex array"),
    ("(metric)", "None|class"),  # of what a metric raises nothing is known
    ("(text)", "text|no text"),
    ("TokenArray(index)", "None|[]"),
    ("TokenArray(feature_names) TokenArray(source) TokenArray(shapes)", "None"),
    ("Source(model) Source(revision) Source(convention) Source(scaling)", "None|text|no text"),
    ("Source(block)", "None|-1|0|1"),
    ("MaskFiles(paths)", "[]|['a', 'a']|empty array"),
    ("MaskFiles(values)", "[]|empty array"),
    ("MaskFiles(known)", "None|[]|empty array"),
    ("MaskFiles(sizes)", "None|[None]"),
    (".score(y)", "complex array"),  # scikit-learn's own words
    # What is not read: classes beside an indicator matrix, labels where there are none.
    (".partial_fit(classes) MaxSeparator.fit(token_labels)", KINDS),
    *((f"{n}.fit(y) {n}.partial_fit(y)", KINDS) for n in UNSUPERVISED.split()),
]
LEGAL = {key: kinds.split("|") for keys, kinds in ROWS for key in keys.split()}


def legal_of(where):
    """Kinds of nonsense that are legal for an argument."""
    keys = where, "." + where.partition(".")[2], where[where.index("(") :]
    return next((LEGAL[key] for key in keys if key in LEGAL), ())
