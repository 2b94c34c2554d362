/* The table of train --profile. */
#include <stdio.h>

#include "tools/ft_verbs.h"

struct row {
    enum sft_phase phase;
    enum sk_op op;
    double seconds;
    int64_t calls;
};

/* Largest first; there are few rows. */
static void insert(struct row *rows, int count, struct row row)
{
    int at = count;
    for (; at > 0 && rows[at - 1].seconds < row.seconds; at--)
        rows[at] = rows[at - 1];
    rows[at] = row;
}

void ft_print_profile(const struct sft_profile *profile, int64_t steps)
{
    struct row rows[SFT_PHASES * SK_OP_COUNT];
    int count = 0;
    double total = 0;
    for (int p = 0; p < SFT_PHASES; p++) {
        for (int op = 0; op < SK_OP_COUNT; op++) {
            struct row row = {(enum sft_phase)p, (enum sk_op)op, profile->seconds[p][op],
                              profile->calls[p][op]};
            if (row.calls)
                insert(rows, count++, row);
            total += row.seconds;
        }
    }
    printf("%-10s %-20s %10s %10s %8s\n", "phase", "op", "ms/step", "calls/step", "share");
    for (int i = 0; i < count; i++)
        printf("%-10s %-20s %10.3f %10.1f %7.1f%%\n", sft_phase_name(rows[i].phase),
               sk_op_info(rows[i].op)->name, 1e3 * rows[i].seconds / (double)steps,
               (double)rows[i].calls / (double)steps, 100 * rows[i].seconds / total);
    printf("%-10s %-20s %10.3f\n", "all", "", 1e3 * total / (double)steps);
}
