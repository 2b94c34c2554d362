#include "tools/convert_fault.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *volatile running;
static const struct sf_hf_index *volatile looked_up;

/* The tensor whose bytes hold `address`, and its shard; NULL if none does. */
static const struct sf_named_tensor *find(const char **shard, const unsigned char *address)
{
    const struct sf_hf_index *index = looked_up;
    for (int64_t i = 0; index && i < sf_hf_index_count(index); i++) {
        int64_t s;
        const struct sf_named_tensor *t = sf_hf_index_at(index, i, &s);
        const unsigned char *data = t->tensor.data;
        if (!data || address < data || address >= data + t->tensor.bytes)
            continue;
        *shard = sf_safetensors_path(sf_hf_index_shard(index, s)->file);
        return t;
    }
    return NULL;
}

/* The fault is our own reading of mapped bytes, never inside of the C library's state: printing into
 * a buffer is safe here. Threads may come here at once: the first one ends the process. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    char text[1024];
    const char *shard = NULL;
    const struct sf_named_tensor *t = find(&shard, info->si_addr);
    (void)number;
    (void)context;
    int n =
        t ? snprintf(text, sizeof text,
                     "%s: %s: cannot read %s: the file was cut, or the disk fails; what is done "
                     "is kept, the same command goes on once it can be read\n",
                     running, shard, t->name)
          : snprintf(text, sizeof text,
                     "%s: a mapped file cannot be read: it was cut, or the disk fails\n", running);
    if (n > (int)sizeof text - 1)
        n = (int)sizeof text - 1;
    if (write(2, text, (size_t)n) != n)
        _exit(1);
    _exit(1);
}

void fault_explain(const char *program, const struct sf_hf_index *index)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    running = program;
    looked_up = index;
    sigaction(SIGBUS, &action, NULL);
}
