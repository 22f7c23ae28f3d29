# Two files in the build folder, made of the headers of engine/rules/corrections and engine/rules/momenta, so that a new one
# is found by being there (engine/rules/compute_rules.h includes them or says who does):
#
#   engine/rules/components.h       an #include for each; and for each momentum IF_MATRIX_NAME(...), which is its
#                                   arguments where the header has NAME_gather_reads, a momentum of matrices, else nothing
#   engine/rules/matrix_momenta.def  MATRIX_MOMENTUM(NAME) for each of those
file(GLOB headers RELATIVE ${PROJECT_SOURCE_DIR} CONFIGURE_DEPENDS engine/rules/corrections/*.h engine/rules/momenta/*.h)
set(components "")
set(matrix_momenta "")
foreach(header IN LISTS headers)
  string(APPEND components "#include \"${header}\"\n")
  if(header MATCHES "/momenta/(.+)\\.h$")
    set(name ${CMAKE_MATCH_1})
    file(STRINGS ${header} found REGEX "^ *${name}_gather_reads =")
    if(found)
      string(APPEND components "#define IF_MATRIX_${name}(...) __VA_ARGS__\n")
      string(APPEND matrix_momenta "MATRIX_MOMENTUM(${name})\n")
    else()
      string(APPEND components "#define IF_MATRIX_${name}(...)\n")
    endif()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${header})
  endif()
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/engine/rules/components.h @ONLY CONTENT
  "/* Every component of a rule. Made by cmake/rules.cmake. */\n@components@")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/engine/rules/matrix_momenta.def @ONLY CONTENT
  "/* Every momentum of matrices. Made by cmake/rules.cmake. */\n@matrix_momenta@")
include_directories(${PROJECT_BINARY_DIR}/generated)
