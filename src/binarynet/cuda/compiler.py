"""CUDA C++ to machine code with NVRTC: needs no GPU and no CUDA toolkit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

from binarynet.errors import BackendUnavailableError

SOURCES = Path(__file__).parent / "source"
INSTALL = 'pip install "binarynet[cuda]" (in a checkout: pip install ".[cuda]")'
Code = Literal["cubin", "ptx"]
"""Machine code for exactly one architecture, or PTX, which the driver compiles."""
Defines = tuple[tuple[str, int], ...]


def compile_source(source: str, architecture: str, defines: Defines = (), code: Code = "cubin") -> bytes:
    """Compile one file of :data:`SOURCES`.

    Args:
        source: name of the file.
        architecture: "80" or "90a", for instance.
        defines: macros and their values.
        code: "cubin", machine code for exactly this architecture; or "ptx".

    Raises:
        BackendUnavailableError: NVRTC is not installed, or cannot compile the file for this architecture.
    """
    nvrtc = _library()

    def checked(answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            text = nvrtc.nvrtcGetErrorString(status)[1].decode()
            raise BackendUnavailableError(f"NVRTC: {source} for architecture {architecture}: {text}{log()}")
        return values[0] if values else None

    def log() -> str:
        status, size = nvrtc.nvrtcGetProgramLogSize(program)
        text = bytearray(size if status == nvrtc.nvrtcResult.NVRTC_SUCCESS else 0)
        nvrtc.nvrtcGetProgramLog(program, text)
        return "\n" + bytes(text).rstrip(b"\0").decode(errors="replace") if text else ""

    arguments = options(architecture, defines, code)
    program = None
    text = (SOURCES / source).read_bytes()
    program = checked(nvrtc.nvrtcCreateProgram(text, source.encode(), 0, [], []))
    try:
        checked(
            nvrtc.nvrtcCompileProgram(
                program,
                len(arguments) + 1,
                [*(each.encode() for each in arguments), b"--include-path=" + bytes(SOURCES)],
            )
        )
        size_of, get = (
            (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
            if code == "cubin"
            else (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        )
        image = bytearray(checked(size_of(program)))
        checked(get(program, image))
        return bytes(image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def options(architecture: str, defines: Defines, code: Code) -> tuple[str, ...]:
    """NVRTC's options, but for where headers lie: what they hold matters, not where."""
    return (
        f"--gpu-architecture={'sm' if code == 'cubin' else 'compute'}_{architecture}",
        "--std=c++17",
        "--fmad=false",
        *(f"--define-macro={name}={value}" for name, value in defines),
    )


@functools.cache
def version() -> str:
    """NVRTC's version, "13.0"; BackendUnavailableError where it is not installed."""
    status, major, minor = _library().nvrtcVersion()
    if status != 0:
        raise BackendUnavailableError(f"NVRTC does not say its version (status {int(status)}); {INSTALL}")
    return f"{major}.{minor}"


@functools.cache
def architectures() -> tuple[int, ...]:
    """What NVRTC can compile for: 75, 80 and so on; BackendUnavailableError where it is not installed."""
    status, found = _library().nvrtcGetSupportedArchs()
    if status != 0:
        raise BackendUnavailableError(f"NVRTC does not say its architectures (status {int(status)}); {INSTALL}")
    return tuple(found)


@functools.cache
def _library() -> Any:
    """The module ``cuda.bindings.nvrtc``, its library found."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise BackendUnavailableError(f"CUDA kernels cannot be compiled: {error}; {INSTALL}") from None
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # the binding is there, the library is not
        first = str(error).strip().partition("\n")[0]
        raise BackendUnavailableError(f"CUDA kernels cannot be compiled: {first}; {INSTALL}") from None
    return nvrtc
