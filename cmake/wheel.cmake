# `cmake --build build --target wheel`: build/wheel/gapless-VERSION-py3-none-PLATFORM.whl, the Python package with the
# library inside. For machines that have what the library is linked with (see ldd). Nothing is fetched: it needs pip,
# setuptools and wheel of the Python below. Not part of `all`: ./quickstart needs no Python.
if(NOT TARGET gapless_shared)
  return()
endif()
find_program(GAPLESS_WHEEL_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)
if(NOT GAPLESS_WHEEL_PYTHON)
  find_program(GAPLESS_WHEEL_PYTHON python3)
endif()
if(NOT GAPLESS_WHEEL_PYTHON)
  return()
endif()

set(GAPLESS_WHEEL_TREE ${PROJECT_BINARY_DIR}/wheel/tree)
set(GAPLESS_WHEEL_LIBRARIES $<TARGET_FILE:gapless_shared> ${GAPLESS_WHEEL_TREE}/gapless/libgapless.so)
if(TARGET gapless_cuda)
  set(GAPLESS_WHEEL_CUDA COMMAND ${CMAKE_COMMAND} -E copy $<TARGET_FILE:gapless_cuda>
    ${GAPLESS_WHEEL_TREE}/gapless/libgapless_cuda.so)
endif()
add_custom_target(wheel VERBATIM
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${PROJECT_BINARY_DIR}/wheel
  COMMAND ${CMAKE_COMMAND} -E copy_directory ${PROJECT_SOURCE_DIR}/python ${GAPLESS_WHEEL_TREE}
  COMMAND ${CMAKE_COMMAND} -E copy ${GAPLESS_WHEEL_LIBRARIES}
  ${GAPLESS_WHEEL_CUDA}
  COMMAND ${GAPLESS_WHEEL_PYTHON} -m pip wheel --quiet --no-index --no-deps --no-build-isolation
    --disable-pip-version-check --no-cache-dir -w ${PROJECT_BINARY_DIR}/wheel ${GAPLESS_WHEEL_TREE}
  COMMENT "Making the Python wheel")
add_dependencies(wheel gapless_shared)
