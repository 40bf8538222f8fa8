"""What methods ask for is what is compiled and tested, and all of it is asked for."""

from __future__ import annotations

import sys

import machine_code as mc
from launch_shapes import launches


def test_launches_ask_for_variants_that_their_method_lists():
    for method, capability, launch in launches():
        listed = [v for v in sys.modules[type(method).__module__].VARIANTS if capability in mc.meant_for(v)]
        assert (launch.source, launch.defines) in [(v.source, v.defines) for v in listed], (method.name, launch)


def test_every_variant_of_a_method_is_asked_for():
    asked = {(launch.source, launch.defines) for _, _, launch in launches()}
    for module in {type(method).__module__ for method, _, _ in launches()}:
        for variant in sys.modules[module].VARIANTS:
            assert (variant.source, variant.defines) in asked


def test_grids_and_blocks_are_what_a_gpu_takes():
    """Programming guide, "Compute capabilities": 2^31 - 1 blocks in x, 65,535 in y and z, 1024 threads."""
    for _, capability, launch in launches():
        x, y, z = launch.grid
        assert 1 <= x < 1 << 31
        assert 1 <= y <= 65535
        assert 1 <= z <= 65535
        assert 1 <= launch.threads <= 1024
        assert launch.shared_bytes <= mc.MULTIPROCESSORS[capability].block_shared_bytes
