"""The package from outside: what it imports, exports, calls itself and documents."""

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import binarynet
from binarynet import errors

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "version1.bnn"
TORCH_FREE = [
    *("encoding", "errors", "files", "graph", "fileformat", "runtime", "analysis", "data", "zoo", "cli", "cli.app")
]
HEAVY = ("torch", "lightning", "torchmetrics", "pydantic", "matplotlib", "tensorboard", "sklearn", "scipy")


def run(code):
    """Python code in a process of its own, which must succeed; its output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", TORCH_FREE)
def test_rooms_right_of_lowering_do_not_import_torch(name):
    loaded = run(
        f"import sys, binarynet.{name}; print(*sorted(name for name in sys.modules if '.' not in name))"
    ).split()
    assert "binarynet" in loaded
    assert not set(HEAVY) & set(loaded)


def test_the_package_imports_next_to_nothing():
    code = "import sys; before = set(sys.modules); import binarynet; print(*sorted(set(sys.modules) - before))"
    loaded = run(code).split()
    assert "binarynet" in loaded
    foreign = [name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names | {"binarynet"}]
    assert [name for name in foreign if not name.startswith(("_editable", "_virtualenv"))] == []


WITHOUT_TORCH = """
import sys
for name in {heavy!r}:
    sys.modules[name] = None                       # importing it fails as if it were not installed
import numpy as np
import binarynet as bn
model = bn.load({path!r})
images = np.arange(2 * 90, dtype=np.uint8).reshape(2, 6, 5, 3)
print(model.predict(images).names)
bn.verify(model.graph, images).require_exact()
print(len(bn.fileformat.to_bytes(model.network)))
try:
    bn.pack
except ModuleNotFoundError as error:
    print(error)
"""


def test_packed_networks_work_where_torch_is_not_installed():
    names, size, refusal = run(WITHOUT_TORCH.format(heavy=HEAVY, path=str(GOLDEN))).splitlines()
    assert names.startswith("['")
    assert int(size) == GOLDEN.stat().st_size
    assert refusal == f"binarynet.pack needs torch, which is not installed; {errors.INSTALL_TRAIN}"


# Names

EXPORTS = {
    "binarynet": """
        __version__ analysis data encoding errors fileformat graph layers lowering models ops optim runtime
        training zoo
        BinaryNetError Graph Model Prediction Session load pack train verify""",
    "binarynet.graph": """
        Affine Convolution Dense Flatten Graph GraphBuilder Input MaxPool Node Threshold ValueType Window check_images
        evaluate num_taps""",
    "binarynet.fileformat": "FORMAT_VERSION PackedNetwork Section read read_with_sections to_bytes write",
    "binarynet.lowering": "Lowered fold_thresholds lower lower_checked pack probe torch_source",
    "binarynet.runtime": """
        REFERENCE Difference Engine MethodRange Model Plan Prediction Session Source Step StepTime ValueCheck
        Verification check_engine engines load method_ranges verify""",
    "binarynet.ops": """
        ap2 ap2_value approx_sign binarize_weight convolutions drop identity_sign noise_key pack_bits products
        random_words round_to_ap2 sign stochastic_sign stochastic_weight swish_sign unpack_bits xnor_conv2d
        xnor_matmul""",
    "binarynet.layers": """
        LEAVES BatchNorm1d BatchNorm2d BinaryConv2d BinaryLayer BinaryLinear ContrastNormalization Estimator NoisyLayer
        Normalization Preprocessing ShiftBatchNorm1d ShiftBatchNorm2d Sign StochasticSign Weights Whitening
        set_noise_key""",
    "binarynet.optim": """
        Bop ClippedAdam PRINTED_BETAS PRINTED_LR ShiftAdaMax adam clip_after_step clip_latent_weights glorot_factor
        latent_weights parameter_groups shift_adamax""",
    "binarynet.zoo": "PREFIX Card available card cards is_name path_of resolve",
    "binarynet.models": "available build convnet mlp options register register_network",
}


@pytest.mark.parametrize("module", EXPORTS)
def test_public_names_are_pinned(module):
    """A new name here is a promise; a missing one breaks somebody's program."""
    assert set(importlib.import_module(module).__all__) == set(EXPORTS[module].split())


def test_every_public_name_is_there():
    assert dir(binarynet) == sorted(binarynet.__all__)
    for name in binarynet.__all__:
        assert getattr(binarynet, name) is not None
    assert binarynet.Graph is binarynet.graph.Graph
    with pytest.raises(AttributeError, match="module 'binarynet' has no attribute 'nonsense'"):
        _ = binarynet.nonsense
    assert not hasattr(binarynet, "torch")


def rooms():
    return [name for name in binarynet.__all__ if inspect.ismodule(getattr(binarynet, name))]


def documented(module):
    """The public functions and classes of a module, and the methods that the classes add to what torch asks for."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        value = getattr(module, name)
        if not (inspect.isfunction(value) or inspect.isclass(value)) or not value.__module__.startswith("binarynet"):
            continue
        yield f"{module.__name__}.{name}", value
        if inspect.isclass(value):
            for key, member in vars(value).items():
                if not key.startswith("_") and key not in ("forward", "extra_repr") and inspect.isfunction(member):
                    yield f"{module.__name__}.{name}.{key}", member


@pytest.mark.parametrize("room", rooms())
def test_public_things_are_documented(room):
    module = getattr(binarynet, room)
    assert inspect.getdoc(module)
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"{room} exports {name}, which does not exist"
    missing = [
        name
        for name, value in documented(module)
        if not (value.__doc__ or "").strip() or value.__doc__.startswith(f"{name.rpartition('.')[2]}(")  # dataclass's
    ]
    assert missing == []


def test_errors_form_the_tree_that_their_page_shows():
    page = inspect.getdoc(errors)
    rows = re.findall(r"^( *)(\w+Error)\b", page, flags=re.MULTILINE)
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    assert [name for _, name in rows] == list(dict.fromkeys(name for _, name in rows))
    assert {name for _, name in rows} == set(classes)
    parents = []
    for indent, name in rows:
        depth = len(indent) // 2
        parents = [*parents[:depth], name]
        if depth:
            assert issubclass(classes[name], classes[parents[depth - 1]])
        assert issubclass(classes[name], errors.BinaryNetError)
    assert issubclass(errors.UsageError, ValueError)


# Versions and rules


def test_there_is_one_version():
    from binarynet import _native

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert binarynet.__version__ == project["version"] == _native.version()


def test_rooms_import_one_way():
    """The contracts stand in pyproject.toml."""
    command = shutil.which("lint-imports", path=os.path.dirname(sys.executable))
    assert command, "import-linter belongs to the extra 'dev'"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_the_import_rules_can_fail(tmp_path):
    """The same contracts over a copy in which the graph looks at the layers."""
    shutil.copytree(ROOT / "src" / "binarynet", tmp_path / "binarynet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "binarynet" / "graph" / "ir.py", "a") as file:
        file.write("\nfrom binarynet import layers\n")
    code = """
        import sys
        sys.meta_path = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
        sys.path.insert(0, ".")
        from importlinter.cli import lint_imports_command
        lint_imports_command(["--no-cache"])
    """
    done = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "binarynet.graph.ir -> binarynet.layers" in done.stdout
