# Holds the layer table of ARCHITECTURE.md true: reads every #include line of the tree at ROOT.
#   cmake -DROOT=<checkout> -P tests/layers.cmake
# A quoted include starts at the root, names a file that is there, and stays within its row. The
# libraries we stand on have one door each. Headers have names that are unique in the tree.
cmake_minimum_required(VERSION 3.22)

# row | rows it may include, besides itself ("*": any row of the tree's own)
set(rows
    "libformat/base|"
    "libformat/tensor|libformat/base"
    "libformat/codec|libformat/base libformat/tensor"
    "libformat/hf|libformat/base libformat/tensor"
    "libformat/text|libformat/base"
    "libformat/container|libformat/base libformat/tensor libformat/codec"
    "libformat/adapter|libformat/base libformat/tensor libformat/hf"
    "libformat/convert|libformat/base libformat/tensor libformat/codec libformat/hf libformat/text libformat/container libformat/adapter"
    "kernels|libformat/base libformat/tensor libformat/codec"
    "train/plan|libformat/base libformat/tensor libformat/codec libformat/hf libformat/text libformat/container libformat/adapter libformat/convert kernels"
    "train/data|libformat/base libformat/text libformat/codec"
    "train|libformat/base libformat/tensor libformat/codec libformat/container libformat/adapter train/plan train/data kernels"
    "tools|libformat/base libformat/tensor libformat/codec libformat/hf libformat/text libformat/container libformat/adapter libformat/convert kernels train/plan train/data train"
    "examples|libformat/base libformat/tensor libformat/codec libformat/hf libformat/text libformat/container libformat/adapter libformat/convert kernels train/plan train/data train"
    "spec|"
    "tests|*")

# pattern of a header of somebody else's <- pattern of the files that may include it
set(doors
    "^cjson/ <- ^libformat/base/json\\.c$"
    "^pthread\\.h$ <- ^libformat/base/(jobs|map_guard)\\.c$"
    "^sys/mman\\.h$ <- ^(libformat/base/(file|map_guard|mem)\\.c|spec/decoder/.*)$"
    "^(zstd|zstd_errors|zdict|xxhash)\\.h$ <- ^(libformat/codec|spec/decoder)/"
    "^openssl/ <- ^libformat/hf/sha256\\.c$"
    "^sys/inotify\\.h$ <- ^libformat/base/watch\\.c$"
    "^pcre2\\.h$ <- ^libformat/(text/|adapter/adapter_pattern\\.c$)"
    "^(cblas|omp)\\.h$ <- ^kernels/.*_cpu\\.c$"
    "^(cuda|cublas|cudnn|nccl|cutlass|cub/|cooperative_groups) <- ^kernels/"
    "^check\\.h$ <- ^tests/support/support\\.h$") # tests may use all the others

set(problems "")

function(problem text)
    list(APPEND problems "${text}")
    set(problems "${problems}" PARENT_SCOPE)
endfunction()

# The longest row that is a prefix of `path`; "" if none.
function(row_of out path)
    set(best "")
    string(LENGTH "${best}" best_length)
    foreach(row IN LISTS rows)
        string(REGEX REPLACE "\\|.*" "" name "${row}")
        string(LENGTH "${name}" length)
        string(FIND "${path}" "${name}/" at)
        if(at EQUAL 0 AND length GREATER best_length)
            set(best "${name}")
            set(best_length ${length})
        endif()
    endforeach()
    set(${out} "${best}" PARENT_SCOPE)
endfunction()

function(check_own file row include)
    if(NOT EXISTS "${ROOT}/${include}")
        problem("${file}: \"${include}\" is no file below the root")
    else()
        row_of(target "${include}")
        set(allowed "")
        foreach(line IN LISTS rows)
            if(line MATCHES "^${row}\\|(.*)$")
                string(REPLACE " " ";" allowed "${CMAKE_MATCH_1}")
            endif()
        endforeach()
        if(NOT target STREQUAL row AND NOT allowed STREQUAL "*" AND NOT target IN_LIST allowed)
            problem("${file}: \"${include}\": ${row} may not include ${target}")
        endif()
    endif()
    set(problems "${problems}" PARENT_SCOPE)
endfunction()

function(check_door file include)
    foreach(door IN LISTS doors)
        string(REGEX MATCH "^(.*) <- (.*)$" matched "${door}")
        set(header "${CMAKE_MATCH_1}")
        set(place "${CMAKE_MATCH_2}")
        if(file MATCHES "^tests/" AND NOT place MATCHES "^\\^tests/")
            continue()
        endif()
        if(include MATCHES "${header}" AND NOT file MATCHES "${place}")
            problem("${file}: <${include}> has its door elsewhere (${place})")
        endif()
    endforeach()
    set(problems "${problems}" PARENT_SCOPE)
endfunction()

set(files "")
foreach(top libformat kernels train tools examples spec tests)
    file(GLOB_RECURSE found RELATIVE "${ROOT}" "${ROOT}/${top}/*.[ch]" "${ROOT}/${top}/*.cu"
        "${ROOT}/${top}/*.cuh")
    list(APPEND files ${found})
endforeach()
if(NOT files)
    message(FATAL_ERROR "no source below ${ROOT}")
endif()

set(seen "")
set(lines_read 0)
foreach(file IN LISTS files)
    row_of(row "${file}")
    if(NOT row)
        problem("${file}: stands in no row of the table")
    endif()
    get_filename_component(name "${file}" NAME)
    if(name MATCHES "\\.h$" AND name IN_LIST seen)
        problem("${file}: another header is named ${name}")
    endif()
    list(APPEND seen "${name}")
    file(STRINGS "${ROOT}/${file}" lines REGEX "^[ \t]*#[ \t]*include[ \t]*[<\"]")
    foreach(line IN LISTS lines)
        math(EXPR lines_read "${lines_read} + 1")
        if(line MATCHES "include[ \t]*\"([^\"]*)\"")
            check_own("${file}" "${row}" "${CMAKE_MATCH_1}")
        elseif(line MATCHES "include[ \t]*<([^>]*)>")
            check_door("${file}" "${CMAKE_MATCH_1}")
        endif()
    endforeach()
endforeach()

list(LENGTH files file_count)
if(problems)
    list(JOIN problems "\n" text)
    message(FATAL_ERROR "the layer table is broken:\n${text}")
endif()
message(STATUS "${lines_read} includes in ${file_count} files keep to the layer table")
