"""The paper's protocol on public data by ``skact paper``, one setup of ``public.toml`` at a time.

    python benchmarks/paper.py --setup NAME --data FOLDER
        [--model FOLDER_OR_NAME] [--file SETUPS.toml] [--folder RUN] [--out RESULT.json]

FOLDER holds a folder for each data set: texts with spans (``samples.jsonl``) or images with masks
(``index.jsonl``), split into train, cal and test. The tables are those that
``skact paper benchmarks/public.toml --data FOLDER`` writes: test F1 of each concept method and
detector with intervals and the floor of saying yes to everything, what the claims of the paper
come to, and where the setup asks for it the answers of a chat model. Of a setup with localization
the result is how its maps are judged, and the seconds that each method takes. A run that was
stopped goes on where it was if it is given the same folder again.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from common import short, write_json

from skact.protocol import read_configuration, run

FILE = Path(__file__).with_name("public.toml")


def configured(file, name, data, model):
    """Read the configuration of one setup alone, with another copy of its model if one is given."""
    whole = read_configuration(file, data=data)
    setups = {one.name: one for one in whole.setup}
    if name not in setups:
        raise SystemExit(f"{file} has no setup {name!r}; it has {', '.join(setups)}.")
    setup = setups[name]
    if model:
        asked = setup.prompting and replace(setup.prompting, model=model)
        setup = replace(setup, model=model, prompting=asked)
    return replace(whole, setup=[setup])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def collected(folder, setup):
    """Put together what a run has found."""
    return judged(folder, setup) if setup.localization else detected(folder, setup)


def detected(folder, setup):
    """Put together the table of detection, claims and answers."""
    found = {
        kind: read(path)
        for kind in ("analyses", "prompting")
        if (path := folder / f"{setup.name}.{kind}.json").exists()
    }
    claims = {
        claim: said
        for one in found.get("analyses", {}).values()
        if isinstance(one, dict)
        for claim, said in one.get("claims", {}).items()
    }
    answers = {
        scores: {key: value for key, value in one.items() if key != "predicted"}
        for scores, one in found.get("prompting", {}).items()
        if scores in ("answer", "logits")
    }
    detection = read(folder / f"{setup.name}.json")
    return {**detection, "claims": claims, "prompting": answers}


def judged(folder, setup):
    """Put together how maps are judged; seconds are in the steps, of which tables have none."""
    made = read(folder / f"{setup.name}.json")
    steps = folder / "steps" / setup.name / "localization"
    found = {name: read(steps / f"{name}.json") for name in setup.localization.methods}
    about = {key: made[key] for key in ("data", "model", "revision", "data_digest", "python")}
    own = {name: version(name) for name in ("captum", "shapiq")}
    return {
        **about,
        "versions": made["versions"] | own,
        "settings": asdict(setup.localization),
        **read(steps / "about.json"),
        "table": [line for one in found.values() for line in one["table"]],
        "gain_of_local": {name: one["gain_of_local"] for name, one in found.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--setup", required=True, help="name of a setup of the file")
    parser.add_argument("--data", required=True, help="folder with a folder per data set")
    parser.add_argument("--model", help="folder or name in place of that of the setup")
    parser.add_argument("--file", type=Path, default=FILE, help="the setups")
    parser.add_argument("--folder", type=Path, help="of the run, to go on with if it was stopped")
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    configuration = configured(args.file, args.setup, args.data, args.model)
    with tempfile.TemporaryDirectory() as other:
        folder = args.folder or Path(other)
        start = time.perf_counter()
        resume = (folder / "journal.jsonl").exists()
        for table in run(configuration, folder, resume=resume, progress=True):
            print(table.read_text(encoding="utf-8"))
        print(f"{time.perf_counter() - start:.0f} s")
        found = collected(folder, configuration.setup[0])
    if args.out:
        model = short(configuration.setup[0].model)
        command = f"python benchmarks/paper.py --setup {args.setup} --data data --model {model}"
        write_json(args.out, {"command": command, **found})


if __name__ == "__main__":
    main()
