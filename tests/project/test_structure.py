"""Checks the structure: one-way imports, small documented files, settings as the only reader of variables."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A module may import from the modules of its own row and of the rows above.
LAYERS = [
    ["service", "service.errors"],
    ["service.settings", "service.tracing", "service.process_memory"],
    ["service.address", "service.connection", "service.restarts", "service.runfolder"],
    ["service.engine"],
    ["service.engine.boundaries", "service.engine.cpu", "service.engine.memory"],
    ["service.engine.parameters", "service.engine.probes"],
    ["service.engine.artifact"],
    ["service.engine.kernel"],
    ["service.engine.tokenization"],
    ["service.engine.windowing"],
    ["service.engine.session"],
    ["service.engine.spans"],
    ["service.engine.decoding"],
    ["service.engine.answering"],
    ["service.pipeline"],
    ["service.public.qa_onnx"],
    ["service.batching"],
    ["service.guard", "service.json_log", "service.telemetry", "service.compression", "service.static_files"],
    ["service.schemas", "service.metrics", "service.problems"],
    ["service.parsed", "service.bodies", "service.paths", "service.page"],
    ["service.predict"],
    ["service.protocols.route"],
    ["service.protocols.native", "service.protocols.tensors"],
    ["service.protocols.open_inference_messages"],
    [
        "service.protocols.huggingface",
        "service.protocols.open_inference",
        "service.protocols.sagemaker",
        "service.protocols.vertex",
    ],
    ["service.protocols"],
    ["service.openapi"],
    ["service.docs"],
    ["service.loading"],
    ["service.app"],
    ["service.server_log", "service.unread"],
    ["service.master"],
    ["service.worker"],
    ["service.gunicorn_conf"],
    ["service.bench"],
    ["service.bench.arguments", "service.bench.workload", "service.bench.machine"],
    ["service.bench.targets", "service.bench.load"],
    ["service.bench.callers", "service.bench.connections", "service.bench.page"],
    ["service.bench.run", "service.bench.soak"],
    ["service.bulk"],
    ["service.bulk.task"],
    ["service.bulk.arguments", "service.bulk.rows"],
    ["service.bulk.lines", "service.bulk.parquet", "service.bulk.squad", "service.bulk.table"],
    ["service.bulk.formats", "service.bulk.journal", "service.bulk.progress", "service.bulk.write"],
    ["service.bulk.answer"],
    ["service.bulk.cluster"],
    ["service.bulk.run"],
    ["service.__main__"],
]
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
BUILD_SIDE = {"export", "torch", "transformers", "optimum", "onnx", "huggingface_hub"}
WEB = {"gunicorn", "werkzeug", "flask"}
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def modules(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[str]:
    """Every module named by an import statement, anywhere in the file; `from a import b` names a.b
    if that is a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in RANK else node.module


def rank(module: str) -> int | None:
    """Rank of a service module; of its nearest listed parent for packages below one."""
    while module:
        if module in RANK:
            return RANK[module]
        module = module.rpartition(".")[0]
    return None


@pytest.mark.parametrize("file", modules("service"), ids=dotted)
def test_the_service_imports_one_way(file: Path) -> None:
    own = rank(dotted(file))
    assert own is not None, f"{dotted(file)} has no place in LAYERS"
    for name in imports(file):
        assert name.partition(".")[0] not in BUILD_SIDE, f"{dotted(file)} imports {name}"
        if name.partition(".")[0] == "service" and name != dotted(file):
            other = rank(name)
            assert other is not None
            same_package = name.startswith(dotted(file) + ".") or dotted(file).startswith(name + ".")
            assert other < own or (other == own and (name in LAYERS[own] or same_package)), (
                f"{dotted(file)} imports {name}, which comes after it"
            )


@pytest.mark.parametrize("file", modules("export"), ids=dotted)
def test_export_imports_only_the_engine(file: Path) -> None:
    for name in imports(file):
        if name.partition(".")[0] == "service":
            assert name in ("service", "service.errors") or name.startswith("service.engine"), (
                f"{dotted(file)} imports {name}"
            )


@pytest.mark.parametrize("file", modules("service", "export", "benchmarks", "deploy"), ids=dotted)
def test_files_are_small_and_documented(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert not VAGUE & set(file.relative_to(ROOT).with_suffix("").parts)
    documentation = ast.get_docstring(ast.parse(text))
    assert documentation
    assert documentation.splitlines()[0].endswith(".")


@pytest.mark.parametrize("file", modules("service"), ids=dotted)
def test_only_settings_read_the_environment(file: Path) -> None:
    reads = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute | ast.Name | ast.alias)
        and getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))
        in ("environ", "environb", "getenv", "getenvb")
        # A WSGI request has an `environ`, too.
        and not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "request")
    ]
    # service/__init__.py sets what libraries read when they are imported.
    if dotted(file) not in ("service.settings", "service"):
        assert not reads


def private_names(source: str) -> set[str]:
    """Private names that `source` imports from gunicorn, Werkzeug and Flask, and foreign private attributes.

    Types are not resolved: a private attribute counts as foreign unless the same file defines or assigns
    that name. Dunder names and os._exit are allowed.
    """
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    used = {n.attr for n in nodes if isinstance(n, ast.Attribute)} - own
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in WEB:
            used |= {part for alias in node.names for part in f"{node.module}.{alias.name}".split(".")}
        elif isinstance(node, ast.Import):
            used |= {p for a in node.names if a.name.partition(".")[0] in WEB for p in a.name.split(".")}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr"):
            used |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    if "os._exit" in {ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute)}:
        used.discard("_exit")
    return {name for name in used if name.startswith("_") and not name.endswith("__")}


@pytest.mark.parametrize("file", modules("service"), ids=dotted)
def test_no_private_name_of_the_web_server_and_framework_is_used(file: Path) -> None:
    if WEB & {name.partition(".")[0] for name in imports(file)}:
        assert private_names(file.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from gunicorn.http import _fast", "_fast"),
        ("import werkzeug._internal", "_internal"),
        ("def f(worker):\n    return worker.parser._buf", "_buf"),
        ("def f(request):\n    return getattr(request, '_cached')", "_cached"),
    ],
)
def test_the_check_detects_a_private_name(source: str, found: str) -> None:
    assert private_names(source) == {found}
    assert (
        private_names("class A:\n    def f(self):\n        self._own = 1\n        return self._own") == set()
    )


def test_the_check_detects_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from service import app\n    import torch.nn\n")
    assert list(imports(file)) == ["service.app", "torch.nn"]
    assert RANK["service.app"] > RANK["service.engine.spans"]
