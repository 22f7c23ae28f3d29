# The commit that `gapless --version` names. As a script (cmake -DSOURCE=... -DFILE=... -P commit.cmake) it writes FILE, a C
# source with the text, if that changed; it runs at every build, so that the text is that of the sources compiled. Without
# a repository of its own (a tarball, even inside another repository) or without git the text is empty.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(GAPLESS_COMMIT_SOURCE ${PROJECT_BINARY_DIR}/generated/commit.c)
  add_custom_target(gapless_commit
    COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DFILE=${GAPLESS_COMMIT_SOURCE} -P ${CMAKE_CURRENT_LIST_FILE}
    BYPRODUCTS ${GAPLESS_COMMIT_SOURCE} COMMENT "" VERBATIM)
  return()
endif()

cmake_minimum_required(VERSION 3.25)
set(commit "")
find_program(git git NO_CACHE)
if(git AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${git} -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude *
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT ${FILE} @ONLY CONTENT "/* Made by cmake/commit.cmake. */
#include \"cluster/program/program.h\"

const char program_commit_built[] = \"@commit@\";
")
