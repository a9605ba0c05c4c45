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

EMBEDDING = "transform prepare tokens_of truncated missing forget"
SCORERS = "token_f1 token_iou token_average_precision pointing_game"

# Keys, separated by spaces, and kinds, separated by bars.
ROWS = [
    ("(random_state)", "None|True|0|1"),  # scikit-learn's own rule
    ("(n_resamples) (n_blocks) (max_iter) (n_init) (n_samples) (n_concepts)", "1"),
    ("(separator_max_iter) (n_passes) (batch_size) (lr_decay) (lr_step)", "1"),
    ("(max_epochs) (patience) (k) (max_size) (max_share)", "1"),
    ("(window) (top)", "1"),
    ("TopWindows(delta) TopWindows(confidence)", "None"),
    ("TopWindows.fit_path(levels) TopWindows.match_table(levels)", "None"),
    ("TopWindows.fit_path(deltas) TopWindows.match_table(deltas)", "None"),
    ("(n_steps) (resample_dead) (stop_f1) (share) PCAConcepts(n_concepts)", "None|1"),
    ("(cell_size) (n_segments)", "1"),
    (".games(cell_size) .games(n_segments)", "None|1"),
    ("MaxSeparator(sharpness)", "None|1|2.5"),
    ("MaxSeparator(cv)", ""),
    ("(token_weight) (benign_variance)", "0|1|2.5"),
    ("(temperature) (ratio) (bandwidth) (threshold) (learning_rate)", "1|2.5"),
    ("(weight_decay) (tol) (l0) (l1) (percentile) (noise)", "0|1|2.5"),
    ("(shrinkage) (fraction) (min_share) (min_ratio)", "0|1"),
    ("(max_ratio)", "2.5|inf"),
    ("(whiten) (match_columns) (shuffle) (progress) (with_mean) (with_scale) (reset)", "True"),
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
    # Not read, or not here.
    (".get_feature_names_out(input_features) SelectLayer.fit(y) TransformerEmbedder.fit(y)", KINDS),
    ("JoinLayers.fit(y)", KINDS),
    (" ".join(f"{name}_scorer(y)" for name in SCORERS.split()), KINDS),
    ("CrossFitTransformer.fit(groups)", KINDS),
    ("PromptDetector(device)", "text|no text"),
    ("PromptDetector(revision) TransformerEmbedder(revision)", "None|text|no text"),
    ("PromptDetector(log) PromptDetector(system) PromptDetector(template_options)", "None"),
    ("PromptDetector(model)", "text"),  # which is loaded when it is asked
    ("PromptDetector(max_new_tokens)", "1"),
    (".fit_transform(token_labels) .fit_path(token_labels) .match_table(token_labels)", "None"),
    (".score(token_labels) (groups) (superactivators) (center) (ax) (figure) (methods)", "None"),
    ("(n_jobs)", "None|-1|1"),
    ("(cv)", "None"),
    ("ConceptSearchCV(param_grid)", "{}"),
    ("ConceptLocalizer.compare(methods)", ""),
    ("ConceptSearchCV(scoring)", "class"),  # of what a metric raises nothing is known
    ("(refit) (special_tokens) (with_spans) (repair) (check)", "True"),
    ("SelectLayer(layer)", "-1"),
    ("ConceptDetector(layer)", "-1|0|1"),
    (".fit(spans) .fit(masks)", "None"),
    ("ConceptDetector.fit(y)", "None"),  # beside spans
    ("ConceptDetector.plot(concept)", "0|1"),
    ("Monitor(inputs)", "text"),
    ("Monitor.update(tokens)", "empty array"),
    ("Monitor.watch(stop)", "True"),
    ("Monitor.watch(tokenizer)", "None"),
    ("ConceptDetector.predict(raw) ConceptDetector.predict_proba(raw)", "['a', 'a']"),
    ("ConceptDetector.decision_function(raw) ConceptDetector.explain(raw)", "['a', 'a']"),
    ("tpr_at_fpr_score(fpr)", "0"),
    ("JoinLayers(layers)", "None"),
    ("JoinLayers(scale)", "True"),
    ("TransformerEmbedder(chat_tokens)", "text"),
    ("TransformerEmbedder(layer)", "-1|0|1"),
    ("TransformerEmbedder(max_length) TransformerEmbedder(pooling)", "None"),
    ("(max_patches) (chunk_size)", "1"),
    ("TransformerEmbedder(sink)", "None|0|1"),
    ("(store)", "None|text"),
    ("TransformerEmbedder.fit(X)", "[None]|[nan]|['a', 'a']|3-D array"),  # samples are not read
    *((f"TransformerEmbedder.{n}(X)", "['a', 'a']") for n in EMBEDDING.split()),
    *(
        (f"ConceptLocalizer.{n}(X)", "['a', 'a']")
        for n in ("transform", "predict", "games", "compare")
    ),
    ("ConceptLocalizer.interactions(X) embed_to_store(samples)", "['a', 'a']"),
    *((f"PromptDetector.{n}(X)", "['a', 'a']") for n in ("answers", "decision_function")),
    ("PromptDetector.predict(X)", "['a', 'a']"),
    ("(concepts) (unit) (split) (layer) (model) (convention)", "None"),
    ("(feature_names) (source) (shapes)", "None"),
    ("TokenArray.with_values(feature_names)", "None|['a', 'a']"),
    ("TokenArray.with_stored_values(feature_names)", "None|['a', 'a']"),
    (".take(indices)", "[]"),
    (".take(axis)", "None|0"),
    (".take(out)", "None"),
    ("LayerStack.layer(block)", "-1|0"),
    ("FaithfulnessResult.normalized(tolerance)", "0|1|2.5"),
    ("(sample) TokenHeatMapDisplay.from_estimator(sample)", "text"),
    ("TokenHeatMapDisplay(sample)", "text|no text"),
    ("(concept)", "None|text|no text"),
    (".from_estimator(concept)", "0|1"),
    ("(cmap)", "None"),
    (".to_html(path)", "None|text"),
    ("ActivationStore.export(file)", "text"),
    ("ActivationStore.import_(file)", "text"),  # which an export may have written
    ("(title)", "None|text|no text"),
    ("ActivationStore(path) save(path) ConceptDetector.save(path)", "text"),
    ("load(path) describe(path)", "text"),  # it may have been saved there before
    ("load(model)", "None"),
    ("ActivationStore(layers)", "None|-1|0|1"),
    ("ActivationStore.prune(model)", "None|text|no text"),
    ("ActivationStore.prune(layer)", "None|0|1"),
    ("ActivationStore.prune(older_than) ActivationStore.prune(max_bytes)", "None|0|1|2.5"),
    ("ActivationStore.export(layer)", "None|0"),
    ("ActivationStore.export(convention)", "None|{}"),
    ("(keys)", "[]"),
    ("(function) (prepare)", "class"),
    ("(pooled)", "empty array"),
    ("TokenHeatMapDisplay(center) PatchHeatMapDisplay(center)", "None|-1|0|1|2.5"),
    ("LocalizationDisplay(sample)", "text|no text"),
    ("(also)", "{}"),
]
LEGAL = {key: kinds.split("|") for keys, kinds in ROWS for key in keys.split()}


def legal_of(where):
    """Kinds of nonsense that are legal for an argument."""
    keys = where, "." + where.partition(".")[2], where[where.index("(") :]
    return next((LEGAL[key] for key in keys if key in LEGAL), ())
