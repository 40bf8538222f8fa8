"""CUDA C++ to machine code with NVRTC: needs no GPU and no CUDA toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from binarynet.errors import BackendUnavailableError

SOURCES = Path(__file__).parent / "source"
INSTALL = 'pip install "binarynet[cuda]" (in a checkout: pip install ".[cuda]")'


def compile_source(
    source: str, architecture: str, defines: tuple[tuple[str, int], ...] = (), code: Literal["cubin", "ptx"] = "cubin"
) -> bytes:
    """Compile one file of :data:`SOURCES`.

    Args:
        source: name of the file.
        architecture: "80" or "90a", for instance.
        defines: macros and their values.
        code: "cubin", machine code for exactly this architecture; or "ptx".

    Raises:
        BackendUnavailableError: NVRTC is not installed, or cannot compile the file for this architecture.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise BackendUnavailableError(f"CUDA kernels cannot be compiled: {error}; {INSTALL}") from None

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

    options = [
        f"--gpu-architecture={'sm' if code == 'cubin' else 'compute'}_{architecture}",
        "--std=c++17",
        "--fmad=false",
        f"--include-path={SOURCES}",
        *(f"--define-macro={name}={value}" for name, value in defines),
    ]
    program = None
    text = (SOURCES / source).read_bytes()
    program = checked(nvrtc.nvrtcCreateProgram(text, source.encode(), 0, [], []))
    try:
        checked(nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options]))
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
