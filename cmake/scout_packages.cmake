# The distribution's libraries, each as one imported target. Missing ones are named together, with
# the packages that hold them, instead of stopping at the first.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

set(scout_missing "")
function(scout_package target module debian)
    pkg_check_modules(${target} QUIET IMPORTED_TARGET ${module})
    if(${target}_FOUND)
        add_library(scout::${target} ALIAS PkgConfig::${target})
    else()
        set(scout_missing "${scout_missing} ${debian}" PARENT_SCOPE)
    endif()
endfunction()

scout_package(zstd libzstd libzstd-dev)
scout_package(xxhash libxxhash libxxhash-dev)
scout_package(cjson libcjson libcjson-dev)
scout_package(pcre2 libpcre2-8 libpcre2-dev)
scout_package(libcrypto libcrypto libssl-dev)
scout_package(openblas openblas libopenblas-dev)
if(SCOUT_TESTS)
    scout_package(check check check)
endif()
if(scout_missing)
    message(FATAL_ERROR "missing libraries; on Debian or Ubuntu: apt-get install${scout_missing}")
endif()
