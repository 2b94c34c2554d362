# Does tests/layers.cmake see what it should? One small tree that keeps to the table, then one
# broken line at a time.
#   cmake -DLAYERS=<tests/layers.cmake> -DSCRATCH=<folder> -P tests/layers_selftest.cmake
cmake_minimum_required(VERSION 3.22)

function(run_with out_code out_text file content)
    file(REMOVE_RECURSE "${SCRATCH}")
    file(WRITE "${SCRATCH}/libformat/base/err.h" "#include <stdarg.h>\n")
    file(WRITE "${SCRATCH}/libformat/base/json.c"
        "#include \"libformat/base/err.h\"\n#include <cjson/cJSON.h>\n")
    file(WRITE "${SCRATCH}/libformat/hf/names.h" "#include \"libformat/base/err.h\"\n")
    file(WRITE "${SCRATCH}/libformat/container/map.h" "  #  include \"libformat/base/err.h\"\n")
    file(WRITE "${SCRATCH}/tests/format/t.c" "#include <pthread.h>\n#include \"train/step.h\"\n")
    file(WRITE "${SCRATCH}/train/step.h" "#include \"libformat/container/map.h\"\n")
    if(file)
        file(WRITE "${SCRATCH}/${file}" "${content}")
    endif()
    execute_process(COMMAND ${CMAKE_COMMAND} -DROOT=${SCRATCH} -P ${LAYERS}
        RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
    set(${out_code} "${code}" PARENT_SCOPE)
    set(${out_text} "${text}" PARENT_SCOPE)
endfunction()

run_with(code text "" "")
if(NOT code EQUAL 0)
    message(FATAL_ERROR "the good tree was refused: ${text}")
endif()

function(must_refuse file content part)
    run_with(code text "${file}" "${content}")
    if(code EQUAL 0)
        message(FATAL_ERROR "${file} with ${content} passed")
    endif()
    string(REGEX REPLACE "[ \n]+" " " text "${text}")
    string(FIND "${text}" "${part}" at)
    if(at LESS 0)
        message(FATAL_ERROR "${file} with ${content} was refused without \"${part}\": ${text}")
    endif()
endfunction()

must_refuse(libformat/base/up.h "#include \"libformat/hf/names.h\"\n"
    "libformat/base may not include libformat/hf")
must_refuse(libformat/container/hf.c "#include \"libformat/hf/names.h\"\n"
    "libformat/container may not include libformat/hf")
must_refuse(kernels/x.h "\n\n #  include \"train/step.h\"\n" "kernels may not include train")
must_refuse(train/data/d.c "#include \"train/step.h\"\n" "train/data may not include train")
must_refuse(train/plan/p.c "#include \"train/step.h\"\n" "train/plan may not include train")
must_refuse(spec/decoder/d.c "#include \"libformat/base/err.h\"\n" "spec may not include")
must_refuse(train/step.c "#include \"step.h\"\n" "is no file below the root")
must_refuse(train/j.c "#include <cjson/cJSON.h>\n" "<cjson/cJSON.h> has its door elsewhere")
must_refuse(libformat/hf/x.c "#include <xxhash.h>\n" "<xxhash.h> has its door elsewhere")
must_refuse(train/b.c "#include <cblas.h>\n" "<cblas.h> has its door elsewhere")
must_refuse(train/plan/c.c "#include <cuda_runtime.h>\n" "<cuda_runtime.h> has its door")
must_refuse(tests/base/t.c "#include <check.h>\n" "<check.h> has its door elsewhere")
must_refuse(train/err.h "" "another header is named err.h")
message(STATUS "every broken line was seen")
