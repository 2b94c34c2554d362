# format-check, format: clang-format over every source. Versions differ in their opinions, so these
# exist only where version 14 (Debian 12, Ubuntu 22.04) is found, and are no part of the tests.
find_program(SCOUT_CLANG_FORMAT NAMES clang-format-14 clang-format)
if(SCOUT_CLANG_FORMAT)
    execute_process(COMMAND ${SCOUT_CLANG_FORMAT} --version OUTPUT_VARIABLE scout_format_version)
    if(scout_format_version MATCHES "version 14\\.")
        set(scout_sources "")
        foreach(top libformat kernels train tools spec tests examples)
            file(GLOB_RECURSE found CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${top}/*.[ch]
                ${PROJECT_SOURCE_DIR}/${top}/*.cu ${PROJECT_SOURCE_DIR}/${top}/*.cuh)
            list(APPEND scout_sources ${found})
        endforeach()
        add_custom_target(format-check
            COMMAND ${SCOUT_CLANG_FORMAT} --dry-run --Werror ${scout_sources} VERBATIM)
        add_custom_target(format COMMAND ${SCOUT_CLANG_FORMAT} -i ${scout_sources} VERBATIM)
    endif()
endif()
