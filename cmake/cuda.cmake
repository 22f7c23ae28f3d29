# CUDA: the plugin libgapless_cuda.so, which the library opens at run time where there is a GPU, so that nothing else
# needs CUDA. nvcc builds it where it is found. Tests need neither nvcc nor a GPU: the same sources are compiled as C++
# against a shim of the language (tests/gpu/shim) and a fake of the runtime (tests/gpu/fake), and a C++ compiler is
# looked for only if there are tests.
#
#   gpu/*.cu, gpu/*.c ──nvcc──> gapless_cuda        libgapless_cuda.so, for GPUs
#                     ──c++───> gapless_gpu_shim    static, linked to every tests/gpu/test_*.c
#                     └───────> gapless_cuda_fake   tests/libgapless_cuda_fake.so, a plugin for the tests
#
# tests/gpu/fake_NAME*.c, .cpp: a stand-in for a library that the plugin opens: tests/libgapless_fake_NAME.so.
include(CheckLanguage)
file(GLOB GAPLESS_GPU_SOURCES CONFIGURE_DEPENDS gpu/*.cu gpu/*.c)
set(GAPLESS_CUDA_KERNELS ${GAPLESS_GPU_SOURCES})
list(FILTER GAPLESS_CUDA_KERNELS INCLUDE REGEX "\\.cu$")

# ---- nvcc ----
# Code for Turing, Ampere, Hopper and two of Blackwell, of these what nvcc knows (CUDA 12.8 is the first to know all); the
# last also as PTX, from which the driver makes code for later ones. Minor versions run the code of their major one: 8.6
# that of 8.0.
set(GAPLESS_CUDA_ARCHITECTURES AUTO CACHE STRING
  "GPU architectures, as in CMAKE_CUDA_ARCHITECTURES; AUTO: of 75, 80, 90, 100 and 120 those that nvcc knows")

# gapless_cuda_architectures(NVCC RET): those of ours that this nvcc knows; empty if it does not say.
function(gapless_cuda_architectures nvcc ret)
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET RESULT_VARIABLE code)
  set(list)
  foreach(architecture IN ITEMS 75 80 90 100 120)
    if(code EQUAL 0 AND known MATCHES "compute_${architecture}[ \r\n]")
      list(APPEND list ${architecture}-real)
    endif()
  endforeach()
  string(REGEX REPLACE "-real$" "" list "${list}")
  set(${ret} "${list}" PARENT_SCOPE)
endfunction()

# gapless_cuda_try(NVCC ARCHITECTURES RET): what is wrong with this compiler, "" if nothing: a project of one line is
# configured with it, so that a compiler that fails does not stop this one. A success is remembered.
function(gapless_cuda_try nvcc architectures ret)
  set(question "${nvcc}|${architectures}|$ENV{CUDAHOSTCXX}|${CMAKE_CUDA_HOST_COMPILER}|${CMAKE_GENERATOR}")
  if(NOT GAPLESS_CUDA_TRIED STREQUAL question)
    set(folder ${PROJECT_BINARY_DIR}/CMakeFiles/gapless_cuda_try)
    file(REMOVE_RECURSE ${folder})
    file(WRITE ${folder}/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)\nproject(try LANGUAGES CUDA)\n")
    set(host)
    if(CMAKE_CUDA_HOST_COMPILER)
      set(host -DCMAKE_CUDA_HOST_COMPILER=${CMAKE_CUDA_HOST_COMPILER})
    endif()
    execute_process(
      COMMAND ${CMAKE_COMMAND} -S ${folder} -B ${folder}/build -G ${CMAKE_GENERATOR} -DCMAKE_CUDA_COMPILER=${nvcc}
        "-DCMAKE_CUDA_ARCHITECTURES=${architectures}" ${host}
      OUTPUT_FILE ${folder}/log ERROR_FILE ${folder}/log RESULT_VARIABLE code)
    if(NOT code EQUAL 0)
      set(${ret} "${nvcc} does not work here, see ${folder}/log: is there a C++ compiler that it supports (g++)?"
        PARENT_SCOPE)
      return()
    endif()
    set(GAPLESS_CUDA_TRIED "${question}" CACHE INTERNAL "a CUDA compiler that works, and for what")
  endif()
  set(${ret} "" PARENT_SCOPE)
endfunction()

# gapless_cuda_find(RET): enables CUDA if it can be, else sets RET to the reason.
macro(gapless_cuda_find ret)
  find_program(GAPLESS_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
  set(nvcc ${GAPLESS_NVCC})
  if(CMAKE_CUDA_COMPILER)
    set(nvcc ${CMAKE_CUDA_COMPILER})
  elseif(DEFINED ENV{CUDACXX})
    set(nvcc $ENV{CUDACXX})
  endif()
  if(DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(architectures ${CMAKE_CUDA_ARCHITECTURES})
  elseif(GAPLESS_CUDA_ARCHITECTURES STREQUAL AUTO)
    gapless_cuda_architectures("${nvcc}" architectures)
  else()
    set(architectures ${GAPLESS_CUDA_ARCHITECTURES})
  endif()
  if(NOT nvcc)
    set(${ret} "nvcc not found (it is optional: install NVIDIA's CUDA toolkit, or set CUDA_HOME)")
  elseif(NOT architectures)
    set(${ret} "'${nvcc} --list-gpu-arch' names none of the GPUs that Gapless has code for")
  else()
    gapless_cuda_try("${nvcc}" "${architectures}" ${ret})
  endif()
  if(${ret} STREQUAL "")
    set(CMAKE_CUDA_COMPILER ${nvcc})
    set(CMAKE_CUDA_ARCHITECTURES ${architectures})
    enable_language(CUDA)
    set(GAPLESS_HAVE_CUDA ON)
  endif()
endmacro()

set(GAPLESS_HAVE_CUDA OFF)
set(GAPLESS_CUDA_WHY "switched off")
if(GAPLESS_SANITIZE)
  set(GAPLESS_CUDA_WHY "not with sanitizers")
elseif(GAPLESS_CUDA STREQUAL AUTO OR GAPLESS_CUDA)
  gapless_cuda_find(GAPLESS_CUDA_WHY)
  if(NOT GAPLESS_HAVE_CUDA AND NOT GAPLESS_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "GAPLESS_CUDA=${GAPLESS_CUDA}: ${GAPLESS_CUDA_WHY} "
      "Configure with GAPLESS_CUDA=OFF (or AUTO) to build without.")
  endif()
endif()

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo")
set(CMAKE_CUDA_FLAGS_DEBUG "-O1 -g -lineinfo") # device code is optimised all the same
# The bits of the CPU: no contraction, division and square root rounded correctly, denormals kept.
set(GAPLESS_CUDA_ARITHMETIC --fmad=false --prec-div=true --prec-sqrt=true --ftz=false)

if(GAPLESS_HAVE_CUDA AND GAPLESS_CUDA_KERNELS)
  add_library(gapless_cuda MODULE ${GAPLESS_GPU_SOURCES} engine/status.c)
  target_include_directories(gapless_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(gapless_cuda PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:${GAPLESS_CUDA_ARITHMETIC};-Xptxas=-warn-spills;-Xptxas=-warn-lmem-usage>")
  if(GAPLESS_TESTS) # what is between source and object, which tests/gpu/test_codegen.sh reads
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/gpu/nvcc)
    target_compile_options(gapless_cuda PRIVATE
      "$<$<COMPILE_LANGUAGE:CUDA>:--keep;--keep-dir=${PROJECT_BINARY_DIR}/gpu/nvcc>")
  endif()
  set_target_properties(gapless_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static
    C_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden)
  target_link_options(gapless_cuda PRIVATE LINKER:--exclude-libs,ALL LINKER:--no-undefined)
endif()

# ---- the shim, for tests ----
# The C++ compiler that belongs to the C compiler, else any.
function(gapless_find_cxx)
  if(CMAKE_CXX_COMPILER OR DEFINED ENV{CXX})
    return()
  endif()
  get_filename_component(folder "${CMAKE_C_COMPILER}" DIRECTORY)
  get_filename_component(name "${CMAKE_C_COMPILER}" NAME)
  if(CMAKE_C_COMPILER_ID STREQUAL GNU)
    string(REPLACE gcc g++ name "${name}")
    set(others g++ c++)
  else()
    string(REPLACE clang clang++ name "${name}")
    set(others clang++ c++ g++)
  endif()
  if(NOT name MATCHES "\\+\\+")
    set(name "")
  endif()
  find_program(GAPLESS_CXX NAMES ${name} ${others} HINTS ${folder})
  if(GAPLESS_CXX)
    set(ENV{CXX} ${GAPLESS_CXX})
  endif()
endfunction()

set(GAPLESS_HAVE_SHIM OFF)
if(GAPLESS_TESTS)
  gapless_find_cxx()
  check_language(CXX)
  if(CMAKE_CXX_COMPILER)
    enable_language(CXX)
    set(GAPLESS_HAVE_SHIM ON)
  endif()
endif()
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_FLAGS_RELEASE "-O3")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O3 -g")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")

function(gapless_shim_settings target)
  target_include_directories(${target} BEFORE PUBLIC ${PROJECT_SOURCE_DIR}/tests/gpu/shim)
  target_compile_definitions(${target} PUBLIC GAPLESS_CUDA_SHIM=1)
  # #pragma unroll is for nvcc.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-unknown-pragmas>)
  target_link_libraries(${target} PUBLIC Threads::Threads m ${CMAKE_DL_LIBS})
endfunction()

if(GAPLESS_HAVE_SHIM AND GAPLESS_GPU_SOURCES)
  # A .cu file is CUDA in one target and C++ in the other two: these compile a line that includes it.
  set(shim_sources)
  foreach(source IN LISTS GAPLESS_GPU_SOURCES)
    get_filename_component(name ${source} NAME_WE)
    if(source MATCHES "\\.cu$")
      set(wrapper ${PROJECT_BINARY_DIR}/gpu/${name}.shim.cpp)
      file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n" @ONLY)
      list(APPEND shim_sources ${wrapper})
      if(GAPLESS_SANITIZE MATCHES address AND name MATCHES "^compute_") # halves the time to compile them
        set_source_files_properties(${wrapper} PROPERTIES COMPILE_OPTIONS -fno-sanitize-address-use-after-scope)
      endif()
    else()
      list(APPEND shim_sources ${source})
    endif()
  endforeach()
  file(GLOB parts CONFIGURE_DEPENDS tests/gpu/shim/*.cpp tests/gpu/fake/*.cpp tests/gpu/shim/*.c tests/gpu/fake/*.c)
  list(APPEND shim_sources ${parts})
  # The thread sanitizer follows what the scheduler tells it, not how the scheduler does it.
  file(GLOB schedulers CONFIGURE_DEPENDS tests/gpu/shim/sched*.cpp)
  if(GAPLESS_SANITIZE MATCHES thread)
    set_source_files_properties(${schedulers} PROPERTIES COMPILE_OPTIONS -fno-sanitize=thread)
  endif()

  # Compiled once for both.
  add_library(gapless_gpu_objects OBJECT ${shim_sources})
  gapless_shim_settings(gapless_gpu_objects)
  set_target_properties(gapless_gpu_objects PROPERTIES C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
  add_library(gapless_gpu_shim STATIC $<TARGET_OBJECTS:gapless_gpu_objects>)
  gapless_shim_settings(gapless_gpu_shim)
  set_target_properties(gapless_gpu_shim PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(gapless_gpu_shim INTERFACE gapless_internal) # status.c
  add_library(gapless_cuda_fake MODULE $<TARGET_OBJECTS:gapless_gpu_objects> engine/status.c)
  gapless_shim_settings(gapless_cuda_fake)
  set_target_properties(gapless_cuda_fake PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests
    LINKER_LANGUAGE CXX C_VISIBILITY_PRESET hidden)

  set(GAPLESS_FAKES gapless_cuda_fake)
  file(GLOB stand_ins CONFIGURE_DEPENDS tests/gpu/fake_*.c tests/gpu/fake_*.cpp)
  foreach(source IN LISTS stand_ins)
    string(REGEX REPLACE ".*/(fake_[a-z0-9]+)[^/]*$" "gapless_\\1" target ${source})
    if(NOT TARGET ${target})
      add_library(${target} MODULE)
      gapless_shim_settings(${target})
      set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
      list(APPEND GAPLESS_FAKES ${target})
    endif()
    target_sources(${target} PRIVATE ${source})
  endforeach()
endif()
