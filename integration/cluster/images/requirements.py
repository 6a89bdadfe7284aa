"""Print the requirements of the project and of one of its extras, beside pyproject.toml: `requirements.py EXTRA`."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"], *project["optional-dependencies"][sys.argv[1]]]
sys.stdout.write("\n".join(wanted) + "\n")
