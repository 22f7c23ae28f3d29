# Files named *_isa.c are compiled once for each instruction set, with GAPLESS_ISA_NAME; the best is taken at run time.
# They are always optimised, also where CMAKE_C_FLAGS say less: without it the passes are many times slower.
# A sanitizer looks at the source, which is the same for all of them: there one is enough, and the others would be half
# of the build.
set(GAPLESS_ISA_NAMES generic)
set(GAPLESS_ISA_FLAGS_generic "")
if(GAPLESS_SANITIZE OR GAPLESS_ISA STREQUAL generic)
  add_compile_definitions(GAPLESS_ISA_ONE)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  list(APPEND GAPLESS_ISA_NAMES avx2 avx512)
  # -mprfchw: a prefetch to write is one, and not one to read, after which the store would have to ask once more. What lacks
  # the instruction (Haswell) takes it for none.
  set(GAPLESS_ISA_FLAGS_avx2 -march=x86-64-v3 -mprfchw)
  set(GAPLESS_ISA_FLAGS_avx512 -march=x86-64-v4 -mprefer-vector-width=512 -mprfchw)
endif()

# Sanitized, these files take most of the time of a build. They hand no address of a local around, and every element that
# they reach for is looked up by the address sanitizer: watching over scopes, and over the pointers themselves, finds
# nothing more and takes two thirds of that time.
function(gapless_isa_sanitize target)
  if(GAPLESS_SANITIZE MATCHES address)
    target_compile_options(${target} PRIVATE -fno-sanitize-address-use-after-scope -fno-sanitize=object-size,pointer-overflow)
  endif()
endfunction()

# gapless_isa_objects(RET SOURCE...): sets RET to the objects of each source for each instruction set.
function(gapless_isa_objects ret)
  set(objects)
  foreach(source IN LISTS ARGN)
    get_filename_component(name ${source} NAME_WE)
    foreach(isa IN LISTS GAPLESS_ISA_NAMES)
      set(target gapless_${name}_${isa})
      add_library(${target} OBJECT ${source})
      target_compile_definitions(${target} PRIVATE GAPLESS_ISA_NAME=${isa})
      target_compile_options(${target} PRIVATE ${GAPLESS_ISA_FLAGS_${isa}} $<$<NOT:$<CONFIG:Debug>>:-O3>)
      gapless_isa_sanitize(${target})
      list(APPEND objects $<TARGET_OBJECTS:${target}>)
    endforeach()
  endforeach()
  set(${ret} ${objects} PARENT_SCOPE)
endfunction()
