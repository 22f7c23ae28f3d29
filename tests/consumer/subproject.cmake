# A project that takes Gapless in by add_subdirectory, with the examples as its own programs: copied to a folder as its
# CMakeLists.txt. Gapless must not change it, nor bring more than its libraries.
cmake_minimum_required(VERSION 3.25)
project(subproject LANGUAGES C)

set(type_before "${CMAKE_BUILD_TYPE}")
get_directory_property(before COMPILE_OPTIONS)
get_directory_property(included_before INCLUDE_DIRECTORIES)
add_subdirectory(${GAPLESS_SOURCE} gapless)
add_subdirectory(${GAPLESS_SOURCE}/examples/c examples)
get_directory_property(after COMPILE_OPTIONS)
get_directory_property(included_after INCLUDE_DIRECTORIES)

foreach(target IN ITEMS gapless_program gapless_test gapless_installed)
  if(TARGET ${target})
    message(FATAL_ERROR "Gapless brings its ${target}")
  endif()
endforeach()
if(NOT type_before STREQUAL "${CMAKE_BUILD_TYPE}" OR NOT before STREQUAL after OR NOT included_before STREQUAL included_after)
  message(FATAL_ERROR "Gapless changes this project's settings")
endif()

# What its sources are able to include: the public headers, nothing else.
file(WRITE ${CMAKE_BINARY_DIR}/leak.c "
#include <gapless/gapless.h>
#if __has_include(\"engine/run/layout.h\") || __has_include(\"run/layout.h\") || __has_include(\"gapless.h\")
#error Gapless shows more than its public headers
#endif
int leak(void);
int leak(void) { return gapless_version() != 0; }
")
add_library(leak OBJECT ${CMAKE_BINARY_DIR}/leak.c)
target_link_libraries(leak PRIVATE gapless::gapless)
