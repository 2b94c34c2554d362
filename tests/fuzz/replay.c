/* Runs one target on the files of a folder, without libFuzzer: seeds and what once broke it.
 *   fuzz_x_replay FOLDER... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    static uint8_t buffer[LARGEST + 1];
    size_t n = file ? fread(buffer, 1, sizeof buffer, file) : 0;
    if (!file)
        return 1;
    fclose(file);
    if (n > LARGEST) /* a folder of real files is a seed, too; fuzzing takes small ones only */
        return 0;
    uint8_t *copy = malloc(n ? n : 1); /* of exactly its size: reading past its end is seen */
    if (!copy)
        return 1;
    memcpy(copy, buffer, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    return 0;
}

int main(int argc, char **argv)
{
    int files = 0, bad = 0;
    char path[4096];
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        for (struct dirent *e = folder ? readdir(folder) : NULL; e; e = readdir(folder)) {
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            bad += run_file(path);
            files++;
        }
        if (folder)
            closedir(folder);
    }
    printf("%d files, %d unreadable\n", files, bad);
    return bad > 0 || files == 0;
}
