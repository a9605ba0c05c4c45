"""What --dry-run says against what runs take, at several sizes: passes, bytes, hours.

    python benchmarks/dry_run.py [--samples N ...] [--out RESULT.json]

Rendered solids, the model of the package, three layers, linear separators and mean prototypes, all
detectors, 1000 resamples; one process on one core. Seconds are those of the process, so that what
else the machine does counts for nothing.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from common import write_json

from skact import ActivationStore
from skact.protocol import Configuration, Setup, dry_run, run

METHODS = ["LinearSeparator", "MeanPrototype"]


def compare(n_samples):
    """Predict a run, and run it."""
    setup = Setup("solids", "shapes", "shapes", n_samples, layers=[1, 3, 5], methods=METHODS)
    configuration = Configuration([setup])
    start = time.process_time()
    (said,) = dry_run(configuration, clock=time.process_time)
    calibrated = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run(configuration, folder)
        took = time.process_time() - calibrated
        n_bytes = ActivationStore(Path(folder) / "store").info()["bytes"]
    seconds = 3600 * (said.embedding_hours + said.cells_hours)
    return {
        "samples": n_samples,
        "bytes": {"predicted": said.n_bytes, "written": n_bytes},
        "seconds": {"predicted": round(seconds, 1), "measured": round(took, 1)},
        "error": round(seconds / took - 1, 3),
        "seconds_of_dry_run": round(calibrated - start, 1),
        "samples_of_dry_run": said.calibration,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[400, 1200, 3600])
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = {"command": "python benchmarks/dry_run.py", "sizes": []}
    for n_samples in args.samples:
        result["sizes"].append(compare(n_samples))
        print(result["sizes"][-1], flush=True)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
