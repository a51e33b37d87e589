# SPDX-License-Identifier: Apache-2.0
"""What the package imports is what pyproject.toml declares: nothing comes along by chance with another package."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FROM_A_CHECKOUT = {"vlmeval"}
"""Not installed but run from a checkout of the user's, see third_party/README.md."""
NAMES = {"liger_kernel": "liger-kernel", "lmms_eval": "lmms-eval", "open_clip": "open-clip-torch"}
"""Distributions of imports from extras that may not be installed here."""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    found = (re.match(r"[\w.-]+", requirement) for requirement in [*project["dependencies"], *extras])
    return {_plain(match[0]) for match in found if match}


def _imported() -> dict[str, str]:
    """Top-level module of others -> a file that imports it, inside functions too."""
    found: dict[str, str] = {}
    for file in sorted((REPOSITORY / "unigen").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            else:
                continue
            for module in modules:
                found.setdefault(module.partition(".")[0], str(file.relative_to(REPOSITORY)))
    return {module: file for module, file in found.items() if module not in {*sys.stdlib_module_names, "unigen"}}


def test_every_import_of_another_package_is_declared() -> None:
    declared, installed, imported = _declared(), packages_distributions(), _imported()
    assert {"torch", "yaml", "fsspec"} <= imported.keys(), "imports are seen"
    undeclared = {
        module: file
        for module, file in imported.items()
        if module not in FROM_A_CHECKOUT
        and not declared & {_plain(name) for name in [*installed.get(module, []), NAMES.get(module, module)]}
    }
    assert undeclared == {}
