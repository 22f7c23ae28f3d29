# The man pages and the completion of bash and zsh, which the program writes from its tables of commands and options
# (cluster/program/manual.c, completion.c), and where they go. Not where the program cannot run here, or is for tests.
if(CMAKE_CROSSCOMPILING OR GAPLESS_SANITIZE)
  return()
endif()
set(written ${PROJECT_BINARY_DIR}/written)
add_custom_command(
  OUTPUT ${written}/man1/gapless.1 ${written}/bash/gapless ${written}/zsh/_gapless
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${written}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${written}/man1 ${written}/bash ${written}/zsh
  COMMAND gapless_program help --man ${written}/man1
  COMMAND gapless_program completion bash > ${written}/bash/gapless
  COMMAND gapless_program completion zsh > ${written}/zsh/_gapless
  DEPENDS gapless_program
  COMMENT "Writing man pages and completion" VERBATIM)
add_custom_target(gapless_written ALL DEPENDS ${written}/man1/gapless.1)
add_dependencies(gapless_installed gapless_written)

install(DIRECTORY ${written}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT runtime)
install(FILES ${written}/bash/gapless DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT runtime)
install(FILES ${written}/zsh/_gapless DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT runtime)
