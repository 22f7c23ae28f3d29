# What a page of `gapless report` is made of, put into the program as one C file: a template, its style, its script, and
# Chart.js. Run as a script (cmake -P) at build time; included, it says where Chart.js is.
#   GAPLESS_CHARTJS   AUTO: Debian's libjs-chart.js where it is found; OFF: pages have their tables only; or a file
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(GAPLESS_CHARTJS AUTO CACHE STRING "Chart.js for pages: AUTO (libjs-chart.js if found), OFF, or a path to chart.min.js")
  set(GAPLESS_CHARTJS_FILE "")
  if(GAPLESS_CHARTJS STREQUAL AUTO OR GAPLESS_CHARTJS STREQUAL ON)
    foreach(folder /usr/share/javascript/chart.js /usr/local/share/javascript/chart.js)
      if(NOT GAPLESS_CHARTJS_FILE AND EXISTS ${folder}/chart.min.js)
        set(GAPLESS_CHARTJS_FILE ${folder}/chart.min.js)
      endif()
    endforeach()
    if(GAPLESS_CHARTJS STREQUAL ON AND NOT GAPLESS_CHARTJS_FILE)
      message(FATAL_ERROR "GAPLESS_CHARTJS=ON needs Chart.js: install libjs-chart.js, or give the path of a "
        "chart.min.js of version 3, or configure with GAPLESS_CHARTJS=OFF.")
    endif()
  elseif(GAPLESS_CHARTJS)
    set(GAPLESS_CHARTJS_FILE ${GAPLESS_CHARTJS})
    if(NOT EXISTS ${GAPLESS_CHARTJS_FILE})
      message(FATAL_ERROR "GAPLESS_CHARTJS=${GAPLESS_CHARTJS}: there is no such file.")
    endif()
  endif()

  set(GAPLESS_PAGE_SOURCE ${PROJECT_BINARY_DIR}/page_assets.c)
  set(page ${PROJECT_SOURCE_DIR}/cluster/report)
  add_custom_command(OUTPUT ${GAPLESS_PAGE_SOURCE}
    COMMAND ${CMAKE_COMMAND} -DPAGE=${page} -DCHARTJS=${GAPLESS_CHARTJS_FILE} -DOUT=${GAPLESS_PAGE_SOURCE}
      -P ${CMAKE_CURRENT_LIST_FILE}
    DEPENDS ${CMAKE_CURRENT_LIST_FILE} ${page}/page.html ${page}/page.css ${page}/page.js ${GAPLESS_CHARTJS_FILE}
    COMMENT "The page's template and Chart.js as C" VERBATIM)
  return()
endif()

# A file as an array of bytes that ends with a zero.
function(write_array name file)
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  file(APPEND ${OUT}.new "static const unsigned char ${name}[] = {\n${bytes}0};\n")
endfunction()

file(WRITE ${OUT}.new "/* Written by cmake/page.cmake. */\n#include \"cluster/report/page.h\"\n\n")
write_array(html ${PAGE}/page.html)
write_array(css ${PAGE}/page.css)
write_array(js ${PAGE}/page.js)
set(chart_js "NULL")
if(CHARTJS)
  write_array(chart_js ${CHARTJS})
  set(chart_js "(const char *)chart_js")
endif()
file(APPEND ${OUT}.new "const struct page_assets page_assets = {(const char *)html, (const char *)css,\n"
  "                                        (const char *)js, ${chart_js}};\n")
file(RENAME ${OUT}.new ${OUT})
