"""The direction of imports: parsed from the source, and tried in a fresh interpreter.

Imports at the top of a module and imports inside functions (deferred, so that a module stays cheap to
import) obey the same order. Imports under `if TYPE_CHECKING` cost nothing and are left out, but where circles
are looked for.
"""

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import ocr_interp

PACKAGE = Path(ocr_interp.__file__).parent
ORDER = (
    "errors",
    "registry",
    "checks",
    "naming",
    "fact_tables",
    "triples",
    "task",
    "layouts",
    "devices",
    "data",
    "storage",
    "running",
    "linalg",
    "theory",
    "maps",
    "optim",
    "configuration",
    "hooked",
    "stream",
    "models",
    "circuits",
    "training",
    "sweeps",
    "graphs",
    "ablation",
    "discovery",
    "comparison",
    "mitigation",
    "viz",
    "llm",
    "cli",
)
HEAVY = ("torch", "transformer_lens")
WITHOUT_TORCH = (
    "ocr_interp",
    "errors",
    "registry",
    "checks",
    "configuration",
    "naming",
    "fact_tables",
    "triples",
    "task",
    "layouts",
    "theory",
    "llm.adapters",
    "llm.facts",
    "llm.training.configuration",
    "cli.llm",
)


@cache
def modules():
    """Dotted name inside the package ("" is its root) -> path."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(part for part in parts if part != "__init__")] = path
    return named


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(tree, deferred=True, typed=False):
    """(module, name) of every import; those inside functions too, unless deferred is False.

    Those that only type checkers see are left out unless typed is True.
    """
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        if is_type_checking(node) and not typed:
            stack.extend(node.orelse)
            continue
        if not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the house writes imports in full"
            found += [(node.module, alias.name) for alias in node.names]
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):  # imports are no expressions
            stack.extend(getattr(node, block, ()))
    return found


@cache
def parsed(name):
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


@cache
def own_imports(name, deferred=True, typed=False):
    """Modules of the package, by dotted name, that a module imports ("" is the root)."""
    targets, known = set(), modules()
    for module, attribute in imported(parsed(name), deferred, typed):
        if module != "ocr_interp" and not module.startswith("ocr_interp."):
            continue
        inner = module.removeprefix("ocr_interp").removeprefix(".")
        whole = f"{inner}.{attribute}".strip(".")
        targets.add(whole if whole in known else inner)
    return targets


@cache
def foreign_imports(name, deferred=True):
    """First parts of the other packages that a module imports."""
    return {m.split(".")[0] for m, _ in imported(parsed(name), deferred)} - {"ocr_interp"}


def rank(name):
    return ORDER.index(name.split(".")[0])


@pytest.mark.parametrize("name", [m for m in modules() if m])
def test_every_module_imports_only_what_stands_above_it(name):
    assert name.split(".")[0] in ORDER, "a new room of the house: give it its place in ORDER"
    for target in own_imports(name):
        assert target, f"{name} imports the package's root, whose names are for users"
        same_room = target.split(".")[0] == name.split(".")[0]
        assert same_room or rank(target) < rank(name), f"{name} imports {target}, which stands below it"


@cache
def siblings():
    """Folder -> its children (files and folders) with what each imports of the others, deferred or not."""
    found = {}
    for name in modules():
        if not name:
            continue
        parts = name.split(".")
        for depth in range(len(parts)):
            folder, child = ".".join(parts[:depth]), parts[depth]
            edges = found.setdefault(folder, {}).setdefault(child, set())
            for target in own_imports(name, typed=True):
                of_target = target.split(".")
                if target and of_target[:depth] == parts[:depth] and len(of_target) > depth:
                    edges.add(of_target[depth])
    return found


def folders():
    parts = [name.split(".") for name in modules() if name]
    return sorted({".".join(each[:depth]) for each in parts for depth in range(len(each))})


@pytest.mark.parametrize("folder", folders())
def test_no_circle_among_the_files_and_folders_of_a_folder(folder):
    """Deferred imports count, and those for type checkers: a circle that hides is a circle."""
    edges = siblings()[folder]
    done: set[str] = set()
    while len(done) < len(edges):
        free = {name for name, targets in edges.items() if name not in done and targets - {name} <= done}
        assert free, f"a circle among {sorted(set(edges) - done)}"
        done |= free


@pytest.mark.parametrize("folder", folders())
def test_a_folder_is_seen_at_a_glance(folder):
    files = [child for child in siblings()[folder] if f"{folder}.{child}".strip(".") in modules()]
    assert len(files) <= (12 if folder else len(ORDER))


def test_the_root_imports_nothing_of_the_package_at_import():
    assert own_imports("") == set()
    assert foreign_imports("") <= {"lazy_loader", "typing"}


def closure(name):
    """Modules of the package that come along when a module is imported, itself and parents included."""
    seen, todo = set(), {name}
    while todo:
        module = todo.pop()
        seen.add(module)
        parents = {module.rpartition(".")[0]} if "." in module else set()
        todo |= (own_imports(module, deferred=False) | parents) - seen
    return seen


def light():
    first = tuple(name for name in WITHOUT_TORCH if name != "ocr_interp")
    return [m for m in modules() if any(m == name or m.startswith(f"{name}.") for name in first)]


@pytest.mark.parametrize("name", ["cli", *light()])
def test_theory_and_configurations_import_no_torch(name):
    for module in closure(name):
        assert not foreign_imports(module, deferred=False) & set(HEAVY), f"{name} needs {module}"
    if name.startswith("theory"):
        assert not foreign_imports(name) & set(HEAVY), "not even inside a function"


@pytest.mark.parametrize("name", [m for m in modules() if m.split(".")[0] == "viz"])
def test_viz_has_no_model_code(name):
    """Result objects may come from anywhere, but neither a model nor what a model is made of."""
    assert not foreign_imports(name) & set(HEAVY)
    assert not {t for t in own_imports(name) if t.split(".")[0] in ("models", "llm", "data", "devices")}


def test_only_one_module_knows_the_class_hooked_transformer():
    users = {
        name
        for name in modules()
        for module, attribute in imported(parsed(name))
        if module.split(".")[0] == "transformer_lens"
        and (attribute is None or attribute.startswith("HookedTransformer"))
    }
    assert users == {"models.hooked39"}


def test_only_the_command_line_knows_the_language_models():
    users = {name for name in modules() if name and any(t.split(".")[0] == "llm" for t in own_imports(name))}
    assert {name.split(".")[0] for name in users} <= {"llm", "cli"}


NAMESPACES = [name for name in modules() if (PACKAGE / name.replace(".", "/") / "__init__.pyi").is_file()]


@pytest.mark.parametrize("name", NAMESPACES)
def test_every_name_of_a_namespace_is_there(name):
    """Names come from the stubs that type checkers read; each is what its module defines."""
    namespace = importlib.import_module(f"ocr_interp.{name}".rstrip("."))
    stub = PACKAGE / name.replace(".", "/") / "__init__.pyi"
    lines = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    named = {alias.asname or alias.name: node.module for node in lines for alias in node.names}
    assert set(named) == set(namespace.__all__)
    for attribute, home in named.items():
        inner = ".".join(part for part in ("ocr_interp", name, home or "") if part)
        found, module = getattr(namespace, attribute), importlib.import_module(inner)
        assert found is getattr(module, attribute), attribute


def test_the_root_is_small_and_says_where_the_rest_is():
    folders = {module.split(".")[0] for module in modules()}
    assert len([name for name in ocr_interp.__all__ if name not in folders]) <= 20
    with pytest.raises(AttributeError, match=r"no attribute 'Train'; it has .*train"):
        ocr_interp.Train  # noqa: B018
    for name, home in ocr_interp._MOVED.items():
        with pytest.raises(AttributeError, match=f"has moved: from {home} import {name}"):
            getattr(ocr_interp, name)
        assert name in importlib.import_module(home).__all__
    with pytest.raises(AttributeError, match=r"PathPatch is gone: write ocr_interp\.ablation\.Patch"):
        ocr_interp.PathPatch  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import ocr_interp; dir(ocr_interp)",
        "import ocr_interp.task; ocr_interp.task.FactRecallTask().triples",
        "import ocr_interp.configuration.model",
        "import ocr_interp.configuration.training",
        "from ocr_interp import llm; dir(llm); llm.LLMRunConfig(); llm.make_facts(llm.FactConfig())",
        "from ocr_interp import llm; llm.FinetuneConfig(method='lora'); llm.methods['lora'].options",
        "from ocr_interp import FactRecallTask, ModelConfig, RunConfig, TrainConfig",
        "; ".join(f"import ocr_interp.{name}" for name in modules() if name.split(".")[0] == "theory"),
    ],
)
def test_a_fresh_interpreter_does_not_load_torch(statement):
    check = f"import sys; {statement}; print(sorted({HEAVY!r} & sys.modules.keys()))"
    check = check.replace(repr(HEAVY), repr(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_training_does_not_load_transformer_lens():
    """It takes seconds to import: only who asks for the model pays."""
    check = "import sys, ocr_interp.training.loop; print('transformer_lens' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_folder_is_looked_at():
    assert set(folders()) == set(siblings())
