# engine/rules/components.h, in the build folder: an #include for every header of engine/rules/corrections and
# engine/rules/momenta, so that a new one is found by being there (engine/rules/compute_rules.h includes it).
file(GLOB headers RELATIVE ${PROJECT_SOURCE_DIR} CONFIGURE_DEPENDS engine/rules/corrections/*.h engine/rules/momenta/*.h)
list(TRANSFORM headers REPLACE "(.+)" "#include \"\\1\"\n")
list(JOIN headers "" headers)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/engine/rules/components.h @ONLY CONTENT
  "/* Every component of a rule. Made by cmake/rules.cmake. */\n@headers@")
include_directories(${PROJECT_BINARY_DIR}/generated)
