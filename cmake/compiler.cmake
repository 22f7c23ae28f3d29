# C17 and the flags. Contraction stays off so that every compiler and instruction set gives the same bits; errno of
# sqrt is not wanted, which lets it vectorise; assertions stay in release builds.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(PROJECT_IS_TOP_LEVEL) # else the project above says how its build types compile
  set(CMAKE_C_FLAGS_RELEASE "-O3")
  set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O3 -g")
  set(CMAKE_C_FLAGS_DEBUG "-O1 -g")
endif()

add_compile_definitions(_GNU_SOURCE GAPLESS_RELEASE="${PROJECT_VERSION}")
# Each language has its own; for CUDA they are nvcc's, and what follows -Xcompiler is for the C++ compiler behind it.
set(GAPLESS_C_FLAGS -ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wwrite-strings -Wformat=2 -Wundef -Wdouble-promotion -Wpointer-arith -Wimplicit-fallthrough
  -Wswitch-enum)
set(GAPLESS_CXX_FLAGS -ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wshadow -Wconversion -Wvla -Wformat=2 -Wundef -Wdouble-promotion -Wpointer-arith -Wswitch-enum)
set(GAPLESS_CUDA_FLAGS -Xcompiler=-ffp-contract=off,-fno-math-errno,-Wall,-Wextra)
if(CMAKE_C_COMPILER_ID STREQUAL GNU)
  list(APPEND GAPLESS_C_FLAGS -Wcast-align=strict)
else()
  # clang knows no "strict": its -Wcast-align also flags casts that are aligned by construction. Its -Wdouble-promotion
  # also flags NAN and INFINITY, which are floats. gcc sees to both.
  list(APPEND GAPLESS_C_FLAGS -Wno-cast-align -Wno-double-promotion)
  list(APPEND GAPLESS_CXX_FLAGS -Wno-double-promotion)
endif()
if(GAPLESS_WERROR)
  list(APPEND GAPLESS_C_FLAGS -Werror)
  list(APPEND GAPLESS_CXX_FLAGS -Werror)
  list(APPEND GAPLESS_CUDA_FLAGS -Werror=all-warnings)
endif()
foreach(language C CXX CUDA)
  add_compile_options("$<$<COMPILE_LANGUAGE:${language}>:${GAPLESS_${language}_FLAGS}>")
endforeach()

if(GAPLESS_FUZZ) # libFuzzer's eyes on what is run; clang has it
  if(NOT CMAKE_C_COMPILER_ID MATCHES Clang)
    message(FATAL_ERROR "GAPLESS_FUZZ needs clang: cmake --preset fuzz")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(GAPLESS_SANITIZE) # of names for a debugger the lines are enough: a report has no more
  add_compile_options(-fsanitize=${GAPLESS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  add_link_options(-fsanitize=${GAPLESS_SANITIZE})
  # These two need a run-time library for C++, which a program in C that opens a plugin in C++ does not have.
  if(GAPLESS_SANITIZE MATCHES undefined)
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=vptr$<$<C_COMPILER_ID:Clang>:,function>>)
  endif()
endif()
