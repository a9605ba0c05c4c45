"""Print the oldest versions that a project allows, as constraints; torch stays as constrained."""

import re
import sys
import tomllib
from pathlib import Path

project, constraints = (Path(name).read_text(encoding="utf-8") for name in sys.argv[1:3])
for requirement in tomllib.loads(project)["project"]["dependencies"]:
    name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
    if name != "torch":
        print(f"{name}=={version}.*")
print(constraints)
