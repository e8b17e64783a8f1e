"""The package as a whole: imports go one way, third parties have one door, every name is explained."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import jail

PACKAGE = Path(jail.__file__).parent

LAYERS = (
    ("jail",),
    (
        "jail.capture",
        "jail.destinations",
        "jail.errors",
        "jail.host",
        "jail.layers",
        "jail.libc",
        "jail.limits",
        "jail.locks",
        "jail.outcome",
        "jail.processors",
        "jail.published",
        "jail.scheduler",
    ),
    ("jail.judging",),
    (
        "jail.cgroup",
        "jail.ids",
        "jail.image",
        "jail.namespace",
        "jail.policy",
        "jail.pool",
        "jail.privileges",
        "jail.result",
        "jail.rlimits",
        "jail.settings",
    ),
    ("jail.spec",),
    ("jail.delegation", "jail.instance", "jail.keeper", "jail.languages", "jail.outputs", "jail.shed"),
    ("jail.files", "jail.images", "jail.network", "jail.supervisor"),
    ("jail.catalogue",),
    ("jail.stock",),
    ("jail.boxes",),
    ("jail.egress", "jail.plan", "jail.sandbox"),
    ("jail.filters",),
    ("jail.process",),
    ("jail.run", "jail.steps"),
    ("jail.engine",),
    ("jail.languages.requests",),
    ("jail.languages.toolchains",),
    ("jail.problems",),
    ("jail.doctor", "jail.http"),
    ("jail.cli",),
    ("jail.__main__",),
)
"""From the bottom up: a module imports from the layers beneath its own, and from no other.

A package stands for all that is in it.
"""

DOORS = {
    "cffi": (),
    "click": ("jail.cli",),
    "h11": ("jail.http.exchange",),
    "httptools": (),
    "httpx": ("jail.images.registry",),
    "jail._protocol": ("jail.judging", "jail.keeper", "jail.supervisor"),
    "msgspec": ("jail",),
    "prometheus_client": ("jail.http.metrics",),
    "pyroute2": ("jail.network",),
    "pyseccomp": ("jail.policy.binding",),
    "rich": ("jail.cli",),
    "seccomp": ("jail.policy.binding",),
    "starlette": ("jail.http",),
    "structlog": ("jail.cli", "jail.http"),
    "uvicorn": ("jail.cli",),
    "uvloop": ("jail.cli", "jail.doctor.trial"),
    "websockets": ("jail.cli.websocket",),
    "yaml": ("jail.problems.documents",),
    "zstandard": ("jail.images.compression",),
}
"""Who may import a third party: these modules, and those in these packages."""

ENVIRONMENT = ("jail.cli.systemd", "jail.delegation", "jail.settings", "jail.shed")
"""Settings read it. Delegation hands it on to the process that it becomes, and shed empties it.

A service manager says in it what it hands over.
"""

NOT_CONSTANT = {
    # A script: nobody imports it.
    "jail.doctor.probe": {"_libc"},
}

REMEMBERED = {
    # A module, which Python itself remembers in the same way.
    "jail.policy.binding": ["libseccomp"],
    # Made of installed files alone, and loaded twice at start.
    "jail.shed": ["_program"],
}

MUTATORS = {
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "setdefault",
    "update",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def texts(path: Path) -> set[str]:
    return {node.value for node in ast.walk(tree(path)) if isinstance(getattr(node, "value", 0), str)}


def imported(module: str) -> Iterator[str]:
    """The full names that a module imports, of modules where they are modules."""
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            # import_module() may be given a variable: every text of the module that is a name counts.
            yield from DOORS.keys() & texts(MODULES[module])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def is_within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def place(module: str) -> str:
    """The module or package of LAYERS that it belongs to."""
    found = [name for layer in LAYERS for name in layer if is_within(module, (name,))]
    return max(found, key=len)


def height(module: str) -> int:
    return next(n for n, layer in enumerate(LAYERS) if place(module) in layer)


def ours(module: str) -> set[str]:
    return {name for name in imported(module) if name in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_place_among_the_layers(module):
    assert module == "jail" or place(module) != "jail"


def test_the_layers_name_nothing_that_is_not_there():
    assert {name for layer in LAYERS for name in layer} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    up = {name for name in ours(module) if place(name) != place(module) and height(name) >= height(module)}
    assert up == set()


def test_no_import_comes_back_to_where_it_began():
    # A package's own __init__ gathers its modules; what they import of each other must not loop.
    graph = {module: ours(module) - {module} for module in MODULES}
    while leaves := [module for module, needs in graph.items() if not needs & set(graph)]:
        for module in leaves:
            del graph[module]
    assert graph == {}


@pytest.mark.parametrize("module", MODULES)
def test_a_third_party_comes_in_by_its_door(module):
    for name in imported(module):
        party = "jail._protocol" if name.startswith("jail._protocol") else name.partition(".")[0]
        if party == "jail" or party in sys.stdlib_module_names:
            continue
        assert party in DOORS, f"{party} has no door"
        assert is_within(module, DOORS[party]), f"{party} comes in by {module}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(ENVIRONMENT)))
def test_the_environment_is_read_elsewhere(module):
    for node in ast.walk(tree(MODULES[module])):
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        names += [node.attr] if isinstance(node, ast.Attribute) else []
        assert not {"environ", "environb", "getenv", "putenv"} & set(names)


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """The public classes and functions in a module or a class, and those in them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_says_what_it_promises(module):
    named = {"the module": tree(MODULES[module]), **dict(public(tree(MODULES[module])))}
    assert [name for name, node in named.items() if not ast.get_docstring(node)] == []


def targets(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        yield from ((t.id, statement.value) for t in statement.targets if isinstance(t, ast.Name))
    elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        yield statement.target.id, statement.value


def is_constant(name: str, value: ast.expr) -> bool:
    # A type is written like a class: `Open = Callable[[str], Awaitable[int]]`, `Node = int | Decision`.
    makes_type = isinstance(value, (ast.Subscript, ast.Call, ast.BinOp))
    is_type = makes_type and re.fullmatch("_?[A-Z][A-Za-z]*", name)
    return bool(is_type or re.fullmatch("_?[A-Z][A-Z0-9_]*|__[a-z]+__", name))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_holds_constants_only(module):
    known = NOT_CONSTANT.get(module, set())
    names = [
        name
        for statement in tree(MODULES[module]).body
        for name, value in targets(statement)
        if not is_constant(name, value) and name not in known
    ]
    assert names == []


def changes(node: ast.AST) -> Iterator[str]:
    """The names of constants that this piece of a function changes."""
    if isinstance(node, ast.Global):
        yield from node.names
    elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield getattr(node.value, "id", "")
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in MUTATORS:
        yield getattr(node.func.value, "id", "")


def remembers(node: ast.AST) -> bool:
    """Whether a function keeps what it found: a cache is state of the module as well."""
    decorators = [getattr(d, "func", d) for d in getattr(node, "decorator_list", [])]
    return any(ast.unparse(d).split(".")[-1] in ("cache", "lru_cache") for d in decorators)


@pytest.mark.parametrize("module", MODULES)
def test_no_function_changes_what_the_module_holds(module):
    functions = [node for node in ast.walk(tree(MODULES[module])) if isinstance(node, FUNCTIONS)]
    changed = {name for f in functions for node in ast.walk(f) for name in changes(node)}
    assert {name for name in changed if re.fullmatch("_?[A-Z][A-Z0-9_]*", name)} == set()
    assert [f.name for f in functions if remembers(f)] == REMEMBERED.get(module, [])
