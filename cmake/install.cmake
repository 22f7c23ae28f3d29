# What an installed Gapless has: component "runtime" (program, shared library), component "development" (headers, static
# library, pkg-config file, CMake package). An installed tree may be moved: both packages find their prefix themselves.
include(CMakePackageConfigHelpers)
set(GAPLESS_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/gapless)

# All that is built and installed: `cmake --build build --target gapless_installed` is enough for `cmake --install`.
add_custom_target(gapless_installed)
macro(gapless_install target) # and what install(TARGETS) takes
  if(TARGET ${target})
    install(TARGETS ${target} ${ARGN})
    add_dependencies(gapless_installed ${target})
  endif()
endmacro()

gapless_install(gapless_program RUNTIME COMPONENT runtime)
gapless_install(gapless_cifar10 RUNTIME COMPONENT runtime)
gapless_install(gapless_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime)
gapless_install(gapless_shared EXPORT gapless LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
gapless_install(gapless_static EXPORT gapless ARCHIVE COMPONENT development)
install(DIRECTORY engine/include/gapless DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(FILES LICENSE README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime FILES_MATCHING PATTERN *.md)
install(FILES bench/results/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/bench/results COMPONENT runtime)
install(DIRECTORY contrib DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT development)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/gapless RENAME copyright COMPONENT runtime)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/gapless-dev RENAME copyright COMPONENT development)
if(GAPLESS_PROGRAM)
  install(DIRECTORY bench/studies DESTINATION ${CMAKE_INSTALL_DATADIR}/gapless COMPONENT runtime)
  install(PROGRAMS cluster/workloads/fetch-data DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME gapless-fetch-data
    COMPONENT runtime)
endif()

install(EXPORT gapless NAMESPACE gapless:: FILE gaplessTargets.cmake
  DESTINATION ${GAPLESS_CMAKE_DIR} COMPONENT development)
configure_package_config_file(engine/gaplessConfig.cmake.in gaplessConfig.cmake
  INSTALL_DESTINATION ${GAPLESS_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(gaplessConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gaplessConfig.cmake ${PROJECT_BINARY_DIR}/gaplessConfigVersion.cmake
  DESTINATION ${GAPLESS_CMAKE_DIR} COMPONENT development)

# gapless.pc names directories relative to itself where they lie under the prefix.
file(RELATIVE_PATH GAPLESS_PC_PREFIX
  ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" GAPLESS_PC_PREFIX ${GAPLESS_PC_PREFIX})
foreach(dir LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE ${CMAKE_INSTALL_${dir}})
    set(GAPLESS_PC_${dir} ${CMAKE_INSTALL_${dir}})
  else()
    set(GAPLESS_PC_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
set(GAPLESS_PC_PRIVATE ${GAPLESS_NETWORK_LIBRARIES} ${BLAS_LIBRARIES})
list(TRANSFORM GAPLESS_PC_PRIVATE PREPEND "-l")
list(JOIN GAPLESS_PC_PRIVATE " " GAPLESS_PC_PRIVATE)
configure_file(engine/gapless.pc.in gapless.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/gapless.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
