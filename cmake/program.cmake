# The program gapless: workloads (data and models), benchmarks, commands.
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(INIH REQUIRED IMPORTED_TARGET inih)

file(GLOB_RECURSE GAPLESS_WORKLOAD_SOURCES CONFIGURE_DEPENDS cluster/workloads/*.c bench/*.c)
list(FILTER GAPLESS_WORKLOAD_SOURCES EXCLUDE REGEX "/cluster/workloads/convert/")
set(GAPLESS_WORKLOAD_ISA_SOURCES ${GAPLESS_WORKLOAD_SOURCES})
list(FILTER GAPLESS_WORKLOAD_ISA_SOURCES INCLUDE REGEX "_isa\\.c$")
list(FILTER GAPLESS_WORKLOAD_SOURCES EXCLUDE REGEX "_isa\\.c$")
gapless_isa_objects(GAPLESS_WORKLOAD_ISA_OBJECTS ${GAPLESS_WORKLOAD_ISA_SOURCES})
add_library(gapless_workloads STATIC ${GAPLESS_WORKLOAD_SOURCES} ${GAPLESS_WORKLOAD_ISA_OBJECTS})
target_compile_definitions(gapless_workloads PUBLIC GAPLESS_HAVE_VERBS=$<BOOL:${GAPLESS_HAVE_VERBS}>)
target_link_libraries(gapless_workloads PUBLIC
  gapless_internal PkgConfig::OPENBLAS PkgConfig::JANSSON ZLIB::ZLIB m)

file(GLOB_RECURSE GAPLESS_PROGRAM_SOURCES CONFIGURE_DEPENDS cluster/*.c)
list(FILTER GAPLESS_PROGRAM_SOURCES EXCLUDE REGEX "/cluster/(main\\.c$|workloads/)")
include(cmake/page.cmake)
include(cmake/figures.cmake)
add_library(gapless_cluster STATIC ${GAPLESS_PROGRAM_SOURCES} ${GAPLESS_PAGE_SOURCE}
  ${GAPLESS_FIGURES_SOURCE}) # all but main: tests link it too
target_link_libraries(gapless_cluster PUBLIC gapless_workloads PkgConfig::INIH)

include(cmake/commit.cmake)
add_executable(gapless_program cluster/main.c ${GAPLESS_COMMIT_SOURCE})
add_dependencies(gapless_program gapless_commit)
set_target_properties(gapless_program PROPERTIES OUTPUT_NAME gapless)
target_link_libraries(gapless_program PRIVATE gapless_cluster)

# What `cluster/workloads/fetch-data cifar-10` unpacks its images with; nothing else needs it.
pkg_check_modules(SPNG QUIET IMPORTED_TARGET spng)
if(SPNG_FOUND)
  add_executable(gapless_cifar10 cluster/workloads/convert/cifar10.c)
  set_target_properties(gapless_cifar10 PROPERTIES OUTPUT_NAME gapless-cifar10)
  target_link_libraries(gapless_cifar10 PRIVATE PkgConfig::SPNG PkgConfig::JANSSON)
endif()
