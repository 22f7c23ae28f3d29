# Every tests/<dir>/test_<name>.c is one cmocka program and one test, "<dir>/<name>", labelled <dir>; so is every
# test_<name>.sh and .py, run as: script SOURCE BUILD. Other .c files of a test folder are linked to its tests.
# A tests/gpu/test_<name>.c is linked with the kernels as C++ (gapless_gpu_shim); all tests of that folder open the fake
# plugin, others find its path in GAPLESS_CUDA_FAKE.
# Exit status 77 means skipped; the reason is what the test printed.
#
# A test asks for something special in a comment among its first lines:   ctest: timeout=120 serial link=-Wl,--wrap=free
#   timeout=N   seconds, against a hang that no bound of the test covers; 600 by default
#   serial      not beside another test (it measures processor time)
#   lock=NAME   not beside a test with the same lock ("lab": it boots guests)
#   plain       not in sanitizer builds
#   nvcc        not where GAPLESS_CUDA is OFF
#   link=FLAG   goes to the linker
#   source=FILE is compiled in, from the source's root
#
# The longest tests are started first: tests/seconds.txt has how long each took. A test that is not in it comes first of
# all, so that a new one never is the last that everything waits for. tests/seconds.sh writes the file anew.
enable_testing()
find_program(GAPLESS_SH sh REQUIRED)
find_program(GAPLESS_PYTHON python3)
# The tests of the Python package need the interpreter that has the system's torch, wherever another is first in PATH.
find_program(GAPLESS_SYSTEM_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)
set(GAPLESS_TESTS_COUNT 0)
add_custom_target(gapless_tests) # what the tests run
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS tests/seconds.txt)
file(STRINGS tests/seconds.txt GAPLESS_SECONDS REGEX "^[^#]")

add_library(gapless_test INTERFACE)
target_link_libraries(gapless_test INTERFACE PkgConfig::CMOCKA PkgConfig::JANSSON Threads::Threads m)
target_compile_definitions(gapless_test INTERFACE GAPLESS_HAVE_VERBS=$<BOOL:${GAPLESS_HAVE_VERBS}>
  GAPLESS_SOURCE_DIR="${PROJECT_SOURCE_DIR}" GAPLESS_BUILD_DIR="${PROJECT_BINARY_DIR}"
  GAPLESS_PROGRAM="$<TARGET_FILE:gapless_program>")

# The second compile that the *_double tests use: rules and compute in double, to check the formulas. It has one
# instruction set: the tests name compute_cpu_generic.
add_library(gapless_double STATIC EXCLUDE_FROM_ALL
  engine/rules/rules.c engine/status.c engine/compute/compute_cpu_isa.c engine/compute/compute_ways.c
  engine/compute/matrices.c engine/compute/products.c)
target_compile_definitions(gapless_double PUBLIC GAPLESS_REAL_DOUBLE PRIVATE GAPLESS_HAVE_BLAS=0)
target_link_libraries(gapless_double PUBLIC m)
target_compile_options(gapless_double PRIVATE -O1) # little runs in it, and -O3 would compile for long

# Sets timeout, serial, lock, plain, nvcc, link and sources from the "ctest:" comment of a test.
macro(gapless_test_wishes file)
  set(timeout 600)
  set(serial OFF)
  set(lock "")
  set(plain OFF)
  set(nvcc OFF)
  set(link "")
  set(sources "")
  file(STRINGS ${file} wishes REGEX "ctest:" LIMIT_INPUT 4000)
  list(TRANSFORM wishes REPLACE "^.*ctest:" "")
  string(REGEX REPLACE "[ ;*/\"]+$" "" wishes "${wishes}") # the end of the comment
  string(REGEX REPLACE "[ ;]+" ";" wishes "${wishes}")
  foreach(wish IN LISTS wishes)
    if(wish MATCHES "^timeout=([0-9]+)$")
      set(timeout ${CMAKE_MATCH_1})
    elseif(wish MATCHES "^lock=(.+)$")
      list(APPEND lock ${CMAKE_MATCH_1})
    elseif(wish MATCHES "^link=(.+)$")
      list(APPEND link ${CMAKE_MATCH_1})
    elseif(wish MATCHES "^source=(.+)$")
      list(APPEND sources ${PROJECT_SOURCE_DIR}/${CMAKE_MATCH_1})
    elseif(wish MATCHES "^(serial|plain|nvcc)$")
      set(${wish} ON)
    elseif(wish)
      message(FATAL_ERROR "${file} asks for '${wish}', which is not in the list of cmake/tests.cmake")
    endif()
  endforeach()
endmacro()

# Sets RET to whether a test, or a header of the tests that it includes, includes workloads, benchmarks or the program.
function(gapless_test_beyond_library file ret)
  set(beyond OFF)
  file(STRINGS ${file} includes REGEX "^#include \"(bench|cluster|tests)/")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include \"([^\"]*)\".*" "\\1" include "${include}")
    if(include MATCHES "^(bench|cluster|tests/cluster)/")
      set(beyond ON)
    elseif(NOT beyond)
      gapless_test_beyond_library(${PROJECT_SOURCE_DIR}/${include} beyond)
    endif()
  endforeach()
  set(${ret} ${beyond} PARENT_SCOPE)
endfunction()

# Sets seconds to how long a test took when the file was written; more than any did if it is not there.
macro(gapless_test_seconds name)
  set(seconds 1000)
  foreach(line IN LISTS GAPLESS_SECONDS)
    if(line MATCHES "^${name} +([0-9.]+)$")
      set(seconds ${CMAKE_MATCH_1})
    endif()
  endforeach()
endmacro()

# Sets helpers to the objects of the other .c files of a test folder, compiled once for all its tests.
macro(gapless_test_helpers dir)
  file(GLOB helpers CONFIGURE_DEPENDS tests/${dir}/*.c)
  list(FILTER helpers EXCLUDE REGEX "/test_[^/]*$")
  if(${dir} STREQUAL gpu)
    list(FILTER helpers EXCLUDE REGEX "/fake_[^/]*$") # are libraries
  endif()
  if(helpers AND NOT TARGET gapless_test_helpers_${dir})
    add_library(gapless_test_helpers_${dir} OBJECT ${helpers})
    target_link_libraries(gapless_test_helpers_${dir} PRIVATE gapless_cluster gapless_test)
    if(${dir} STREQUAL gpu)
      target_link_libraries(gapless_test_helpers_${dir} PRIVATE gapless_gpu_shim)
    endif()
  endif()
  if(helpers)
    set(helpers $<TARGET_OBJECTS:gapless_test_helpers_${dir}>)
  endif()
endmacro()

function(gapless_test_add dir file)
  get_filename_component(name ${file} NAME_WE)
  string(REGEX REPLACE "^test_" "" name ${name})
  get_filename_component(kind ${file} EXT)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file}) # its "ctest:" comment
  gapless_test_wishes(${file})
  set(label ${dir})
  if(dir STREQUAL consumer)
    set(label packaging)
  endif()
  if(GAPLESS_SANITIZE)
    math(EXPR timeout "${timeout} * 2")
    # The formulas in double are the source that runs in float, and take a minute to compile so.
    if(plain OR label STREQUAL packaging OR label STREQUAL tidy OR name MATCHES "_double$")
      return()
    endif()
    if(GAPLESS_SANITIZE MATCHES thread AND dir STREQUAL unit) # most have one thread, where there is nothing to find
      file(STRINGS ${file} threads REGEX "pthread_create" LIMIT_COUNT 1)
      if(NOT threads)
        return()
      endif()
    endif()
  endif()

  if(nvcc AND NOT GAPLESS_CUDA STREQUAL AUTO AND NOT GAPLESS_CUDA)
    return()
  endif()

  set(beyond ON)
  if(kind STREQUAL .c)
    gapless_test_beyond_library(${file} beyond)
    if(dir STREQUAL fuzz) # its helpers are
      set(beyond ON)
    endif()
  endif()

  set(environment "GAPLESS_PROGRAM=$<TARGET_FILE:gapless_program>" GAPLESS_SOURCE_DIR=${PROJECT_SOURCE_DIR}
    GAPLESS_BUILD_DIR=${PROJECT_BINARY_DIR} CC=${CMAKE_C_COMPILER} CXX=${CMAKE_CXX_COMPILER} OPENBLAS_NUM_THREADS=1
    TSAN_OPTIONS=halt_on_error=1:die_after_fork=0:suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp)
  if(TARGET gapless_cuda_fake)
    list(APPEND environment "GAPLESS_CUDA_FAKE=$<TARGET_FILE:gapless_cuda_fake>")
    if(dir STREQUAL gpu)
      list(APPEND environment "GAPLESS_CUDA_PLUGIN=$<TARGET_FILE:gapless_cuda_fake>")
    endif()
  endif()

  if(kind STREQUAL .c AND dir STREQUAL gpu AND NOT TARGET gapless_gpu_shim)
    set(command ${GAPLESS_SH} -c "echo 'SKIP: a C++ compiler is not installed'; exit 77")
  elseif(kind STREQUAL .c)
    set(target test_${dir}_${name})
    gapless_test_helpers(${dir})
    add_executable(${target} ${file} ${helpers} ${sources})
    set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    if(name MATCHES "_double$")
      target_link_libraries(${target} PRIVATE gapless_double)
    elseif(beyond)
      target_link_libraries(${target} PRIVATE gapless_cluster)
    else()
      target_link_libraries(${target} PRIVATE gapless_internal)
    endif()
    if(dir STREQUAL gpu)
      target_link_libraries(${target} PRIVATE gapless_gpu_shim)
      add_dependencies(${target} ${GAPLESS_FAKES})
    endif()
    target_link_libraries(${target} PRIVATE gapless_test)
    # What a test itself does is little; to optimise it as the library takes four times as long to compile.
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
    target_link_options(${target} PRIVATE ${link})
    add_dependencies(gapless_tests ${target})
    set(command ${target})
  elseif(kind STREQUAL .sh)
    set(command ${GAPLESS_SH} ${file} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  elseif(GAPLESS_SYSTEM_PYTHON AND dir STREQUAL python)
    set(command ${GAPLESS_SYSTEM_PYTHON} ${file} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  elseif(GAPLESS_PYTHON)
    set(command ${GAPLESS_PYTHON} ${file} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  else()
    set(command ${GAPLESS_SH} -c "echo 'SKIP: python3 is not installed'; exit 77")
  endif()

  gapless_test_seconds(${dir}/${name})
  add_test(NAME ${dir}/${name} COMMAND ${command})
  set_tests_properties(${dir}/${name} PROPERTIES
    LABELS ${label} TIMEOUT ${timeout} COST ${seconds} RUN_SERIAL ${serial} RESOURCE_LOCK "${lock}" SKIP_RETURN_CODE 77
    WORKING_DIRECTORY ${PROJECT_BINARY_DIR}/tests/scratch
    ENVIRONMENT "${environment}")
  math(EXPR count "${GAPLESS_TESTS_COUNT} + 1")
  set(GAPLESS_TESTS_COUNT ${count} PARENT_SCOPE)
endfunction()

file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/tests/scratch)
file(GLOB test_files CONFIGURE_DEPENDS tests/*/test_*.c tests/*/test_*.sh tests/*/test_*.py)
foreach(file IN LISTS test_files)
  get_filename_component(dir ${file} DIRECTORY)
  get_filename_component(dir ${dir} NAME)
  if(dir STREQUAL verbs AND NOT GAPLESS_HAVE_VERBS)
    continue()
  endif()
  if(GAPLESS_TEST_FOLDERS AND NOT dir IN_LIST GAPLESS_TEST_FOLDERS)
    continue()
  endif()
  gapless_test_add(${dir} ${file})
endforeach()

# What reads nvcc's output.
file(GLOB scan_sources CONFIGURE_DEPENDS tests/gpu/scan/*.c)
if(TARGET gapless_cuda AND scan_sources)
  add_executable(gapless_gpu_scan ${scan_sources})
  set_target_properties(gapless_gpu_scan PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_link_libraries(gapless_gpu_scan PRIVATE gapless_internal)
endif()

# Readers for libFuzzer; tests/fuzz/run starts them.
if(GAPLESS_FUZZ)
  add_executable(gapless_fuzz EXCLUDE_FROM_ALL tests/fuzz/libfuzzer/target.c tests/fuzz/readers.c)
  target_link_libraries(gapless_fuzz PRIVATE gapless_cluster gapless_test)
  target_link_options(gapless_fuzz PRIVATE -fsanitize=fuzzer)
endif()

# Programs for the lab's guests; the tests there start them.
file(GLOB lab_programs CONFIGURE_DEPENDS tests/vm/*.c)
foreach(file IN LISTS lab_programs)
  if(GAPLESS_HAVE_VERBS)
    get_filename_component(name ${file} NAME_WE)
    add_executable(lab_${name} ${file})
    set_target_properties(lab_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    target_link_libraries(lab_${name} PRIVATE gapless_cluster gapless_test)
  endif()
endforeach()
