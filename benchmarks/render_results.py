"""Print the committed detection results as Markdown tables, the form they have in the docs.

The command ``python benchmarks/render_results.py`` prints all of them.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SETS = {"GoEmotions": "goemotions", "iSarcasm": "isarcasm", "MSRC": "msrcv2_dinov2"}
#: Runs of the protocol whose tables are shown whole.
WHOLE = {"GoEmotions": "goemotions_minilm", "iSarcasm": "isarcasm_minilm", "MSRC": "msrcv2_dinov2"}
#: Runs of the protocol, in the order of the overview.
TABLES = {
    "GoEmotions, MiniLM": "goemotions_minilm",
    "GoEmotions, SmolLM2": "goemotions_smollm2",
    "Snips, MiniLM": "snips_minilm",
    "Snips, SmolLM2": "snips_smollm2",
    "BC5CDR, MiniLM": "bc5cdr_minilm",
    "iSarcasm, MiniLM": "isarcasm_minilm",
    "iSarcasm, SmolLM2": "isarcasm_smollm2",
    "MSRC photographs, DINOv2": "msrcv2_dinov2",
}
ANALYSES = {
    "GoEmotions, MiniLM": "goemotions_minilm",
    "Snips, SmolLM2": "snips_smollm2",
    "MSRC photos, DINOv2": "msrcv2_dinov2",
}
GAINS = "gain of SuperActivator, mean over blocks"
CLAIMS = ("separability", "coverage", "skew", "sparsity", GAINS, "SuperActivators")
RIVALS = ("MaxToken", "Exact cut", "MeanToken", "CLS")
CONTROLS = ("random_heads", "random_lists")
REFERENCES = ("LinearSeparator / SuperActivator", "LinearSeparator / MaxToken")


def interval(estimate, ends, digits=3):
    # A rounded -0.000 keeps its sign: it says on which side of nothing it is.
    said = [f"{value:.{digits}f}" for value in (estimate, *ends)]
    return f"{said[0]} [{said[1]}, {said[2]}]"


def read(kind, name):
    return json.loads((RESULTS / f"{kind}_{SETS[name]}.json").read_text())


def detected(file):
    """Read a run of the protocol, and behind it that of methods without labels if there is one."""
    found = json.loads((RESULTS / f"paper_{file}.json").read_text())
    units = RESULTS / f"paper_{file}_units.json"
    if units.exists():
        found["table"] += json.loads(units.read_text())["table"]
    return found


def markdown(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def overview(method="LinearSeparator"):
    """Render all detection tables: a row per data set and model, the floor beside each F1."""
    shown = ("CLS", "MeanToken", "MaxToken", "SuperActivator")
    heads = ["Data, model", "Yes to everything", *shown, "Its gain over MaxToken"]
    lines = []
    for name, file in TABLES.items():
        found = detected(file)
        rows = {(e["method"], e["detector"]): e for e in found["table"]}
        own = [rows[method, detector] for detector in shown]
        cells = [interval(e["weighted_test_f1"], e["interval"]) for e in own]
        gain = own[2]["gain_of_superactivator"], own[2]["gain_interval"]
        best = max(found["table"], key=lambda e: e["weighted_test_f1"])
        said = f"{best['method']}, {best['detector']}: {best['weighted_test_f1']:.3f}"
        lines.append([name, f"{found['floor']:.3f}", *cells, interval(*gain), said])
    return markdown([*heads, "Best of all rows on test"], lines)


def answers():
    """Render concept methods beside a bag of words on the concepts of AxBench."""
    found = json.loads((RESULTS / "axbench_minilm.json").read_text())
    heads = {"auroc": "AUROC", "gain_in_auroc": "gain over the bag of words"}
    heads |= {"hard_auroc": "AUROC, hard negatives", "tpr_at_1_fpr": "TPR at 1 % FPR", "f1": "F1"}
    lines = []
    for row in found["table"]:
        cells = [interval(row[key]["mean"], row[key]["interval"]) for key in heads]
        lines.append([row["line"], *cells, f"{row['floor']['mean']:.3f}"])
    return markdown(["Concepts / detector", *heads.values(), "Yes to everything"], lines)


PAPERS = ("LinearSeparator, SuperActivator", "LinearSeparator, MaxToken")
TRIED = ("row, best in cross-validation", "row, best on test")


def _chosen():
    for name, file in TABLES.items():
        found = json.loads((RESULTS / f"concept_detector_{file}.json").read_text())
        yield name, found["floor"], {row["name"]: row for row in found["table"]}


def chosen():
    """Render F1 of ConceptDetector, and its gains over the paper's detectors."""
    heads = ["Data, model", "Yes to everything", "ConceptDetector", *_over(PAPERS)]
    lines = []
    for name, floor, rows in _chosen():
        ours = rows["ConceptDetector"]
        cells = [name, f"{floor:.3f}", interval(ours["f1"], ours["interval"])]
        lines.append(cells + _gained(rows, PAPERS, "gain_of_concept_detector"))
    return markdown(heads, lines)


def chosen_beside_rows():
    """Render how far ConceptDetector is from the best single candidates, known and unknown."""
    heads = ["Data, model", *(f"Over the {name.replace('row, ', 'one ')}" for name in TRIED)]
    found = _chosen()
    lines = [[name, *_gained(rows, TRIED, "gain_of_concept_detector")] for name, _, rows in found]
    return markdown(heads, lines)


def chosen_at_few_alarms():
    """Render the recall of ConceptDetector at 1 % false alarms, and its gains."""
    lines = []
    for name, _, rows in _chosen():
        cells = [name, f"{rows['ConceptDetector']['tpr_at_1_fpr']:.3f}"]
        lines.append(cells + _gained(rows, PAPERS, "gain_in_tpr_at_1_fpr"))
    return markdown(["Data, model", "ConceptDetector", *_over(PAPERS)], lines)


def _over(names):
    return [f"Over {name.rpartition(' ')[2]}" for name in names]


def _gained(rows, names, key):
    return [interval(rows[name][key][0], rows[name][key][1:]) for name in names]


FEW = {
    "GoEmotions, MiniLM": "goemotions",
    "Snips, MiniLM": "snips",
    "MSRC photographs, DINOv2": "msrcv2",
}


def few(name, metric="f1"):
    """Render what concept methods learn from few positives: a column for each number of them."""
    return _by_positives(name, lambda row: row[metric])


def few_gains(name, metric="f1"):
    """Render paired gains over the linear separator of tokens by number of positives."""
    return _by_positives(name, lambda row: row.get(f"gain in {metric}"), leave="random")


def _by_positives(name, value, leave=None):
    found = json.loads((RESULTS / f"few_positives_{FEW[name]}.json").read_text())["table"]
    sizes = list(dict.fromkeys(row["positives"] for row in found))
    shown = sizes if len(sizes) <= len(_SHOWN) else _SHOWN
    cells = {}
    for row in found:
        one = value(row)
        if row["positives"] in shown and one and not (leave and leave in row["line"]):
            cells.setdefault(row["line"], []).append(interval(one[0], one[1:]))
    heads = ["", *(f"{size} positives" for size in shown)]
    return markdown(heads, [[line, *values] for line, values in cells.items()])


_SHOWN = (4, 16, 32, 128)


def matrix(name):
    """Render one data set: a row per concept method, a column per detector."""
    return _by_method(name, None, "weighted_test_f1", "interval")


def ranks(name):
    """Render what needs no cut: a row per concept method and detector; files may lack it."""
    heads = {"auroc": "AUROC", "average_precision": "AP", "tpr_at_1_fpr": "TPR at 1 % FPR"}
    lines = [
        [entry["method"], entry["detector"], *(f"{entry[h]:.3f}" for h in heads)]
        for entry in detected(WHOLE[name])["table"]
        if "auroc" in entry
    ]
    return markdown(["Concepts", "Detector", *heads.values()], lines)


def gains(name):
    """Render the gain of SuperActivator on one data set over other detectors."""
    return _by_method(name, RIVALS, "gain_of_superactivator", "gain_interval")


def _by_method(name, detectors, value, ends):
    rows = {}
    for entry in detected(WHOLE[name])["table"]:
        cell = interval(entry[value], entry[ends])
        rows.setdefault(entry["method"], {})[entry["detector"]] = cell
    detectors = detectors or list(max(rows.values(), key=len))
    lines = [[m, *(cells.get(d, "–") for d in detectors)] for m, cells in rows.items()]
    return markdown(["Concepts", *detectors], lines)


def beyond(name, part, over=REFERENCES):
    """Render the candidates on one data set: F1, and the gain over other pairs."""
    lines = []
    for entry in read("beyond", name)[part]:
        cells = [interval(entry["f1"], entry["interval"])]
        for other in over:
            gain = entry.get(f"gain over {other}")
            cells.append(interval(gain["f1"], gain["interval"]) if gain else "")
        lines.append([*entry["candidate"].split(" / "), *cells])
    return markdown(["Concepts", "Detector", "F1", *(f"Gain over {o}" for o in over)], lines)


def diluted(metric, part="pools"):
    """Render a metric of pools, or of rules with one of two cuts, by the number of texts."""
    found = read("dilution", "GoEmotions")["dilution"]
    texts = {k: "1 text" if k == "1" else f"{k} texts" for k in found}
    return _curves({texts[k]: {n: m[metric] for n, m in found[k][part].items()} for k in found})


def diluted_images(metric, part="pools"):
    """Render a metric of pools or rules by the number of tiles, seen as one image and apart."""
    found, ways = read("dilution", "MSRC"), {"mosaic": "one image", "apart": "apart"}
    tiles = {k: "1 tile" if k == "1" else f"{k} tiles" for k in found["mosaic"]}
    return _curves(
        {
            title: {
                f"{name}, {said}": one[metric]
                for way, said in ways.items()
                for name, one in found[way][k][part].items()
            }
            for k, title in tiles.items()
        }
    )


def with_decoys(metric):
    """Render a metric of pools or rules by the share of decoys, or on decoys and others."""
    found = read("dilution", "GoEmotions")["decoys"][metric]
    heads = next(iter(found.values()))
    names = {h: h if h.isalpha() else f"{float(h):.0%} decoys" for h in heads}
    return _curves({names[h]: {n: one[h] for n, one in found.items()} for h in heads})


def aligned():
    """Render how many pairs of head and concept lie beyond chance, by model."""
    keys = {
        "beyond 99 % of sphere": "Beyond 99 % of the sphere",
        "token differences beyond 99 % of sphere": "Token differences beyond it",
        "beyond 99 % of token differences": "Beyond 99 % of token differences",
        "so with alpha and beta positive": "With both positive",
    }
    lines = []
    for model, found in _heads().items():
        one = found["alignment"]
        shares = [one["shares of concepts"][name] for name in ("alpha_share", "beta_share")]
        cells = [interval(one[key][0], one[key][1:]) for key in keys]
        cells += [f"{share[0]:.3f}, {share[2]:.3f}" for share in shares]
        lines.append([model.rpartition("/")[2], str(one["pairs"]), *cells])
    heads = ["Model", "Pairs", *keys.values()]
    return markdown([*heads, "Share of alpha: median, largest", "Of beta"], lines)


def grown():
    """Render predicted and measured growth of gaps, by model and kind of direction."""
    heads = ["Model", "Directions", "Predicted", "Measured", "Correlation"]
    lines = []
    for model, found in _heads().items():
        for kind, one in found["growth"].items():
            attention = one["attention"]
            estimate, *ends = attention["correlation"]
            growth = [f"{attention[f'mean {what}']:.3f}" for what in ("predicted", "measured")]
            line = [model.rpartition("/")[2], kind, *growth, interval(estimate, ends)]
            lines.append(
                [*line, interval(one["block"]["correlation"][0], one["block"]["correlation"][1:])]
            )
    return markdown([*heads, "Correlation behind the block"], lines)


def _heads():
    found = json.loads((RESULTS / "head_alignment.json").read_text())
    return {model: one for model, one in found.items() if model.startswith("models/")}


def by_labels():
    """Render F1 by what is labelled: a row per data set, concept method and detector."""
    lines = []
    for name, pairs in LABELLED.items():
        kind, floor, f1 = _measured(name)
        for labels, method, detector in pairs:
            estimate, ends = f1[method, detector]
            lines.append([kind, labels, method, detector, interval(estimate, ends), f"{floor:.3f}"])
    return markdown(["Data", "Labels", "Concepts", "Detector", "F1", "Floor"], lines)


LABELLED = {
    "GoEmotions": (
        ("of tokens", "LinearSeparator", "SuperActivator"),
        ("of samples", "MaxSeparator", "MaxToken"),
        ("of samples, for the match only", "KMeansConcepts", "MaxToken"),
        ("of samples, one vector per text", "LinearSeparator", "CLS"),
    ),
    "iSarcasm": (
        ("of tokens", "LinearSeparator", "SuperActivator"),
        ("of samples", "MaxSeparator", "MaxToken"),
        ("of samples, one vector per text", "LinearSeparator", "CLS"),
    ),
    "MSRC": (
        ("of patches", "LinearSeparator", "MaxToken"),
        ("of patches", "LinearSeparator", "SuperActivator"),
        ("of patches", "MeanPrototype", "SuperActivator"),
        ("of images", "MaxSeparator", "SuperActivator"),
        ("of images, one vector per image", "LinearSeparator", "CLS"),
    ),
}
KINDS = {
    "GoEmotions": "GoEmotions, MiniLM",
    "iSarcasm": "iSarcasm, MiniLM",
    "MSRC": "MSRC photographs, DINOv2-small",
}


def _measured(name):
    """Return what a data set is, its floor, and {(method, detector): (F1, ends)}."""
    found = detected(WHOLE[name])
    f1 = {
        (e["method"], e["detector"]): (e["weighted_test_f1"], e["interval"]) for e in found["table"]
    }
    return KINDS[name], found["floor"], f1


def _curves(columns):
    """Render columns of {name: (estimate, low, high)}."""
    names = next(iter(columns.values()))
    rows = [[n, *(interval(c[n][0], c[n][1:]) for c in columns.values())] for n in names]
    return markdown(["", *columns], rows)


def analyses(claim):
    """Render what a claim of the paper comes to: a column per data set and model."""
    columns = {}
    for name, file in ANALYSES.items():
        found = json.loads((RESULTS / f"analyses_{file}.json").read_text())["claims"]
        given = found[claim] if claim in found else _of_marks(found)
        columns[name] = {row: _cell(value) for row, value in given.items()}
    heads = ["", *columns]
    rows = next(iter(columns.values()))
    return markdown(heads, [[row, *(one[row] for one in columns.values())] for row in rows])


def _of_marks(claims):
    rows = ("SuperActivators for each in-concept token, median", "samples without a SuperActivator")
    places = {f"{kind} position": ends for kind, ends in claims["positions"].items()}
    return {**{row: claims[row] for row in rows}, **places}


def _cell(value):
    if isinstance(value, list):
        p = f", p = {value[3]:.3f}" if len(value) == 4 else ""
        return interval(value[0], value[1:3]) + p
    return f"{value}"


def pooled():
    """Render F1 of pooled separators and others, and the gain over the first: two sets."""
    heads, rows = [""], {}
    for name, file in POOLED.items():
        heads += [name, "gain"]
        found = json.loads((RESULTS / f"pooled_separators_{file}.json").read_text())
        for entry in found["table"]:
            gain, low, high = entry["gain"]
            said = "" if entry["row"] == "MaxSeparator" else f"{gain:+.3f} [{low:.3f}, {high:.3f}]"
            rows.setdefault(POOLED_ROWS.get(entry["row"], entry["row"]), []).extend(
                [f"{entry['f1']:.3f}", said]
            )
    return markdown(heads, [[row, *cells] for row, cells in rows.items()])


POOLED = {"snips, 30 slots": "snips", "GoEmotions, 14 emotions": "goemotions"}
POOLED_ROWS = {
    "MaxSeparator": "`MaxSeparator()`",
    "LinearSeparator": "`LinearSeparator()`, labels of tokens",
    "LinearSeparator, ridge 1e-5": "the same, ridge 1e-5",
    "DifferenceInMeans, whitened": "`DifferenceInMeans(whiten=True)`, labels of tokens",
}


def prompted():
    """Render what a language model answers to questions, and what its log-odds tell."""
    lines = []
    for name, file in {"iSarcasm": "isarcasm", "GoEmotions": "goemotions"}.items():
        found = json.loads((RESULTS / f"prompting_{file}.json").read_text())
        answer, logits, n = found["answer"], found["logits"], len(found["positives_of_test"])
        f1, *ends = logits["f1"]
        texts = found["texts"]["test"]
        cells = [
            f"{name}, {n} concept{'s' * (n > 1)}",
            f"{texts}",
            f"{found['yes_to_everything']:.2f}",
            f"{answer['f1'][0]:.2f}",
            f"{f1:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]",
            f"{logits['auroc']:.2f}",
            f"{answer['neither']} of {texts * n}",
        ]
        lines.append(cells)
    asked = ["F1 of answers", "F1 of logits", "AUROC of logits", "Neither word"]
    return markdown(["Data", "Test texts", "Yes to everything", *asked], lines)


def pursuit_explained(start="from_block_1"):
    """Render the explained share of the heads chosen for each list of words, and of controls."""
    rows = [
        [name, top, f"{one['chosen']:.3f}", *(interval(one[c][0], one[c][1:]) for c in CONTROLS)]
        for name, found in _pursuits(start).items()
        for top, one in found["explained"].items()
    ]
    heads = ["Words", "Heads", "Chosen", "Random heads", "Same heads, random tokens"]
    return markdown(heads, rows)


def pursuit_edits(factor, start="from_block_1"):
    """Render what scaling heads does to the log-probability of the words, at which KL."""
    rows = []
    for name, found in _pursuits(start).items():
        for edit in (e for e in found["edits"] if e["factor"] == factor):
            cells = [name, str(edit["top"])]
            for one in (edit["pursuit"], edit["mean_logits"], edit["random_heads"]):
                kl = one["kl"] if isinstance(one["kl"], float) else one["kl"][0]
                moved = one["log_probability"]
                cells.append(f"{moved[0]:+.2f} [{moved[1]:+.2f}, {moved[2]:+.2f}] at {kl:.2f}")
            rows.append(cells)
    return markdown(["Words", "Heads", "Pursuit", "Mean logits", "Random heads"], rows)


def _pursuits(start):
    return json.loads((RESULTS / "head_pursuit_smollm2.json").read_text())[start]


def carried():
    """Render what a detector is worth where a map carries it."""
    found = json.loads((RESULTS / "space_map_goemotions.json").read_text())
    places = {f"MiniLM, block {b}": there for b, there in found["blocks"].items()}
    places[f"SmolLM2, block {found['other']['block']}"] = found["other"]
    heads = ["carried to", "fitted there", "ridge", "ridge, cut there", "Procrustes, cut there"]
    rows = []
    for place, there in places.items():
        cells = [there["fitted there"], there["ridge"]]
        cells += [there[name]["thresholds calibrated there"] for name in ("ridge", "procrustes")]
        rows.append([place, *(interval(one["f1"][0], one["f1"][1:]) for one in cells)])
    return markdown(heads, rows)


def sensitive(layers=(10, 15, 25)):
    """Render how often the logit of a word rises along the vector of its emotion."""
    found = json.loads((RESULTS / "sensitivity_goemotions.json").read_text())
    heads = ["Emotion, word"]
    for layer in layers:
        heads += [f"Block {layer}: share", "Random", "p"]
    rows = []
    for k, name in enumerate(found["classes"]):
        row = [f"{name}, {found['words'][name]!r}"]
        for layer in layers:
            one, c = found["layers"].index(layer), found["concepts"].index(name)
            share, low, high, mean, std, p = (
                found[key][one][k][c]
                for key in ("share", "low", "high", "random_mean", "random_std", "p_corrected")
            )
            row += [interval(share, (low, high)), f"{mean:.2f} ± {std:.2f}"]
            row.append("< .001" if p < 0.001 else f"{p:.3f}")
        rows.append([*row, f"{found['consistency'][k][found['concepts'].index(name)]:.3f}"])
    return markdown([*heads, "Variance over layers"], rows)


def algebra(item):
    """Render what a piece of concept algebra says of real data, and what its controls do."""
    found = json.loads((RESULTS / "algebra.json").read_text())["items"][item]["rows"]
    columns = list(dict.fromkeys(column for cells in found.values() for column in cells))
    rows = [
        [row, *(_figure(cells[column], column) if column in cells else "–" for column in columns)]
        for row, cells in found.items()
    ]
    return markdown(["", *columns], rows)


def _figure(value, column):
    if isinstance(value, list):
        return interval(value[0], value[1:])
    if isinstance(value, str):
        return value
    if column.startswith(("p ", "p,")):
        return "< .001" if value < 0.001 else f"{value:.3f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def lensed():
    """Render the rank of the word of each emotion off its vector, and off others, by two lenses."""
    found = json.loads((RESULTS / "lens_goemotions.json").read_text())
    lenses = ("logit lens", "Jacobian lens")
    heads = ["Emotion, word", *(f"Block {b}: {lens}" for b in found["blocks"] for lens in lenses)]
    rows = []
    for name, word in found["words"].items():
        cells = [one[lens][name] for one in found["blocks"].values() for lens in lenses]
        said = [f"{c['rank']:,} ({c['rank under other emotions, median']:,.0f})" for c in cells]
        rows.append([f"{name}, {word!r}", *said])
    return markdown(heads, rows)


def augmented():
    """Render how often a chat model quotes what it is to embed."""
    heads = ["Data", "First drafts verified", "Texts verified", "Drafts", "Exact"]
    heads += ["Case, white space", "Punctuation", "Word overlap", "Not found", "Nothing around it"]
    rows = []
    for name, file in {"iSarcasm": "isarcasm", "GoEmotions": "goemotions"}.items():
        found = json.loads((RESULTS / f"augmentation_{file}_smollm2.json").read_text())
        shares = found["first_drafts"]["verified"], found["texts_verified"]
        n = {key.partition(": ")[2]: count for key, count in found["all_drafts"].items()}
        counts = [sum(n.values()), n["exact"], n["case"] + n["white space"], n["punctuation"]]
        counts += [n["word overlap"], n["not found"], n["nothing around it"]]
        said = ["{:.2f} [{:.2f}, {:.2f}]".format(*share) for share in shares]
        rows.append([name, *said, *map(str, counts)])
    return markdown(heads, rows)


def main():
    print(f"Augmentation\n\n{augmented()}\n")
    print(f"Carried\n\n{carried()}\n")
    print(f"Sensitivity\n\n{sensitive()}\n\nLenses\n\n{lensed()}\n")
    for item in json.loads((RESULTS / "algebra.json").read_text())["items"]:
        print(f"Concept algebra, {item}\n\n{algebra(item)}\n")
    print(f"By labels\n\n{by_labels()}\n")
    print(f"Overview\n\n{overview()}\n\nAxBench\n\n{answers()}\n")
    for name in SETS:
        print(f"{name}\n\n{matrix(name)}\n\n{ranks(name)}\n\n{gains(name)}\n")
        compared = (RESULTS / f"beyond_{SETS[name]}.json").exists()
        for part in ("cross-validation", "test") if compared else ():
            print(f"{name}, {part}\n\n{beyond(name, part)}\n")
    print(f"Chosen\n\n{chosen()}\n\n{chosen_beside_rows()}\n\n{chosen_at_few_alarms()}\n")
    for name in FEW:
        print(f"Few positives, {name}\n\n{few(name)}\n\n{few_gains(name)}\n")
    print(f"Heads\n\n{aligned()}\n\n{grown()}\n")
    print(f"Dilution\n\n{diluted('tpr_at_1_fpr')}\n")
    for metric in ("f1", "false_alarms"):
        for part in ("cut at 1", "cut at k"):
            print(f"{metric}, {part}\n\n{diluted(metric, part)}\n")
    print(f"Tiles\n\n{diluted_images('tpr_at_1_fpr')}\n")
    print(f"F1 of tiles, cut at 1\n\n{diluted_images('f1', 'cut at 1')}\n")
    print(f"Pooled separators\n\n{pooled()}\n\nPrompting\n\n{prompted()}\n")
    print(f"Head Pursuit\n\n{pursuit_explained()}\n")
    for factor in (-1, 5):
        print(f"Heads times {factor}\n\n{pursuit_edits(factor)}\n")
    for metric in ("tpr_at_1_fpr", "f1", "false_alarms"):
        print(f"Decoys, {metric}\n\n{with_decoys(metric)}\n")
    for claim in CLAIMS:
        print(f"{claim}\n\n{analyses(claim)}\n")


if __name__ == "__main__":
    main()
