#!/bin/sh
# The small suites under valgrind's memcheck: numbers that nobody wrote, which no sanitizer of `dev` sees.
#   tests/checks/valgrind.sh [SUITE...]      minutes; needs valgrind and a build of preset cpu
# Not the kernels, whose libraries use instructions that valgrind may not know, nor suites of minutes.
# NF4's portable code is run: what the processor has more is compared with it bit for bit elsewhere.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=build/cpu
command -v valgrind >/dev/null || {
    echo "valgrind.sh: valgrind is missing (apt-get install valgrind)" >&2
    exit 1
}
[ -e $build/CMakeCache.txt ] || cmake --preset cpu >/dev/null || exit 1
tests=${*:-test_append_file test_arena test_err test_file test_folders test_host_memory test_jobs test_json test_mem test_model_spec test_tensor
    test_utf8_check test_adapter_experts test_adapter_file test_container_map test_container_set test_container_spec test_container_write
    test_frame test_halves test_hf_config test_hf_index test_nf4 test_safetensors test_chat test_merge_queue test_splitter test_tokenizer
    test_tokenizer_bad test_names test_row test_tokens test_packing test_resume_record test_schedule test_sampler}
# shellcheck disable=SC2086 # words
cmake --build $build --parallel "$(nproc)" --target $tests >$build/valgrind.build.log 2>&1 || {
    tail -n 20 $build/valgrind.build.log >&2
    exit 1
}
broken=0 count=0
for test in $tests; do
    program=$(find $build/tests -name "$test" -type f)
    count=$((count + 1))
    SCOUT_NF4=portable CK_FORK=no OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OPENBLAS_CORETYPE=Nehalem \
        valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        "$program" >$build/$test.valgrind.log 2>&1 || {
        broken=$((broken + 1))
        echo "$test: see $build/$test.valgrind.log" >&2
        grep -m 1 -A 6 '^==' $build/$test.valgrind.log >&2
    }
done
echo "$count suites under valgrind, $broken broken"
[ $broken -eq 0 ]
