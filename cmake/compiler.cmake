# C17 and the flags. Contraction stays off so that every compiler and instruction set gives the same bits; errno of
# sqrt is not wanted, which lets it vectorise; assertions stay in release builds.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_FLAGS_RELEASE "-O3")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O3 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")

add_compile_definitions(_GNU_SOURCE GAPLESS_RELEASE="${PROJECT_VERSION}")
add_compile_options(-ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wwrite-strings -Wformat=2 -Wundef -Wdouble-promotion -Wpointer-arith -Wimplicit-fallthrough
  -Wswitch-enum)
if(CMAKE_C_COMPILER_ID STREQUAL GNU)
  add_compile_options(-Wcast-align=strict)
else()
  # clang knows no "strict": its -Wcast-align also flags casts that are aligned by construction. Its -Wdouble-promotion
  # also flags NAN and INFINITY, which are floats. gcc sees to both.
  add_compile_options(-Wno-cast-align -Wno-double-promotion)
endif()
if(GAPLESS_WERROR)
  add_compile_options(-Werror)
endif()

if(GAPLESS_SANITIZE)
  add_compile_options(-fsanitize=${GAPLESS_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g)
  add_link_options(-fsanitize=${GAPLESS_SANITIZE})
endif()
