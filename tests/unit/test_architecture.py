"""The nevers of the house, by reading every import and call of mdl."""

from __future__ import annotations

import ast
import gc
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

from support.cases import each

import mdl

Node = TypeVar("Node", bound=ast.AST)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ROOT = Path(mdl.__file__).parent
LAYERS = [
    {"toml", "weights", "schemas"},
    {"disk", "version"},
    {"net"},
    {"config", "sources", "catalog", "runs", "archive"},
    {"downloader", "results"},
    {"console", "jobs"},
    {"network_access", "stores", "context", "local", "ops", "model_finder"},
    {"client", "api", "doctor", "demo"},
    {"cli", "plugins", "__main__"},
]
"""What may import what: a room imports rooms of its own layer and of those above it in this list. The files beside the
folders belong to the first one, the ground, unless they are named here."""

ONLY = {
    "typer": {"cli"},
    "rich": {"console/bars", "console/terminal"},
    "httpx": {"net"},
    "httpcore": {"net/connection", "net/tls", "net/transport"},
    "certifi": {"net/certificates"},
    "tomlkit": {"ops/edit_toml", "ops/edit_catalog"},
    "isal": {"archive/zip_records"},
    "starlette": {"plugins/serve"},
    "uvicorn": {"plugins/serve"},
    "h11": {"plugins/serve"},
    "boto3": {"sources/s3_client"},
    "botocore": {"sources/s3_client"},
    "huggingface_hub": {"sources/hub", "downloader/hub_client", "ops/push"},
}
_PURE = """
    bounds net/pagination describe formatting notebook paths urls weights/safetensors redact crc_json files
    events listener errors reports json_stream weights/end_records weights/junk weights/known_formats units values
    net/allowlist net/credentials net/headers net/pacer net/policy net/proxies
    net/ranges net/server_messages net/http_errors net/responses
    downloader/plan downloader/content_check downloader/connection_scaler
    downloader/__init__ downloader/download downloader/schedule downloader/segment
    sources/hub_origin sources/hub_protocol results/outputs results/answers results/answer_keys results/answer_names
    config/remotes jobs/job
    console/state console/remarks
    toml/__init__ toml/positions toml/table catalog/model catalog/parser catalog/targets catalog/lock
    catalog/choice_of_weights
    sources/gguf sources/url_origin archive/zip_records archive/manifest
    catalog/mirror_layout
    runs/default_excludes archive/secret_scan
    ops/export local/formats
    plugins/bundle/manifest plugins/render/work plugins/render/kubernetes plugins/render/slurm
    plugins/render/systemd plugins/render/cron
    plugins/fleet/report plugins/fleet/work
"""
PURE = {module for module in _PURE.split() if not module.startswith("plugins/") or (ROOT / f"{module}.py").exists()}
"""Those of plug-ins only if the plug-ins are here."""
VALUES = {"hashing", "__init__", "sources/__init__", "plugin"}
VALUES |= {f"plugins/{name}/__init__" for name in ("bundle", "fleet", "mirror", "render", "serve")}
"""What a pure room may import beside pure rooms: they have values and parsers, and what asks a server imports late."""
_IMPURE = "os io socket ssl shutil tempfile subprocess threading time random httpx sys"
_OPENING = "open read_text read_bytes write_text write_bytes exists stat lstat iterdir mkdir"
IMPURE, OPENING = set(_IMPURE.split()), set(_OPENING.split())

OF_CLI = {
    *("console", "jobs", "doctor", "demo", "plugin"),
    *("cancel", "config", "describe", "errors", "events", "formatting", "hashing", "paths"),
    *("disk", "redact", "schemas", "units", "values", "version"),
}
"""The rooms that the commands may import beside the public names of mdl."""


DOCUMENTED = {"os._exit", "sys._getframe", "_thread"}
"""What begins with an underscore and is in Python's documentation all the same."""
BY_NAME = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of mdl by its path below the package, without its ending."""
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 40
    gc.disable()  # nothing of 400,000 nodes is garbage, and looking for it takes twice as long as parsing
    try:
        return {str(file.relative_to(ROOT).with_suffix("")): ast.parse(file.read_text("utf-8")) for file in files}
    finally:
        gc.freeze()
        gc.enable()


@cache
def nodes(tree: ast.Module) -> dict[type[ast.AST], list[Any]]:
    """All nodes of a module, by their kind."""
    found: dict[type[ast.AST], list[Any]] = {}
    for node in (left := list[ast.AST]([tree])):  # half as long as `ast.walk`
        found.setdefault(type(node), []).append(node)
        for field in node._fields:
            value = getattr(node, field, None) if field != "ctx" else None
            if isinstance(value, list):
                left += [child for child in value if isinstance(child, ast.AST)]
            elif isinstance(value, ast.AST):
                left.append(value)
    return found


def of_kind(tree: ast.Module, kind: type[Node]) -> list[Node]:
    """The nodes of a module that are of that kind."""
    return nodes(tree).get(kind, [])


@cache
def imports(tree: ast.Module) -> tuple[str, ...]:
    """The dotted names a module imports anywhere, also late and for the type checker alone."""
    found = [alias.name for node in of_kind(tree, ast.Import) for alias in node.names]
    for node in of_kind(tree, ast.ImportFrom):
        assert node.level == 0
        assert node.module
        found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


@cache
def calls(tree: ast.Module) -> frozenset[str]:
    """The last word of everything a module calls."""
    functions = [node.func for node in of_kind(tree, ast.Call)]
    names = {function.id for function in functions if isinstance(function, ast.Name)}
    return frozenset(names | {function.attr for function in functions if isinstance(function, ast.Attribute)})


def module_of(name: str) -> str | None:
    """The module of mdl that an imported name is or is in."""
    parts = name.split(".")[1:] if name.split(".")[0] == "mdl" else None
    while parts:
        for path in ("/".join(parts), "/".join([*parts, "__init__"])):
            if path in trees():
                return path
        parts = parts[:-1]
    return None if parts is None else "__init__"


@cache
def inner(module: str) -> set[str]:
    """The modules of mdl that a module imports. The front door imports nothing until a name is asked for."""
    if module == "__init__":
        return set()
    return {found for name in imports(trees()[module]) if (found := module_of(name)) and found != module}


def room(module: str) -> str:
    return module.split("/")[0]


def layer(module: str) -> int:
    return next((number for number, rooms in enumerate(LAYERS) if room(module) in rooms), 0)


@each("library", ONLY)
def test_one_door_to_each_library(library: str) -> None:
    """Typer, Rich, httpx and the hub's client are each known in their own room alone."""
    users = {name for name, tree in trees().items() if any(i.split(".")[0] == library for i in imports(tree))}
    assert {user for user in users if not ({user, room(user), user.rpartition("/")[0]} & ONLY[library])} == set()


def test_imports_go_down() -> None:
    """A room imports only rooms of its own layer or of a lower one."""
    for module in trees():
        assert {other for other in inner(module) if layer(other) > layer(module)} == set(), module


def test_no_circle() -> None:
    """No module imports itself, however far round, and no room does."""
    assert list(TopologicalSorter({module: inner(module) for module in trees()}).static_order())
    rooms: dict[str, set[str]] = {}
    for module in trees():
        rooms.setdefault(room(module), set()).update(map(room, inner(module)))
    assert list(TopologicalSorter({name: others - {name} for name, others in rooms.items()}).static_order())


def test_the_command_line_uses_what_is_public() -> None:
    """What a command does is also in ``import mdl``: past the public names it knows no engine, catalog or archive."""
    names = {name for module in trees() if room(module) == "cli" for name in imports(trees()[module])}
    inside = {name.removeprefix("mdl.") for name in names if name.startswith("mdl.")}
    assert {name for name in inside if name.split(".")[0] not in {"cli", *OF_CLI, *mdl.__all__}} == set()


def test_the_two_stories_never_meet() -> None:
    """Download and sources know nothing of archive, nor it of them."""
    for module in trees():
        others = {room(other) for other in inner(module)}
        assert not (room(module) in ("downloader", "sources", "results") and others & {"archive", "runs"}), module
        assert not (room(module) in ("archive", "runs") and others & {"downloader", "sources", "results"}), module


def test_only_publish_gives_names() -> None:
    """Nothing else renames or replaces a file: every final name is given in one place."""
    for module, tree in trees().items():
        for node in of_kind(tree, ast.Attribute):
            if isinstance(node.value, ast.Name):
                gives = node.value.id in ("os", "shutil") and node.attr in ("replace", "rename", "renames", "move")
                assert not gives or module == "disk/publish", module
                links = node.value.id == "os" and node.attr in ("link", "symlink")
                assert not links or room(module) in ("disk", "doctor"), module
        assert "rename" not in calls(tree), module


def test_nobody_swallows_a_signal() -> None:
    """Code that catches everything, a stop too, raises it again or reports it as an error."""
    for module, tree in trees().items():
        for handler in of_kind(tree, ast.ExceptHandler):
            if handler.type is None or "BaseException" in _names(handler.type):
                names = {name for node in ast.walk(handler) for name in _names(node)}
                is_raised = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
                assert is_raised or handler.name in names, f"{module}:{handler.lineno}"


def _names(node: ast.AST) -> list[str]:
    return [one.id for one in ast.walk(node) if isinstance(one, ast.Name)]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def unevaluated(tree: ast.Module) -> set[int]:
    """The ids of the nodes in annotations, and of what is for the type checker alone."""
    roots: list[ast.AST | None] = [node.annotation for node in of_kind(tree, ast.arg)]
    roots += [node.annotation for node in of_kind(tree, ast.AnnAssign)]
    roots += [node.returns for node in of_kind(tree, ast.FunctionDef)]
    roots += [node.returns for node in of_kind(tree, ast.AsyncFunctionDef)]
    roots += [node for node in of_kind(tree, ast.If) if "TYPE_CHECKING" in _names(node.test)]
    return {id(node) for root in roots if root for node in ast.walk(root)}


def defined(tree: ast.Module) -> set[str]:
    """The names that a module gives by itself: to functions, classes and variables, and to attributes of ``self``."""
    names = {node.name for kind in DEFINITIONS for node in of_kind(tree, kind)}
    names |= {node.id for node in of_kind(tree, ast.Name) if isinstance(node.ctx, ast.Store)}
    stores = [node for node in of_kind(tree, ast.Attribute) if isinstance(node.ctx, ast.Store)]
    return names | {node.attr for node in stores if is_own(node.value)}


def is_own(node: ast.expr) -> bool:
    name = node.func if isinstance(node, ast.Call) and not node.args else node
    return isinstance(name, ast.Name) and name.id in (("self", "cls") if name is node else ("super",))


def private_names(tree: ast.Module, everywhere: set[str]) -> set[str]:
    """The names beginning with an underscore that a module takes of what is not its own.

    ``everywhere`` are the names that mdl's modules define: those it may take of ``self``, which may be of a class of
    another module. Of other objects it takes only names that it defines itself; and none at all if it imports a library
    from outside of Python, whose objects nothing here tells from mdl's.
    """
    has_library = any(name.split(".")[0] in ONLY for name in imports(tree))
    here = set() if has_library else defined(tree)
    found, passed = set[str](), unevaluated(tree)
    kinds = (ast.Attribute, ast.Import, ast.ImportFrom, ast.Call)
    for node in (node for kind in kinds for node in of_kind(tree, kind) if id(node) not in passed):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in (everywhere if is_own(node.value) else here):
                found.add(ast.unparse(node))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if any(map(is_private, alias.name.split(".")))}
        elif isinstance(node, ast.ImportFrom):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            found |= {str(node.module) for name in names if is_private(name)}
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
            texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if called in BY_NAME:
                found |= {text for text in texts if any(map(is_private, text.split(".")))}
    return found - DOCUMENTED


def test_no_private_name_of_a_library() -> None:
    """What a library may change without a word, mdl does not touch."""
    everywhere = set().union(*map(defined, trees().values()))
    found = {module: private_names(tree, everywhere) for module, tree in trees().items()}
    assert {module: names for module, names in found.items() if names} == {}


@each(
    ("code", "is_found"),
    [
        ("import httpx\npool._pool = 1", True),
        ("import httpx\nclass A(httpx.B):\n def f(self): return self._theirs", True),
        ("import httpx\nclass A:\n def f(self): self._own = self._own", False),
        ("class A:\n _own = 1\n def f(self, other): return other._own", False),
        ("def f(reader): reader._remaining = 0", True),
        ("def f(reader): return getattr(reader, '_remaining')", True),
        ("from operator import attrgetter\nattrgetter('state._reader')", True),
        ("from h11._readers import ContentLengthReader", True),
        ("import typer._completion_shared", True),
        ("def f(state: zlib._Decompress) -> zlib._Compress: ...", False),
        ("import os\nos._exit(1)", False),
    ],
)
def test_private_names_are_found(code: str, is_found: bool) -> None:
    """The test above finds what it is for, and nothing that is mdl's own."""
    tree = ast.parse(code)
    assert bool(private_names(tree, defined(tree))) == is_found


FACTS_OF_ERRORS = {
    *("item", "hint", "message", "exit_code", "so_far", "status_code", "server_code", "redirected", "final"),
}


def test_nobody_edits_an_error_of_another() -> None:
    """What an error says is what it was raised with: who knows more raises a copy (`Problem.but`). Secrets alone are
    taken out of the very error."""
    for module, tree in trees().items():
        stores = [node for node in of_kind(tree, ast.Attribute) if isinstance(node.ctx, ast.Store)]
        edited = {ast.unparse(node) for node in stores if node.attr in FACTS_OF_ERRORS and not is_own(node.value)}
        assert module == "redact" or edited == set(), module


def test_the_engine_changes_no_field_of_another() -> None:
    """In the downloader a field is set by a method of its own object: what that may become is read in one place."""
    for module, tree in trees().items():
        if module.startswith("downloader/"):
            stores = [node for node in of_kind(tree, ast.Attribute) if isinstance(node.ctx, ast.Store)]
            foreign = {ast.unparse(node) for node in stores if not is_own(node.value)}
            assert foreign == set(), module


def test_nothing_imports_a_plugin() -> None:
    """mdl without its plug-ins is whole: no module outside them imports one, and none of them another."""
    for module in trees():
        own = "/".join(module.split("/")[:2]) if room(module) == "plugins" else ""
        others = {other for other in inner(module) if room(other) == "plugins" and other != "plugins/__init__"}
        assert {other for other in others if not own or not other.startswith(f"{own}/")} == set(), module


def test_only_console_prints() -> None:
    """What anybody reads goes through the console."""
    for module, tree in trees().items():
        assert room(module) == "console" or "print" not in calls(tree), module


@each("module", sorted(PURE))
def test_pure_room_opens_nothing(module: str) -> None:
    """A pure room imports nothing that reaches outside the process, and opens no path."""
    tree = trees()[module]
    assert {name.split(".")[0] for name in imports(tree)} & IMPURE == set()
    assert calls(tree) & OPENING == set()
    assert {other for other in inner(module) if other not in PURE} <= VALUES


def test_no_process_wide_call_in_the_library() -> None:
    """Outside of the command line no module handles signals, ends the process, or writes to its streams."""
    wide = {("signal", "signal"), ("os", "_exit"), ("sys", "exit"), ("sys", "stdout")}
    for module, tree in trees().items():
        if room(module) not in ("cli", "console", "demo", "__main__"):
            taken = [node for node in of_kind(tree, ast.Attribute) if isinstance(node.value, ast.Name)]
            assert not {(node.value.id, node.attr) for node in taken} & wide, module  # type: ignore[attr-defined]


def test_hashing_opens_no_path() -> None:
    """Digests read what is open already: no name of a file is ever theirs to follow."""
    assert not set(calls(trees()["hashing"])) & OPENING
    assert "pathlib" not in set(imports(trees()["hashing"]))


def test_one_assignment_a_line() -> None:
    """Two names are assigned at once only when one value needs the other: a swap."""
    for module, tree in trees().items():
        for node in of_kind(tree, ast.Assign):
            if isinstance(node.value, ast.Tuple):
                if any(isinstance(value, ast.Starred) for value in node.value.elts):
                    continue
                targets = [one.elts for one in node.targets if isinstance(one, ast.Tuple)]
                names = {ast.unparse(name) for elements in targets for name in elements}
                values = {ast.unparse(one) for one in ast.walk(node.value) if isinstance(one, ast.Name | ast.Attribute)}
                assert not targets or names & values, f"{module}:{node.lineno}: {ast.unparse(node)}"


def test_one_condition_an_expression() -> None:
    """A conditional expression chooses between two; among three an ``if`` statement does."""
    for module, tree in trees().items():
        for node in of_kind(tree, ast.IfExp):
            inner_ones = [one for one in ast.walk(node) if isinstance(one, ast.IfExp) and one is not node]
            assert inner_ones == [], f"{module}:{node.lineno}"


def test_no_utils() -> None:
    """There is no room for what has no place."""
    assert not [module for module in trees() if module.split("/")[-1] in ("utils", "helpers", "common")]


def test_every_module_says_what_it_is() -> None:
    """Each module begins with a docstring."""
    assert [module for module, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_every_public_class_says_what_it_is() -> None:
    """Each class that `import mdl` offers has a docstring of its own; a dataclass is given one by Python."""
    for name in mdl.__all__:
        public = getattr(mdl, name)
        if isinstance(public, type):
            assert public.__doc__, name
            assert not public.__doc__.startswith(f"{name}("), name


def test_the_glossary_is_short_and_of_this_code() -> None:
    """Every word of the glossary is one of the code: none stays behind when its thing has gone."""
    text = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8").partition("## Glossary")[2]
    words = re.findall(r"^\| \*\*(.+?)\*\*", text, re.MULTILINE)
    source = " ".join((ROOT / f"{module}.py").read_text("utf-8").lower() for module in trees())
    assert 40 < len(words) < 80
    rare = [word for word in words if f" {word.lower()}" not in source]
    assert [word for word in rare if not re.search(rf"\b{re.sub('[ -]', '[ _-]?', word.lower())}", source)] == []
