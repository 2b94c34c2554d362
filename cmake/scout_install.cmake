# cmake --install: the three tools, the public headers with their layers as folders, the libraries
# and one .pc file.

get_property(scout_libraries GLOBAL PROPERTY SCOUT_LIBRARIES)
get_property(scout_tools GLOBAL PROPERTY SCOUT_TOOLS)
if(scout_tools)
    install(TARGETS ${scout_tools} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(TARGETS ${scout_libraries} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
foreach(layer libformat kernels train)
    install(DIRECTORY ${PROJECT_SOURCE_DIR}/${layer} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/scout
        FILES_MATCHING PATTERN "*.h"
        PATTERN "*_x86.h" EXCLUDE # compiles only with the flags of the files that use it
        PATTERN "*_cuda.h" EXCLUDE # what the CUDA fillings share among themselves; cuda_ctx.h is their door
        PATTERN "cuda_call.h" EXCLUDE
        PATTERN "cuda_fault.h" EXCLUDE
        PATTERN "cuda_private.h" EXCLUDE)
endforeach()

# The libraries are static, so whoever links them links what they stand on (Requires, not
# Requires.private); from the top of the layer table to the bottom. The prefix is found from where
# scout.pc lies: `cmake --install --prefix` may move it.
list(REVERSE scout_libraries)
list(TRANSFORM scout_libraries PREPEND "-l" OUTPUT_VARIABLE scout_link)
string(JOIN " " SCOUT_PC_LIBS ${scout_link})
file(RELATIVE_PATH scout_up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" scout_up "${scout_up}")
set(SCOUT_PC_PREFIX "\${pcfiledir}/${scout_up}")
configure_file(${CMAKE_CURRENT_LIST_DIR}/scout.pc.in ${PROJECT_BINARY_DIR}/scout.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/scout.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
