# 64-bit ARM Linux with the cross compiler of the distribution (Debian, Ubuntu: g++-aarch64-linux-gnu). Programs are
# linked statically, so that they run under user-mode emulation (qemu-user) as they are:
#
#   cmake -S . -B build/aarch64 -G Ninja --toolchain native/cmake/aarch64-linux-gnu.cmake -DBINARYNET_TESTS=ON
#   cmake --build build/aarch64 && ctest --test-dir build/aarch64 --output-on-failure
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
