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
        FILES_MATCHING PATTERN "*.h")
endforeach()

# Static libraries link from the top of the layer table to the bottom.
list(REVERSE scout_libraries)
list(TRANSFORM scout_libraries PREPEND "-l" OUTPUT_VARIABLE scout_link)
string(JOIN " " SCOUT_PC_LIBS ${scout_link})
configure_file(${CMAKE_CURRENT_LIST_DIR}/scout.pc.in ${PROJECT_BINARY_DIR}/scout.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/scout.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
