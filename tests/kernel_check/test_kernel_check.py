"""``gpunet kernels check``: what it reads from the compiler's log, and that it fails where it has to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpunet.activations import ACTIVATIONS
from gpunet.backends.cuda.activation import activation_group
from gpunet.backends.cuda.batch_norm import SIGNATURES
from gpunet.backends.cuda.sources import names, source_with
from gpunet.backends.cuda.sources import source as kernel_source
from gpunet.backends.devices.device import KernelCompileError
from gpunet.errors import FileFormatError, InvalidValueError, MissingDependencyError
from gpunet.kernel_check import check, nvrtc, sass
from gpunet.kernel_check.budgets import (
    Budgets,
    VectorAccess,
    default_path,
    family,
    read_budgets,
    tightened,
    violations,
    write_budgets,
)
from gpunet.kernel_check.check import (
    ARCHITECTURES,
    DEMANDING_ACTIVATIONS,
    CheckedKernel,
    architectures,
    modules,
    units,
)
from gpunet.kernel_check.resources import Resources, parse_log
from tests.backends.cuda.test_activations import FUNCTIONS, softsign
from tests.helpers.cli import refusal, shell

Capture = pytest.CaptureFixture[str]

# NVRTC 13.5. `other` calls a function that was not inlined; `many` has a large array and few registers.
LOG = """\
x.cu(4): warning #177-D: variable "unused" was declared but never referenced

ptxas info    : 24 bytes gmem, 8 bytes cmem[4]
ptxas info    : Compiling entry function '_Z5otherIfEvPT_i' for 'sm_90'
ptxas info    : Function properties for _Z5otherIfEvPT_i
ptxas         .     160 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 160 bytes cumulative stack size, 256 bytes smem, 364 bytes cmem[0]
ptxas info    : Compile time = 25.897 ms
ptxas info    : Function properties for _Z6helperPKfi
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Compiling entry function '_Z4manyIfEvPT_i' for 'sm_90'
ptxas info    : Function properties for _Z4manyIfEvPT_i
ptxas         .     3640 bytes stack frame, 3560 bytes spill stores, 4860 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 3640 bytes cumulative stack size
ptxas info    : Compile time = 303.638 ms
"""

# nvdisasm 13.5: a load straight to shared memory, a cached, a narrow and a marked one; for sm_75 too.
LISTING = """\
.text._Z4copyIfEvPT_:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDGSTS.E.BYPASS.128 [R9], desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.EF.128 R8, desc[UR4][R2.64] ;
        /*0030*/                   LDG.E R8, desc[UR4][R2.64] ;
        /*0040*/                   STG.E.128 desc[UR4][R4.64], R8 ;
.text._Z3oldIfEvPT_:
        /*0010*/                   LDG.E.64.SYS R4, [R2] ;
        /*0020*/                   LDG.E.128.SYS R4, [R2] ;
        /*0030*/                   STG.E.SYS [R2], R4 ;
"""

SPILLING = """
__global__ void __launch_bounds__(1024) gather_batch(float* values, int step) {
    float held[200];
#pragma unroll
    for (int i = 0; i < 200; ++i) held[i] = values[i * step];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 200; ++i) values[i * step] = held[199 - i];
}
"""


def test_log() -> None:
    assert parse_log(LOG) == {
        "_Z5otherIfEvPT_i": Resources(40, 256, 176, 8, 12),
        "_Z4manyIfEvPT_i": Resources(64, 0, 3640, 3560, 4860),
    }
    assert parse_log("error: identifier undefined") == {}


def test_listing() -> None:
    listings = sass.split_listing(LISTING)
    assert {name: len(lines) for name, lines in listings.items()} == {"_Z4copyIfEvPT_": 6, "_Z3oldIfEvPT_": 4}
    counts = {
        name: [(sass.count_loads(lines, width), sass.count_stores(lines, width)) for width in (8, 16)]
        for name, lines in listings.items()
    }
    assert counts == {"_Z4copyIfEvPT_": [(2, 1), (2, 1)], "_Z3oldIfEvPT_": [(2, 0), (1, 0)]}


# --- budgets ---------------------------------------------------------------------------------------------------------


def checked(expression: str, registers: int, architecture: int = 90, **more: int) -> CheckedKernel:
    return CheckedKernel("gather", expression, architecture, Resources(registers, **more))


def test_a_budget_is_shared_by_widths_and_activations() -> None:
    assert family("bias_activation_forward<float, relu_activation, 4>") == "bias_activation_forward<float>"
    assert family("gather_rows<unsigned int>") == "gather_rows<unsigned int>"
    assert family("plain") == "plain"


def test_violations() -> None:
    budgets = Budgets({"gather": {"copy<float>": 32}}, {})
    assert violations(budgets, [checked("copy<float, 4>", 32), checked("copy<float, 1>", 20)]) == []
    (line,) = violations(budgets, [checked("copy<float, 4>", 33)])
    assert line == "gather, sm_90: copy<float, 4> needs 33 registers of a budget of 32"
    (line,) = violations(budgets, [checked("copy<float, 4>", 8, spill_store_bytes=4, spill_load_bytes=8)])
    assert line == "gather, sm_90: copy<float, 4> spills 4 bytes and loads 8 again"
    (line,) = violations(budgets, [checked("copy<double, 4>", 8)])
    assert "copy<double, 4> has no budget; --update-budgets" in line


def test_updated_budgets_are_the_most_of_any_architecture_in_whole_steps() -> None:
    before = Budgets({"gather": {"gone<float>": 8}, "dropout": {"kept<float>": 16}}, {"gather": {}})
    found = [checked("copy<float, 4>", 25), checked("copy<float, 1>", 31, 120), checked("wide<double>", 255)]
    after = tightened(before, found)
    assert after.registers == {
        "gather": {"copy<float>": 32, "wide<double>": 255},
        "dropout": {"kept<float>": 16},
    }
    assert after.vectorized == before.vectorized
    assert violations(after, found) == []


def test_budgets_on_disk(tmp_path: Path) -> None:
    budgets = Budgets({"gather": {"copy<float>": 32}}, {"gather": {"copy<float, 4>": VectorAccess(16, 2, 1)}})
    write_budgets(tmp_path / "budgets.json", budgets)
    assert read_budgets(tmp_path / "budgets.json") == budgets
    for content in ("{", "[]", "{}", '{"registers": {}, "vectorized": {"gather": {"copy": {"width": 3}}}}'):
        (tmp_path / "budgets.json").write_text(content)
        with pytest.raises(FileFormatError, match=r"budgets\.json: not a file of kernel budgets"):
            read_budgets(tmp_path / "budgets.json")


def test_the_committed_budgets_name_every_kernel_and_no_other() -> None:
    budgets = read_budgets(default_path())
    expressions: dict[str, set[str]] = {}
    for unit in units(names(), ARCHITECTURES):
        expressions.setdefault(unit.module, set()).update(unit.expressions)
    families = {module: {family(name) for name in group} for module, group in expressions.items()}
    assert {module: set(entries) for module, entries in budgets.registers.items()} == families
    for module, entries in budgets.vectorized.items():
        assert set(entries) <= expressions[module]


# --- what is compiled ------------------------------------------------------------------------------------------------


def test_every_kernel_of_every_file_is_compiled() -> None:
    expressions = {(unit.module, name) for unit in units(names(), ARCHITECTURES) for name in unit.expressions}
    assert {module for module, _ in expressions} == set(names())
    assert {name.split("<")[0] for module, name in expressions if module == "batch_norm"} == set(SIGNATURES)
    for module in names():
        found = {name.split("<")[0] for other, name in expressions if other == module}
        assert all(f" {name}(" in kernel_source(module) for name in found)
        declared = kernel_source(module).count("__global__ void")
        assert len(found) == declared


def test_which_activations_are_compiled() -> None:
    """All in the file that is about them; in the others, those that reach the budgets and the usual one."""

    def compiled(module: str, chosen: tuple[str, ...] | None) -> set[str]:
        expressions = [name for unit in units([module], [90], chosen) for name in unit.expressions]
        return {match[1] for name in expressions if (match := re.search(r"(\w+)_activation\b(?!<)", name))}

    assert compiled("activation", None) == set(ACTIVATIONS)
    assert compiled("batch_norm", None) == {"relu", *DEMANDING_ACTIVATIONS}
    for module in ("activation", "batch_norm"):
        assert compiled(module, ("mish", "leaky_relu(0.1)")) == {"mish", "leaky_relu"}
    with pytest.raises(InvalidValueError, match=r"--activation: 'mich' is not known\. Did you mean 'mish'"):
        units(["activation"], [90], ["mich"])


def test_the_quick_check_has_every_family() -> None:
    whole, quick = (
        {(unit.module, name) for unit in units(names(), [90], chosen) for name in unit.expressions}
        for chosen in (None, DEMANDING_ACTIVATIONS)
    )
    assert quick < whole
    assert len(quick) < len(whole) * 2 / 3
    families = [{(module, family(name)) for module, name in group} for group in (whole, quick)]
    assert families[0] == families[1]


def test_clusters_only_where_the_hardware_has_them() -> None:
    def resident(architecture: int) -> set[str]:
        wanted = units(["batch_norm"], [architecture])
        return {name for unit in wanted for name in unit.expressions if name.startswith("batch_norm_forward_resident")}

    assert all(name.endswith(", 1>") for name in resident(89))
    assert any(name.endswith(", 8>") for name in resident(90))
    assert resident(89) < resident(90) == resident(120)


def test_names_of_architectures_and_modules() -> None:
    assert architectures() == ARCHITECTURES
    assert architectures(["sm_90", "80", "90"]) == (80, 90)
    assert modules() == names()
    assert modules(["gather", "dropout", "gather"]) == ("dropout", "gather")
    with pytest.raises(InvalidValueError, match=r"'70' is not known\. Did you mean 75\?"):
        architectures(["90", "70"])


# --- the command -----------------------------------------------------------------------------------------------------


def test_unknown_names_are_refused_in_one_line(capsys: Capture) -> None:
    assert "Did you mean 90?" in refusal(capsys, "kernels", "check", "--arch", "80,91")
    assert "'hopper' is not known. Expected some of: 75, 80" in refusal(capsys, "kernels", "check", "--arch", "hopper")
    assert "Did you mean 'batch_norm'?" in refusal(capsys, "kernels", "check", "--module", "batchnorm")
    assert "none of --arch" in refusal(capsys, "kernels", "check", "--arch", "90", "--update-budgets")
    for option in (["--quick"], ["--activation", "relu"]):
        assert "--activation, --quick" in refusal(capsys, "kernels", "check", *option, "--update-budgets")
    assert "Did you mean --arch?" in refusal(capsys, "kernels", "check", "--arc", "90")


def test_without_nvrtc_a_line_tells_what_to_install(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvrtc.nvrtc.cache_clear()
    monkeypatch.setattr(nvrtc, "toolkit_folders", list)
    assert "pip install 'gpunet[kernels]'" in refusal(capsys, "kernels", "check")
    library = tmp_path / "lib" / "libnvrtc.so.13"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setattr(nvrtc, "toolkit_folders", lambda: [tmp_path])
    monkeypatch.setattr(nvrtc.sys, "platform", "linux")
    assert "'nvidia-cuda-runtime'" in refusal(capsys, "kernels", "check")


@pytest.fixture
def compiler() -> nvrtc.Nvrtc:
    """NVRTC, for tests that compile."""
    try:
        return nvrtc.nvrtc()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture
def gather_budgets(tmp_path: Path) -> Path:
    """A budget file of which the tests change what they need."""
    path = tmp_path / "budgets.json"
    write_budgets(path, read_budgets(default_path()))
    return path


def gather_check(capsys: Capture, path: Path, *arguments: str) -> Any:
    return shell(capsys, "kernels", "check", "--module", "gather", "--budgets", path, "--arch", "80,90", *arguments)


def plant(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(check, "source_for", lambda module, kernels: text)


@pytest.mark.usefixtures("compiler")
def test_a_good_module_passes(capsys: Capture, gather_budgets: Path) -> None:
    status, output, errors = gather_check(capsys, gather_budgets)
    assert (status, errors) == (0, "")
    assert "2 kernels, 0 problems" in output
    assert gather_check(capsys, gather_budgets, "--all").output.count("gather_batch") == 2


@pytest.mark.usefixtures("compiler")
def test_json(capsys: Capture, gather_budgets: Path) -> None:
    result = gather_check(capsys, gather_budgets, "--json")
    assert result.status == 0
    assert result.json["problems"] == []
    rows = result.json["modules"]
    assert [(row["module"], row["architecture"], row["kernels"]) for row in rows] == [
        ("gather", 80, 1),
        ("gather", 90, 1),
    ]
    assert all(0 < row["registers"] < 100 for row in rows)
    assert "kernels" not in result.json
    (kernel, *others) = gather_check(capsys, gather_budgets, "--json", "--all").json["kernels"]
    assert len(others) == 1
    assert kernel["resources"].keys() == Resources(1).__dict__.keys()


@pytest.mark.usefixtures("compiler")
def test_a_compile_error_is_told_with_its_line(
    capsys: Capture, gather_budgets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, kernel_source("gather").replace("Word held[IN_FLIGHT];", "Word held[IN_FLIHGT];"))
    status, output, _ = gather_check(capsys, gather_budgets)
    assert status == 1
    assert "gather.cu(" in output
    assert output.count('identifier "IN_FLIHGT" is undefined') == 1
    assert "gather, sm_80, sm_90: " in output
    assert "0 kernels, 1 problem\n" in output


@pytest.mark.usefixtures("compiler")
def test_a_missing_kernel_is_an_error(capsys: Capture, gather_budgets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, kernel_source("gather").replace("gather_batch", "gather_all"))
    status, output, _ = gather_check(capsys, gather_budgets)
    assert status == 1
    assert "gather_batch" in output


@pytest.mark.usefixtures("compiler")
def test_a_spill_fails(capsys: Capture, gather_budgets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, SPILLING)
    result = gather_check(capsys, gather_budgets, "--json")
    assert result.status == 1
    assert any("gather_batch spills" in problem for problem in result.json["problems"])


@pytest.mark.usefixtures("compiler")
def test_too_many_registers_fail(capsys: Capture, gather_budgets: Path) -> None:
    content = json.loads(gather_budgets.read_text())
    for change, problem in (
        (lambda budgets: budgets.update(gather_batch=16), "registers of a budget of 16"),
        (lambda budgets: budgets.pop("gather_batch"), "gather_batch has no budget"),
    ):
        change(content["registers"]["gather"])
        gather_budgets.write_text(json.dumps(content))
        status, output, _ = gather_check(capsys, gather_budgets)
        assert status == 1
        assert problem in output
        assert "2 kernels, 2 problems" in output


@pytest.mark.usefixtures("compiler")
def test_budgets_are_updated(capsys: Capture, gather_budgets: Path) -> None:
    before = read_budgets(gather_budgets)
    write_budgets(gather_budgets, Budgets({"dropout": before.registers["dropout"]}, before.vectorized))
    command = ("kernels", "check", "--module", "gather", "--budgets", gather_budgets, "--update-budgets")
    assert shell(capsys, *command).status == 0
    after = read_budgets(gather_budgets)
    assert after.registers == {name: before.registers[name] for name in ("dropout", "gather")}
    assert after.vectorized == before.vectorized


@pytest.mark.usefixtures("compiler")
def test_narrow_accesses_fail(capsys: Capture, gather_budgets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        sass.find_disassembler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    status, output, _ = gather_check(capsys, gather_budgets, "--sass")
    assert status == 0
    assert "gather_batch" in output
    # Words of 16 bytes that are moved by their elements.
    narrow = kernel_source("gather")
    for to, origin in (
        ("held[i]", "from[word + i * step]"),
        ("to[word + i * step]", "held[i]"),
        ("to[word]", "from[word]"),
    ):
        halves = f"*(unsigned short*)&{to} = *(const unsigned short*)&{origin};"
        narrow = narrow.replace(f"{to} = {origin};", halves)
    plant(monkeypatch, narrow)
    result = gather_check(capsys, gather_budgets, "--sass", "--json")
    assert result.status == 1
    assert "gather_batch has 0 loads and 0 stores of 16 bytes" in result.json["problems"][0]
    assert result.json["accesses"][0]["loads"] == 0


@pytest.mark.usefixtures("compiler")
def test_without_the_disassembler_a_line_tells_what_to_install(
    capsys: Capture, gather_budgets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sass, "toolkit_folders", list)
    status, output, errors = gather_check(capsys, gather_budgets, "--sass")
    assert (status, output) == (2, "")
    assert "'nvidia-cuda-nvdisasm'" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("storage", ["float", "double", "__half"])
def test_the_users_own_text_goes_through_the_gpus_compiler(compiler: nvrtc.Nvrtc, storage: str) -> None:
    """The same functions as on the emulated device, in the fused kernels, for the oldest and for a new architecture."""
    width = {"float": 4, "double": 2, "__half": 8}[storage]
    for activation in FUNCTIONS:
        arguments = f"<{storage}, {width}, {activation.cuda_name}>"
        kernels = {
            "activation": activation_group(storage, activation),
            "batch_norm": tuple(f"batch_norm_{name}{arguments}" for name in ("backward_striped", "inference")),
        }
        for module, expressions in kernels.items():
            for architecture in (75, 90):
                text = source_with(module, activation)
                compiled = compiler.compile(text, expressions, architecture, f"{module}.cu")
                assert not [found for found in parse_log(compiled.log).values() if found.spill_store_bytes]


def test_the_gpus_compiler_names_the_users_text(compiler: nvrtc.Nvrtc) -> None:
    wrong = softsign(cuda_derivative="const A twice = s + s;\nreturn softly(twice);")
    with pytest.raises(KernelCompileError, match=r"cuda_derivative of softsign\(2\): error: .*softly"):
        compiler.compile(source_with("activation", wrong), activation_group("float", wrong), 90, "activation.cu")
