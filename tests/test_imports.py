"""Who may import what, read from the sources; and what really gets imported, in a fresh process."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import ilo_fast

PACKAGE = Path(ilo_fast.__file__).parent
MODULES = {
    ".".join(("ilo_fast", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Foreign package → the parts of ilo_fast that may import it, anywhere in their text.
ALLOWED = {
    "triton": {"ops"},
    "cupy": {"ops"},
    "transformers": {"models", "activations", "finetune"},
    "matplotlib": {"plots"},
    "click": {"cli"},
    "rich": {"cli", "progress", "scans"},
    "pydantic": {"scans"},
    "yaml": {"scans"},
    "duckdb": {"scans"},
    "jinja2": {"scans"},
    "ray": {"scans"},
    "gguf": {"models"},
    "liger_kernel": {"models"},
}

# A part may import those of lower rank only; the parts of one rank are siblings.
RANK = {
    "errors": 0,
    "arguments": 1,
    "arrays": 1,
    "layers": 1,
    "shown": 1,
    "files": 1,
    "environment": 1,
    "progress": 1,
    "timeline": 1,
    "profiling": 2,
    "vectors": 2,
    "lists": 2,
    "hsic": 2,
    "ops": 2,
    "neighbors": 3,
    "ilo": 4,
    "overlap": 4,
    "alignment": 4,
    "calibration": 4,
    "flat_index": 4,
    "cka": 4,
    "models": 4,
    "corpora": 4,
    "activations": 4,
    "plots": 4,
    "tables": 2,
    "kept": 4,
    "plane": 4,
    "ring": 3,
    "sharded": 4,
    "results": 4,
    "record": 5,
    "options": 5,
    "scoring": 5,
    "stored": 5,
    "streaming_ilo": 5,
    "companions": 5,
    "pipeline": 5,
    "groups": 5,
    "sources": 5,
    "pairing": 5,
    "scans": 6,
    "difference_rows": 6,
    "compare": 6,
    "pictures": 6,
    "finetune": 6,
    "adapters": 6,
    "cli": 7,
    "__main__": 8,
}
HEAVY = {"torch", "triton", "cupy", "transformers", "matplotlib", "pandas", "numpy", "pyarrow"}


def part(module):
    return module.split(".")[1] if "." in module else ""


@cache
def imports(path, *, top_level_only=False):
    """Absolute names of the modules imported in a file, those for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_foreign_packages_stay_in_their_parts(module):
    roots = {name.split(".")[0] for name in imports(MODULES[module])}
    for package in roots & ALLOWED.keys():
        assert part(module) in ALLOWED[package], f"{module} must not import {package}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    if module == "ilo_fast":
        return
    for name in imports(MODULES[module]):
        other = part(name)
        if name.startswith("ilo_fast.") and other in RANK and other != part(module):
            assert RANK[other] <= RANK[part(module)], f"{module} must not import {name}"


def exported(path):
    """What a module's ``__all__`` names; None where it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


@pytest.mark.parametrize("module", MODULES)
def test_modules_take_from_each_other_what_is_exported(module):
    for name in imports(MODULES[module]) - MODULES.keys():
        home, _, taken = name.rpartition(".")
        if home in MODULES and (public := exported(MODULES[home])) is not None:
            assert taken in public or taken == "__version__", f"{module} takes {name}"


def test_every_part_has_a_rank():
    assert {part(module) for module in MODULES} - {""} <= RANK.keys()


def loaded_with(module):
    """The modules of the package that importing one of them imports, itself among them."""
    found, waiting = set(), [module]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += imports(MODULES[here], top_level_only=True) & MODULES.keys()
    return found


def test_kernels_load_on_demand():
    """Only a module that holds kernels loads Triton or CuPy, and only another such one loads it."""
    kernels = {
        module
        for module, path in MODULES.items()
        if any(
            name.split(".")[0] in ("triton", "cupy") for name in imports(path, top_level_only=True)
        )
    }
    assert len(kernels) > 5
    holders = {module for module in MODULES if module.startswith("ilo_fast.ops.triton_")}
    assert kernels <= holders
    for module in MODULES.keys() - holders:
        assert not loaded_with(module) & kernels, f"{module} loads kernels"


def run(code):
    code = "import gc\ngc.disable()\n" + code  # which would take a quarter of the time
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import ilo_fast; dir(ilo_fast); ilo_fast.__version__",
        "import ilo_fast.cli",
        "from ilo_fast.cli import main\ntry: main(['score', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_light_imports(code):
    loaded = run(f"{code}\nimport sys; print('LOADED', *sys.modules)").partition("LOADED")[2]
    assert not {name.split(".")[0] for name in loaded.split()} & HEAVY


def test_torch_tools_load_without_transformers_and_kernels_or_torchs_compiler():
    """A process's first call of an operator would import the compiler."""
    code = """
import sys
from ilo_fast import ilo_scores, knn
print(*sys.modules)
import torch
from ilo_fast.overlap import layer_overlap
found = knn(torch.randn(2, 30, 4), k=3)
ilo_scores(found, ["a", "b", "c"] * 10, threshold=2)
layer_overlap(found, permutations=2)
print("torch._dynamo" in sys.modules)
"""
    loaded, compiler = run(code).splitlines()
    roots = {name.split(".")[0] for name in loaded.split()}
    assert "torch" in roots
    assert not roots & {"transformers", "cupy", "matplotlib"}
    assert compiler == "False"


def test_import_writes_nothing(tmp_path):
    subprocess.run(
        [sys.executable, "-c", "import ilo_fast.cli; ilo_fast.__version__"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []


def test_public_names_are_there():
    code = "import ilo_fast\nfor name in ilo_fast._PUBLIC: getattr(ilo_fast, name)"
    assert run(code) == ""


def test_modules_are_reached_by_attribute():
    code = "import ilo_fast; print(ilo_fast.overlap.__name__, ilo_fast.ilo.__name__)"
    assert run(code) == "ilo_fast.overlap ilo_fast.ilo\n"
    for module in ilo_fast._MODULES:  # by now most are attributes: others have imported them
        assert ilo_fast.__getattr__(module).__name__ == f"ilo_fast.{module}"
        assert (module in dir(ilo_fast)) == (module != "scans")


def test_dotted_names_of_the_documents_are_there():
    """With nothing imported but the package; a tool's adapter is imported by its name."""
    root = PACKAGE.parent
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    text = re.sub(r"\bfrom ilo_fast\S*|ilo_fast\.adapters\.\w+", "", text)
    names = sorted(set(re.findall(r"\bilo_fast(?:\.[A-Za-z_]\w*)+", text)))
    assert {"ilo_fast.overlap.mutual_knn", "ilo_fast.finetune.score_change"} <= set(names)
    assert run("import ilo_fast\n" + "\n".join(names)) == ""


def test_a_star_import_and_help_want_no_extra():
    code = """
import pydoc
import sys
sys.modules["pydantic"] = None
from ilo_fast import *
from ilo_fast.finetune import *
import ilo_fast.finetune
for module in (ilo_fast, ilo_fast.finetune):
    pydoc.render_doc(module)
"""
    assert run(code) == ""


def test_help_is_quick():
    """Processor time, which on an idle machine is the time a user waits; the best of three."""
    command = [Path(sys.executable).parent / "ilo-fast", "--help"]
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run(command, capture_output=True, check=True)
        after = os.times()
        spent.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    assert min(spent) < 0.3


def test_the_map_names_every_part():
    said = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    said = said.partition("## The map")[2].partition("## The rules")[0]
    parts = {path.name + "/" * path.is_dir() for path in PACKAGE.iterdir()}
    left_out = {"__init__.py", "__main__.py", "__pycache__/", "py.typed"}
    assert not {part for part in parts - left_out if part not in said}
