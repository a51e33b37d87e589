# SPDX-License-Identifier: Apache-2.0
"""The rooms import one way, and every file keeps the house rules."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "unigen"
# Left to right: a room may import itself and the rooms to its left.
ROOMS = ["config", "sequence", "data", "models", "objectives", "generation", "rewards"]
BESIDE_EACH_OTHER = ["training", "evaluation", "annotation"]
MAY_IMPORT = {
    **{room: set(ROOMS[: place + 1]) for place, room in enumerate(ROOMS)},
    **{room: {*ROOMS, room} for room in BESIDE_EACH_OTHER},
    "bench": {*ROOMS, *BESIDE_EACH_OTHER, "reference", "bench"},  # alone with the tests in importing the slow twins
    "runs": {"config", "training", "evaluation", "runs"},  # looks at what training and evaluation left on disk
    "cli": {*ROOMS, *BESIDE_EACH_OTHER, "bench", "runs", "cli"},
    "reference": {*ROOMS, "reference"},
    "__main__": {"cli"},
    "__init__": {"generation"},  # the Python API, imported when it is asked for
}
FREE_FOR_ALL = {"errors", "environment"}
MAY_IMPORT["models"] -= {"data"}
MAY_IMPORT["objectives"] -= {"models", "data"}
MAX_LINES = 400
FILES = sorted(PACKAGE.rglob("*.py"))


def _room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(file: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of this package, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"unigen.<relative import of {node.module}>"]
        else:
            continue
        for name in names:
            if name.startswith("unigen."):
                yield node.lineno, name.split(".")[1]


def test_imports_go_one_way() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)}:{line} imports {imported}"
        for file in FILES
        for line, imported in _imported_rooms(file)
        if imported not in FREE_FOR_ALL and imported not in MAY_IMPORT.get(_room(file), set())
    ]
    assert wrong == []


def test_the_rule_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "loss.py"
    file.write_text("def loss():\n    from unigen.models.language import build\n    import unigen.data.batch\n")
    assert list(_imported_rooms(file)) == [(2, "models"), (3, "data")]
    assert not {"models", "data"} & MAY_IMPORT["objectives"]


def test_every_room_is_known_to_the_rule() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT)


def test_only_the_command_line_prints() -> None:
    prints = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in FILES
        if _room(file) != "cli"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_every_file_with_content_states_its_licence_and_what_it_holds() -> None:
    bare = []
    for file in [*FILES, *sorted((PACKAGE.parent / "tests").rglob("*.py"))]:
        text = file.read_text(encoding="utf-8")
        if text and not (
            text.startswith("# SPDX-License-Identifier: Apache-2.0\n") and ast.get_docstring(ast.parse(text))
        ):
            bare.append(str(file.relative_to(PACKAGE.parent)))
    assert bare == []


def test_no_file_is_too_long_to_read() -> None:
    assert [str(file) for file in FILES if len(file.read_text(encoding="utf-8").splitlines()) > MAX_LINES] == []


def test_no_room_has_content_in_its_init() -> None:
    public = {PACKAGE, PACKAGE / "rewards"}  # whose first page names what users write code against
    inits = [file for file in FILES if file.name == "__init__.py" and file.parent not in public]
    assert [str(file) for file in inits if file.read_text(encoding="utf-8").strip()] == []
