# cpack makes two Debian packages of what is installed: gapless (program, shared library, CUDA plugin, manual) and
# gapless-dev (headers, static library, pkg-config file, CMake package, examples).
#
#   cmake --build build --target gapless_installed && (cd build && cpack)
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME gapless)
set(CPACK_PACKAGE_CONTACT "The Gapless authors <gapless@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SECTION science)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME gapless)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "asynchronous distributed training: program and library
A master keeps a model's parameters, workers write gradients into its memory and
read their next parameters back, one-sided and without copies, over shared
memory or RDMA, on CPUs and NVIDIA GPUs.")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS dataset-fashion-mnist)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SUGGESTS "rdma-core, ibverbs-providers, npm")
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME gapless-dev)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "asynchronous distributed training: for programs in C
Headers, static library, pkg-config file, CMake package and examples.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "gapless (= ${PROJECT_VERSION})")
if(GAPLESS_HAVE_VERBS) # for programs that link the static library
  string(APPEND CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS ", libibverbs-dev, librdmacm-dev, libsodium-dev")
endif()
if(GAPLESS_HAVE_BLAS)
  string(APPEND CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS ", libopenblas-dev")
endif()
include(CPack)
