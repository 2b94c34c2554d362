# One way to declare each kind of target, so that flags and include roots are the same everywhere.
# Includes start at the repository's root: #include "libformat/base/err.h" names its layer.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(scout_flags INTERFACE)
target_include_directories(scout_flags INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_compile_definitions(scout_flags INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE
    _FILE_OFFSET_BITS=64)
# No contraction: a fused multiply-add would make sums depend on the compiler and the processor.
target_compile_options(scout_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wshadow;-Wstrict-prototypes;-Wpointer-arith;-Wcast-qual;-Wno-missing-field-initializers;-ffp-contract=off>)
target_compile_options(scout_flags INTERFACE $<$<COMPILE_LANG_AND_ID:C,GNU>:-Wno-format-truncation>)
if(SCOUT_WERROR)
    target_compile_options(scout_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()
if(SCOUT_SANITIZE)
    target_compile_options(scout_flags INTERFACE
        $<$<COMPILE_LANGUAGE:C>:-fsanitize=${SCOUT_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
    target_link_options(scout_flags INTERFACE -fsanitize=${SCOUT_SANITIZE})
endif()

if(SCOUT_COVERAGE) # atomic: counters that threads share; what is preloaded into others (tests/fault) goes without
    target_compile_options(scout_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:--coverage;-fprofile-update=atomic>)
    target_link_options(scout_flags INTERFACE --coverage)
endif()

# scout_library(NAME SOURCES a.c ... DEPENDS other ...): one static library, one row of the layer table.
function(scout_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC ${ARG_DEPENDS} PRIVATE scout_flags)
    set_property(GLOBAL APPEND PROPERTY SCOUT_LIBRARIES ${name})
endfunction()

# scout_tool(scout-x SOURCES x.c DEPENDS ...): an installed program.
function(scout_tool name)
    cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} scout_flags)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
    set_property(GLOBAL APPEND PROPERTY SCOUT_TOOLS ${name})
endfunction()

# scout_test(test_x SOURCES test_x.c DEPENDS ... [LABELS long]): a Check suite that ctest runs.
# Tests find fixtures through SCOUT_SOURCE_DIR and write below their own scratch directory.
function(scout_test name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;LABELS" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} scout_test_support scout_flags)
    target_compile_definitions(${name} PRIVATE SCOUT_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
        SCOUT_BINARY_DIR="${PROJECT_BINARY_DIR}")
    add_test(NAME ${name} COMMAND ${name})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 600)
    endif()
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
    if("gpu" IN_LIST ARG_LABELS)
        set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77) # no GPU: skipped, not failed
    endif()
endfunction()
