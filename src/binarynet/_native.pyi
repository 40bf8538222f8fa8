"""Types of the native extension (native/python/binding.cc)."""

from typing import Any

import numpy as np
import numpy.typing as npt

class NativeError(RuntimeError):
    status: str
    """INVALID_ARGUMENT, OUT_OF_MEMORY, UNAVAILABLE or INTERNAL."""

class Graph:
    def __init__(self) -> None: ...
    def add_input(self, h: int, w: int, c: int) -> int: ...
    def add_bits_input(self, h: int, w: int, c: int) -> int: ...
    def add_convolution(
        self,
        source: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        out_channels: int,
        weights: npt.NDArray[np.uint64],
    ) -> int: ...
    def add_max_pool(
        self, source: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> int: ...
    def add_threshold(self, source: int, thresholds: npt.NDArray[np.int32], falling: npt.NDArray[np.uint64]) -> int: ...
    def add_affine(self, source: int, scale: npt.NDArray[np.float32], shift: npt.NDArray[np.float32]) -> int: ...
    def add_flatten(self, source: int) -> int: ...
    def value_info(self, value: int) -> tuple[str, int, int, int]: ...

class Session:
    def __init__(
        self,
        graph: Graph,
        outputs: list[int],
        isa: str | None = None,
        num_threads: int = 0,
        vectors: list[int] = ...,
    ) -> None: ...
    def run(
        self, images: npt.NDArray[np.uint8] | npt.NDArray[np.uint64], out: npt.NDArray[Any] | None = None
    ) -> list[npt.NDArray[Any]]: ...
    def profile(self, images: npt.NDArray[np.uint8] | npt.NDArray[np.uint64], repeats: int) -> list[list[int]]: ...
    def plan(self, batch: int) -> tuple[dict[str, Any], list[dict[str, Any]]]: ...
    @property
    def isa(self) -> str: ...
    @property
    def num_threads(self) -> int: ...

def instruction_sets() -> list[tuple[str, str]]: ...
def version() -> str: ...

class training:  # a submodule (native/python/training*.cc, elementwise.cc)
    @staticmethod
    def instruction_set() -> str: ...
    @staticmethod
    def pack_signs(
        values: npt.NDArray[np.float32],
        strict: bool,
        find: bool,
        by_row: npt.NDArray[np.uint64] | None,
        by_column: npt.NDArray[np.int32] | None,
        num_threads: int,
    ) -> int: ...
    @staticmethod
    def multiply_bits(
        a: npt.NDArray[np.uint64],
        a_strict: npt.NDArray[np.uint64] | None,
        w: npt.NDArray[np.uint64],
        in_features: int,
        out: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def multiply_bits_int32(
        a: npt.NDArray[np.uint64],
        w: npt.NDArray[np.uint64],
        in_features: int,
        out: npt.NDArray[np.int32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def multiply_signs(
        values: npt.NDArray[np.float32],
        transposed: bool,
        signs: npt.NDArray[np.int32],
        out: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def to_bytes(
        values: npt.NDArray[np.float32],
        bytes: npt.NDArray[np.uint8],
        zeros: npt.NDArray[np.uint64] | None,
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def multiply_bytes(
        a: npt.NDArray[np.uint8],
        masked: npt.NDArray[np.uint64] | None,
        w: npt.NDArray[np.uint64],
        out: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def multiply_real(
        left: npt.NDArray[np.float32], right: npt.NDArray[np.float32], out: npt.NDArray[np.float32], num_threads: int
    ) -> None: ...
    @staticmethod
    def sign(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], num_threads: int) -> None: ...
    @staticmethod
    def round_to_ap2(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], num_threads: int) -> None: ...
    @staticmethod
    def inside_window(
        g: npt.NDArray[np.float32], x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], num_threads: int
    ) -> None: ...
    @staticmethod
    def random_sign(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], key: int, num_threads: int) -> None: ...
    @staticmethod
    def drop(
        x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], key: int, threshold: int, num_threads: int
    ) -> None: ...
    @staticmethod
    def random_sign_images(
        x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], key: int, num_threads: int
    ) -> None: ...
    @staticmethod
    def drop_images(
        x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], key: int, threshold: int, num_threads: int
    ) -> None: ...
    @staticmethod
    def adam(
        weight: npt.NDArray[np.float32],
        gradient: npt.NDArray[np.float32],
        average: npt.NDArray[np.float32],
        average_square: npt.NDArray[np.float32],
        complement1: float,
        beta2: float,
        complement2: float,
        rate: float,
        root: float,
        eps: float,
        clip: bool,
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def ada_max(
        weight: npt.NDArray[np.float32],
        gradient: npt.NDArray[np.float32],
        average: npt.NDArray[np.float32],
        norm: npt.NDArray[np.float32],
        beta1: float,
        complement1: float,
        beta2: float,
        rate: float,
        eps: float,
        clip: bool,
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def pack_conv_weights(weights: npt.NDArray[np.float32], bits: npt.NDArray[np.uint64], num_threads: int) -> None: ...
    @staticmethod
    def convolve_bits(
        signs: npt.NDArray[np.uint64],
        weights: npt.NDArray[np.uint64],
        in_channels: int,
        stride: tuple[int, int],
        padding: tuple[int, int],
        out: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def convolve_bits_int32(
        signs: npt.NDArray[np.uint64],
        weights: npt.NDArray[np.uint64],
        in_channels: int,
        stride: tuple[int, int],
        padding: tuple[int, int],
        out: npt.NDArray[np.int32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def conv_input_gradient(
        gradient: npt.NDArray[np.float32],
        weights: npt.NDArray[np.uint64],
        padding: tuple[int, int],
        out: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def conv_weight_gradient(
        gradient: npt.NDArray[np.float32],
        signs: npt.NDArray[np.uint64],
        padding: tuple[int, int],
        out: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def shift_norm(
        x: npt.NDArray[np.float32],
        outer: int,
        channels: int,
        inner: int,
        scale: float,
        weight: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        eps: float,
        y: npt.NDArray[np.float32],
        mean: npt.NDArray[np.float32],
        inv_std: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...
    @staticmethod
    def shift_norm_gradient(
        x: npt.NDArray[np.float32],
        g: npt.NDArray[np.float32],
        outer: int,
        channels: int,
        inner: int,
        scale: float,
        weight: npt.NDArray[np.float32],
        mean: npt.NDArray[np.float32],
        inv_std: npt.NDArray[np.float32],
        x_gradient: npt.NDArray[np.float32],
        weight_gradient: npt.NDArray[np.float32],
        bias_gradient: npt.NDArray[np.float32],
        num_threads: int,
    ) -> None: ...

class limits:  # a submodule (native/python/limits.cc)
    @staticmethod
    def mixes() -> list[tuple[str, str, int]]: ...
    @staticmethod
    def run_mix(isa: str, method: str, steps: int) -> int: ...
    @staticmethod
    def read(words: npt.NDArray[np.uint64], times: int, cold: bool) -> int: ...
    @staticmethod
    def count_cycles(additions: int) -> int: ...

class dlpack:  # a submodule (native/python/dlpack.cc)
    @staticmethod
    def take(
        capsule: Any,
    ) -> tuple[int, tuple[int, ...], tuple[int, ...] | None, tuple[int, int, int], tuple[int, int], bool, object]: ...
    @staticmethod
    def give(
        owner: object,
        address: int,
        shape: tuple[int, ...],
        code: int,
        bits: int,
        device_type: int,
        device_id: int,
        versioned: bool,
    ) -> Any: ...
