"""Make all files of results anew, one command after the other; it takes hours.

A journal says which commands have run; one that has run on the present code is not run again, so
that what was interrupted goes on where it stopped. The code is what git has of ``skact`` and of the
script, so it must be committed. Each file then states commit, machine, date and its commands.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_CHATS = "--data {data}/goemotions --model {models}/smollm2"
# Data and model of which concepts are found without labels too.
_UNLABELLED = [("goemotions", "minilm"), ("isarcasm", "minilm"), ("msrcv2", "dinov2")]
_RUNS = [
    ("msrcv2", "dinov2", "dinov2-small"),
    *(
        (data, model, model)
        for data in ("isarcasm", "snips", "goemotions")
        for model in ("minilm", "smollm2")
    ),
    ("bc5cdr", "minilm", "minilm"),
]
_UNITS = [run for run in _RUNS if run[:2] in _UNLABELLED]
_FEW = {
    "goemotions": "minilm --layer 0.67",
    "snips": "minilm --layer 0.67",
    "msrcv2": "dinov2-small --layer 0.75 --concepts 6 --draws 2 --sizes 4 8 16 32",
}
_HEADS = "head_alignment.py --data {data}"
_PURSUIT = "head_pursuit.py --data {data}/axbench_fd --model {models}/smollm2"
_TEXT = (
    "I was stuck at the station all night. Thank you so much for driving out to get me. "
    "It rained, the trains were late, and nobody knew why."
)
_REQUEST = (
    "Book a table for four in Boston next Friday at noon, and tell me whether it will be warm "
    "this weekend."
)

#: File, and the commands that fill it one after the other; ``--out FILE`` is added to each.
COMMANDS = {
    **{
        f"paper_{data}_{name}": [
            f"paper.py --setup {data}-{name} --data {{data}} --model {{models}}/{model}"
        ]
        for data, name, model in _RUNS
    },
    **{
        f"paper_{data}_{name}_units": [
            f"paper.py --setup {data}-{name}-units --data {{data}} --model {{models}}/{model}"
        ]
        for data, name, model in _UNITS
    },
    **{
        f"concept_detector_{data}_{name}": [
            f"concept_detector.py --data {{data}}/{data} --model {{models}}/{model}"
        ]
        for data, name, model in _RUNS
    },
    "axbench_minilm": ["axbench.py --data {data}/axbench_fd --model {models}/minilm"],
    "localization_shapes": ["paper.py --setup shapes-maps --data {data}"],
    "localization_goemotions": [
        "paper.py --setup goemotions-minilm-maps --data {data} --model {models}/minilm"
    ],
    "localization_msrcv2": ["paper.py --setup msrcv2-shapes-maps --data {data}"],
    "localization_msrcv2_dinov2": [
        "paper.py --setup msrcv2-dinov2-maps --data {data} --model {models}/dinov2-small"
    ],
    "beyond_goemotions": [
        "beyond.py --data {data}/goemotions --model {models}/minilm --layers 2 4 "
        "--decisions {new}/decisions.npz"
    ],
    "beyond_isarcasm": [
        "beyond.py --data {data}/isarcasm --model {models}/minilm --layers 0 1 2 3 4 5 "
        "--decisions {new}/decisions.npz"
    ],
    "analyses_goemotions_minilm": [
        "analyses.py --data {data}/goemotions --model {models}/minilm --samples 1500"
    ],
    "analyses_msrcv2_dinov2": [
        "analyses.py --data {data}/msrcv2 --model {models}/dinov2-small --layers 1 3 5 7 9 11"
    ],
    "analyses_snips_smollm2": [
        "analyses.py --data {data}/snips --model {models}/smollm2 --samples 900 "
        "--layers 0 5 11 17 23 29"
    ],
    "layer_maps_goemotions_minilm": [
        "layer_maps.py --data {data}/goemotions --model {models}/minilm --concept gratitude "
        f'--sample "{_TEXT}" --samples 1500'
    ],
    "layer_maps_msrcv2_dinov2": [
        "layer_maps.py --data {data}/msrcv2 --model {models}/dinov2-small --concept building "
        "--sample china.jpg --samples 250"
    ],
    "layer_maps_snips_smollm2": [
        "layer_maps.py --data {data}/snips --model {models}/smollm2 --concept timeRange "
        f'--sample "{_REQUEST}" --samples 600'
    ],
    "space_map_goemotions": [
        "space_map.py --data {data}/goemotions --model {models}/minilm --other {models}/smollm2"
    ],
    "sensitivity_goemotions": ["sensitivity.py --data {data}/goemotions --model {models}/smollm2"],
    "algebra": [
        "algebra.py --emotions {data}/goemotions --requests {data}/snips --photos {data}/msrcv2 "
        "--encoder {models}/minilm --speaker {models}/smollm2 --vision {models}/dinov2-small"
    ],
    "lens_goemotions": ["lens.py --data {data}/goemotions --model {models}/smollm2"],
    "steering_smollm2": [
        "steering.py --emotions {data}/goemotions --traits {data}/persona "
        "--model {models}/smollm2 --judge {models}/minilm"
    ],
    **{
        f"augmentation_{name}_smollm2": [
            f"augmentation.py --data {{data}}/{name} --model {{models}}/smollm2 --tokens 150"
        ]
        for name in ("isarcasm", "goemotions")
    },
    "attention_sink_goemotions": [f"attention_sink.py {_CHATS}"],
    "head_alignment": [
        f"{_HEADS}/goemotions --model {{models}}/minilm",
        f"{_HEADS}/goemotions --model {{models}}/smollm2",
        f"{_HEADS}/msrcv2 --model {{models}}/dinov2-small",
    ],
    "head_pursuit_smollm2": [f"{_PURSUIT} --from-block 1 --parts edits", _PURSUIT],
    "autoencoder_smollm2": [
        f"autoencoder.py {_CHATS} --n-train 300 --n-test 60 --units 576 --k 32"
    ],
    "dilution_goemotions": [
        "dilution.py --data {data}/goemotions --model {models}/minilm --block 4"
    ],
    "dilution_msrcv2_dinov2": [
        "dilution_images.py --data {data}/msrcv2 --model {models}/dinov2-small"
    ],
    "whole_images_msrcv2": ["whole_images.py --data {data}/msrcv2 --model {models}/dinov2-small"],
    "pooled_separators_goemotions": [
        "pooled_separators.py --data {data}/goemotions --model {models}/minilm --layer 3 --also 1 5"
    ],
    "pooled_separators_snips": [
        "pooled_separators.py --data {data}/snips --model {models}/minilm --layer 3 --also 1 5"
    ],
    "prompting_goemotions": [
        f"prompting.py {_CHATS} --texts 120 --concepts amusement gratitude sadness"
    ],
    "prompting_isarcasm": [
        "prompting.py --data {data}/isarcasm --model {models}/smollm2 --texts 200"
    ],
    **{
        f"few_positives_{data}": [
            f"few_positives.py --data {{data}}/{data} --model {{models}}/{more}"
        ]
        for data, more in _FEW.items()
    },
    "concept_search_goemotions": [
        "concept_search.py --data {data}/goemotions --model {models}/minilm"
    ],
    "embedding_goemotions": [
        "embedding.py --data {data}/goemotions --model {models}/minilm --rounds 7 --limit 1500"
    ],
    "streaming": ["streaming.py --gib 8 --folder {new}/store --group {group}"],
    "resources": ["resources.py --folder {new}/tokens"],
    "perturbation": [
        "perturbation.py --model {models}/dinov2-small "
        "--image {data}/msrcv2/images/msrc_04_01.jpg --rounds 1"
    ],
    "rise": ["rise.py --width 192 --blocks 6"],
    "separators": ["separators.py --concepts 30"],
    "matching": ["matching.py"],
    "thresholds": ["thresholds.py"],
    "dry_run": ["dry_run.py"],
}


def git(*words):
    return subprocess.check_output(["git", "-C", ROOT, *words], text=True).strip()


def code_of(command):
    """Name what git has of the package, of the script that a command runs, and of its setups."""
    files = [shlex.split(command)[0]]
    files += ["public.toml"] if files == ["paper.py"] else []
    paths = ["skact", *(f"benchmarks/{file}" for file in files)]
    return " ".join(git("rev-parse", f"HEAD:{path}") for path in paths)


def machine():
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def stamp(path, commands):
    """Write into a file of results from which code, machine and commands it is."""
    found = json.loads(path.read_text(encoding="utf-8"))
    about = {
        "command": " && ".join(f"python benchmarks/{command}" for command in commands),
        "commit": git("rev-parse", "--short", "HEAD"),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    text = json.dumps(about | {k: v for k, v in found.items() if k not in about}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def make(name, commands, out, places):
    """Run the commands of a file into a new one, which replaces the old when all have run."""
    with tempfile.TemporaryDirectory(dir=out) as new:
        fresh = Path(new) / f"{name}.json"
        for command in commands:
            script, *words = shlex.split(command.format(**places, new=new))
            run = [sys.executable, str(ROOT / "benchmarks" / script), *words, "--out", str(fresh)]
            subprocess.run(run, check=True)
        named = {"data": "data", "models": "models", "group": "GROUP", "new": "NEW"}
        stamp(fresh, [command.format(**named) for command in commands])
        fresh.replace(out / fresh.name)


def read_journal(path):
    """Return what has run: file, commands and code of each line that is whole."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = set()
    for line in lines:
        try:
            done.add(tuple(json.loads(line)))
        except ValueError:  # cut off where the process was killed
            continue
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="data", help="folder with a folder per data set")
    parser.add_argument("--models", default="models", help="folder of the models")
    parser.add_argument("--group", help="folder of a control group that limits memory")
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--journal", type=Path, default=ROOT / "results_journal.jsonl")
    args = parser.parse_args()
    code = "skact", "benchmarks/*.py", "benchmarks/*.toml"
    if changed := git("status", "--porcelain", "--", *code):
        parser.error(f"results name a commit, so commit first:\n{changed}")
    places = {"data": args.data, "models": args.models, "group": args.group}
    done, failed = read_journal(args.journal), []
    for name in args.only or COMMANDS:
        commands = COMMANDS[name]
        line = (name, *commands, *map(code_of, commands))
        if line in done:
            print(f"{name}: done before", flush=True)
            continue
        if args.group is None and "{group}" in " ".join(commands):
            print(f"{name}: left out, it needs --group", file=sys.stderr, flush=True)
            continue
        print(f"{name}: {len(commands)} to run", flush=True)
        try:
            make(name, commands, args.out, places)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"{name}: failed with code {error.returncode}", file=sys.stderr, flush=True)
            continue
        with args.journal.open("a", encoding="utf-8") as journal:
            journal.write(f"\n{json.dumps(line)}\n")  # what was cut off before stays by itself
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the others are done and will not run again.")


if __name__ == "__main__":
    main()
