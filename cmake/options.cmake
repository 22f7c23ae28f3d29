# What a build may be asked for. AUTO: what is found; ON: must be there; OFF: left out. A project that takes Gapless in by
# add_subdirectory gets the libraries alone, unless it asks for more.
if(PROJECT_IS_TOP_LEVEL)
  set(GAPLESS_DEFAULT AUTO)
else()
  set(GAPLESS_DEFAULT OFF)
endif()
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()

set(GAPLESS_SANITIZE "" CACHE STRING "Sanitizers: empty, address,undefined or thread")
option(GAPLESS_FUZZ "Readers for libFuzzer (clang), see tests/fuzz/run" OFF)
set(GAPLESS_ISA AUTO CACHE STRING "Instruction sets: AUTO (all that are known), or generic (what the compiler takes by itself)")
set_property(CACHE GAPLESS_ISA PROPERTY STRINGS AUTO generic)
option(GAPLESS_WERROR "Treat warnings as errors" OFF)
option(GAPLESS_PROGRAM "Build the program gapless, with its data sets, models and benchmarks" ${PROJECT_IS_TOP_LEVEL})
option(GAPLESS_INSTALL "Have cmake --install install it" ${PROJECT_IS_TOP_LEVEL})
set(GAPLESS_TESTS ${GAPLESS_DEFAULT} CACHE STRING "Build the tests: AUTO (if cmocka is found), ON or OFF")
set(GAPLESS_TEST_FOLDERS "" CACHE STRING "The folders of tests to build, for example unit;fault; empty: all")
set(GAPLESS_BLAS AUTO CACHE STRING "Products of matrices by OpenBLAS, for the rules that have any: AUTO (if it is found), ON or OFF (plain loops)")
set(GAPLESS_VERBS AUTO CACHE STRING "RDMA verbs transport: AUTO, ON or OFF")
set(GAPLESS_OFI AUTO CACHE STRING "libfabric transport: AUTO, ON or OFF")
set(GAPLESS_CUDA ${GAPLESS_DEFAULT} CACHE STRING "The CUDA plugin: AUTO (if nvcc is found), ON or OFF")
set_property(CACHE GAPLESS_TESTS GAPLESS_BLAS GAPLESS_VERBS GAPLESS_OFI GAPLESS_CUDA PROPERTY STRINGS AUTO ON OFF)
set_property(CACHE GAPLESS_SANITIZE PROPERTY STRINGS "" "address,undefined" thread)

# This version has no such backend yet. AUTO leaves it out and the summary says so; ON is refused, because a build
# that was asked for it must not quietly come out without.
if(NOT GAPLESS_OFI STREQUAL AUTO AND GAPLESS_OFI)
  message(FATAL_ERROR "GAPLESS_OFI=ON: Gapless ${PROJECT_VERSION} has no libfabric transport; it runs over shared "
    "memory and RDMA verbs. Configure with GAPLESS_OFI=OFF (or AUTO).")
endif()

# Products of matrices (engine/compute/products.c).
set(GAPLESS_HAVE_BLAS OFF)
if(NOT GAPLESS_BLAS STREQUAL OFF)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(BLAS QUIET openblas)
  endif()
  if(BLAS_FOUND)
    set(GAPLESS_HAVE_BLAS ON)
  elseif(NOT GAPLESS_BLAS STREQUAL AUTO AND GAPLESS_BLAS)
    message(FATAL_ERROR "GAPLESS_BLAS=ON needs OpenBLAS: install libopenblas-dev (or your system's, with its pkg-config "
      "file), or configure with GAPLESS_BLAS=OFF.")
  endif()
endif()

# RDMA: libibverbs and librdmacm, and libsodium, with which the two sides prove that they know the run's token.
set(GAPLESS_HAVE_VERBS OFF)
if(NOT GAPLESS_VERBS STREQUAL OFF)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(IBVERBS QUIET IMPORTED_TARGET libibverbs)
    pkg_check_modules(RDMACM QUIET IMPORTED_TARGET librdmacm)
    pkg_check_modules(SODIUM QUIET IMPORTED_TARGET libsodium)
  endif()
  if(IBVERBS_FOUND AND RDMACM_FOUND AND SODIUM_FOUND)
    set(GAPLESS_HAVE_VERBS ON)
  elseif(NOT GAPLESS_VERBS STREQUAL AUTO AND GAPLESS_VERBS)
    message(FATAL_ERROR "GAPLESS_VERBS=ON needs libibverbs, librdmacm and libsodium: install libibverbs-dev, "
      "librdmacm-dev and libsodium-dev (or your system's, with their pkg-config files), or configure with "
      "GAPLESS_VERBS=OFF.")
  endif()
endif()

# CUDA: see cuda.cmake, which comes when the compilers are set up.

if(NOT GAPLESS_PROGRAM)
  if(NOT GAPLESS_TESTS STREQUAL AUTO AND GAPLESS_TESTS)
    message(FATAL_ERROR "GAPLESS_TESTS=ON needs the program: configure with GAPLESS_PROGRAM=ON, or GAPLESS_TESTS=OFF.")
  endif()
  set(GAPLESS_TESTS OFF)
endif()
if(NOT GAPLESS_TESTS STREQUAL OFF)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(CMOCKA QUIET IMPORTED_TARGET cmocka)
  endif()
  if(NOT CMOCKA_FOUND)
    if(NOT GAPLESS_TESTS STREQUAL AUTO AND GAPLESS_TESTS)
      message(FATAL_ERROR "GAPLESS_TESTS=ON needs cmocka: install libcmocka-dev (or your system's cmocka with its "
        "pkg-config file), or configure with GAPLESS_TESTS=OFF.")
    endif()
    set(GAPLESS_TESTS OFF)
  endif()
endif()
