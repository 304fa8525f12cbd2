"""What ptft shows: one name for one thing, ``__all__`` for what others import, and no test that
reaches behind it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

# Two places, one meaning: a verb of the command line, as a function of `import ptft`, and as what
# does it; the entry points of processes.
ONE_MEANING = {
    "command": "each verb's own, in ptft/cli",
    "EXAMPLE": "of each verb's help",
    "T": "a type variable",
    "app": "what typer makes of ptft, and of ptft data",
    "main": "of a process",
    "evaluate": "ptft.evaluate, what `import ptft` offers, and what does it",
    "load_model": "likewise",
    "pack": "ptft data pack, and what does it",
    "train": "ptft.train, what `import ptft` offers, and what does it",
}


def modules(repo: Path, *packages: str) -> dict[str, ast.Module]:
    """Dotted name -> tree of each module."""
    found = {}
    for package in packages:
        for path in sorted((repo / package).rglob("*.py")):
            parts = path.relative_to(repo).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def ours(repo: Path) -> dict[str, ast.Module]:
    return modules(repo, "ptft", "serving")


def assigned(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            found = (node for target in targets for node in ast.walk(target))
            yield from (node.id for node in found if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def exported(tree: ast.Module) -> list[str] | None:
    """``__all__``, if there is one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and "__all__" in assigned(node):
            return list(ast.literal_eval(node.value))
    return None


def test_a_public_name_has_one_meaning(ours: dict[str, ast.Module]) -> None:
    places = defaultdict(list)
    for module, tree in ours.items():
        for name in {name for node in tree.body for name in assigned(node) if name[0] != "_"}:
            if module.startswith("ptft"):
                places[name].append(module)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in ONE_MEANING} == {}
    assert twice.keys() == ONE_MEANING.keys(), "allowed for nothing"


def test_all_says_what_a_module_offers(ours: dict[str, ast.Module]) -> None:
    """A package that imports, and a module that defines, says what of it is for others."""
    wrong = []
    for module, tree in ours.items():
        names = exported(tree)
        defined = {name for node in tree.body for name in assigned(node) if name[0] != "_"}
        imports = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
        }
        if names is None:
            wrong += [f"{module}: no __all__"] if defined else []
            continue
        here = defined | imports | {name.rpartition(".")[2] for name in ours if module in name}
        wrong += [f"{module}: {name}" for name in names if name not in here | {"__version__"}]
        wrong += [f"{module}: {name} twice" for name in set(names) if names.count(name) > 1]
    assert wrong == []


def test_what_others_import_is_in_all(ours: dict[str, ast.Module]) -> None:
    hidden = []
    for module, tree in ours.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("ptft", "serv")
            ):
                names = exported(ours[node.module or ""]) or []  # KeyError: there is no such module
                hidden += [
                    f"{module}: {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name not in names and f"{node.module}.{alias.name}" not in ours
                ]
    assert hidden == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def reached_behind(tree: ast.Module) -> Iterator[str]:
    """Private names of others that a module imports, patches or sets."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith(("ptft", "serving")):
                yield from (alias.name for alias in node.names if is_private(alias.name))
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=[first, *rest]):
                named = first if isinstance(first, ast.Constant) else next(iter(rest), first)
                if isinstance(named, ast.Constant) and isinstance(named.value, str):
                    yield from filter(is_private, [named.value.rpartition(".")[2]])
            case ast.Call(func=ast.Attribute(attr="setitem" | "delitem"), args=[what, *_]):
                if isinstance(what, ast.Attribute):
                    yield from filter(is_private, [what.attr])
            case ast.Attribute(attr=name, ctx=ast.Store(), value=owner) if is_private(name):
                if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls")):
                    yield name


def test_no_test_reaches_behind_what_is_public(repo: Path) -> None:
    tests = {
        name: tree
        for name, tree in modules(repo, "tests").items()
        if not name.startswith(
            "tests.bench"
        )  # which take a part of ptft away, to see what it costs
    }
    assert {name: found for name, tree in tests.items() if (found := [*reached_behind(tree)])} == {}


def test_helpers_of_several_tests_lie_in_support(repo: Path) -> None:
    lent = [
        f"{name}: {node.module}"
        for name, tree in modules(repo, "tests").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tests.")
        and (node.module or "").rpartition(".")[2].startswith("test_")
    ]
    assert lent == []


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring left out."""
    first = node.body[0]
    inner = first.value if isinstance(first, ast.Expr) else None
    documented = isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    words = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - words


def test_a_file_and_a_function_can_be_read_at_once(repo: Path) -> None:
    """350 lines of a file, 60 of a function; where it has more, a line says why."""
    long = []
    for path in (p for name in ("ptft", "serving", "tests") for p in (repo / name).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        if len(lines) > 350:
            long.append(f"{path.relative_to(repo)}: {len(lines)} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > 60:
                inside = lines[node.lineno : node.end_lineno]
                if not any("# Over 60 lines: " in line for line in inside):
                    long.append(f"{path.relative_to(repo)}: {node.name}: {code_lines(node)} lines")
    assert not long
