/* The queue against a list that is searched for its smallest entry, both ways of keeping candidates:
 * the same order, with pushes between pops, of higher and of lower ranks than what was popped. */
#include "libformat/base/mem.h"
#include "libformat/text/merge_queue.h"
#include "tests/support/support.h"

enum { RANKS = 40, MOST = 3000 };

struct naive {
    struct sf_merge_candidate c[MOST];
    int count;
};

static bool before(const struct sf_merge_candidate *a, const struct sf_merge_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static struct sf_merge_candidate naive_pop(struct naive *n)
{
    int least = 0;
    for (int i = 1; i < n->count; i++)
        if (before(&n->c[i], &n->c[least]))
            least = i;
    struct sf_merge_candidate c = n->c[least];
    n->c[least] = n->c[--n->count];
    return c;
}

/* Candidates with the same rank and position may come in either order: ids follow from both. */
static struct sf_merge_candidate random_candidate(struct scout_random *r, int32_t least)
{
    struct sf_merge_candidate c = {
        .rank = least + (int32_t)(scout_random_u64(r) % (uint64_t)(RANKS - least)),
        .position = (int32_t)(scout_random_u64(r) % 500)};
    c.id = c.rank * 1000 + c.position;
    return c;
}

static void push(struct sf_merge_queue *q, struct naive *n, struct sf_merge_candidate c)
{
    sf_merge_queue_push(q, c);
    n->c[n->count++] = c;
}

/* lowest: how far below the rank in hand a late candidate may be; 0: never. */
static void compare(struct sf_merge_queue *q, bool lanes, int32_t lowest, uint64_t seed)
{
    static struct naive n;
    struct sf_err err = {0};
    struct sf_merge_candidate got;
    struct scout_random r = {seed};
    int pushed = 0;
    n.count = 0;
    assert_ok(sf_merge_queue_begin(q, MOST, lanes, &err), err);
    for (; pushed < MOST / 2; pushed++)
        push(q, &n, random_candidate(&r, 0));
    while (n.count) {
        struct sf_merge_candidate want = naive_pop(&n);
        ck_assert(sf_merge_queue_pop(&got, q));
        ck_assert_int_eq(got.rank, want.rank);
        ck_assert_int_eq(got.position, want.position);
        ck_assert_int_eq(got.id, want.id);
        if (pushed < MOST && scout_random_u64(&r) % 2) {
            int32_t least = want.rank + (lowest ? -lowest : 1);
            least = least < 0 ? 0 : least < RANKS ? least : RANKS - 1;
            push(q, &n, random_candidate(&r, least));
            pushed++;
        }
    }
    ck_assert_int_gt(pushed, MOST * 3 / 4);
    ck_assert(!sf_merge_queue_pop(&got, q));
}

START_TEST(order)
{
    struct sf_err err = {0};
    struct sf_merge_queue *q;
    assert_ok(sf_merge_queue_open(&q, RANKS, &err), err);
    for (uint64_t seed = 1; seed <= 6; seed++) {
        compare(q, false, 3, seed);
        compare(q, true, 0, seed);
        compare(q, true, 1, seed);
        compare(q, true, RANKS, seed);
    }
    sf_merge_queue_close(q);
}
END_TEST

START_TEST(bounds)
{
    struct sf_err err = {0};
    struct sf_merge_queue *q;
    struct sf_merge_candidate c;
    assert_ok(sf_merge_queue_open(&q, 0, &err), err);
    assert_ok(sf_merge_queue_begin(q, 1, true, &err), err);
    ck_assert(!sf_merge_queue_pop(&c, q));
    assert_fails(sf_merge_queue_begin(q, INT32_MAX, true, &err), SF_EUNSUPPORTED,
                 "2147483647 candidates for merges (2^31 at most)", err);
    sf_merge_queue_close(q);
    sf_merge_queue_close(NULL);
}
END_TEST

/* Heap, lanes, nodes and the open lane, each missing once; the next pre-token finds memory again. */
START_TEST(no_memory)
{
    struct sf_err err = {0};
    for (int64_t n = 1; n <= 4; n++) {
        struct sf_merge_queue *q;
        assert_ok(sf_merge_queue_open(&q, RANKS, &err), err);
        sf_alloc_fail_after(n);
        ck_assert_int_eq(sf_merge_queue_begin(q, MOST, true, &err), SF_ENOMEM);
        sf_alloc_fail_after(0);
        compare(q, true, 1, 7);
        sf_merge_queue_close(q);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("merge_queue");
    TCase *c = tcase_create("merge_queue");
    tcase_add_test(c, order);
    tcase_add_test(c, bounds);
    tcase_add_test(c, no_memory);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
