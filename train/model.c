#include "train/model.h"

#include <stdio.h>
#include <string.h>

#include "kernels/embed.h"
#include "kernels/head_loss.h"
#include "kernels/linear.h"
#include "kernels/rmsnorm.h"
#include "libformat/base/mem.h"
#include "train/model_pass.h"

/* ---- buffers ---- */

static uint64_t bytes_of(int64_t rows, int64_t cols, uint64_t element)
{
    uint64_t bytes;
    bool fits = sf_mul(&bytes, (uint64_t)rows, (uint64_t)cols) && sf_mul(&bytes, bytes, element);
    return fits ? bytes : UINT64_MAX;
}

uint64_t sft_pass_activation_bytes(const struct sft_pass *pass, int64_t rows, int64_t cols)
{
    return bytes_of(rows, cols, sk_activation_bytes(pass->ops->activation));
}

static const char *layer_name(char *text, size_t bytes, const struct sft_pass *pass,
                              const char *name)
{
    if (pass->number < 0)
        snprintf(text, bytes, "%s", name);
    else
        snprintf(text, bytes, "layers.%d.%s", pass->number, name);
    return text;
}

int32_t sft_pass_activation(struct sft_pass *pass, enum sft_kind kind, int64_t cols,
                            const char *name)
{
    char text[96];
    return sft_tape_buffer(pass->tape, SFT_STEP, kind,
                           sft_pass_activation_bytes(pass, pass->shape.rows, cols), "%s",
                           layer_name(text, sizeof text, pass, name));
}

int32_t sft_pass_small(struct sft_pass *pass, int64_t count, const char *name)
{
    char text[96];
    return sft_tape_buffer(pass->tape, SFT_STEP, SFT_SMALL, bytes_of(count, 1, 4), "%s",
                           layer_name(text, sizeof text, pass, name));
}

int32_t sft_pass_host(struct sft_pass *pass, uint64_t bytes, const char *name)
{
    char text[96];
    if (!pass->ops->device)
        return -1;
    return sft_tape_buffer(pass->tape, SFT_HOST, SFT_PORT, bytes, "%s",
                           layer_name(text, sizeof text, pass, name));
}

int32_t sft_pass_weight(struct sft_pass *pass, enum sf_part part)
{
    return sft_tape_weight(pass->tape, (struct sf_role){part, pass->number, -1});
}

static int32_t port(struct sft_pass *pass, uint64_t bytes, const char *name)
{
    return sft_tape_buffer(pass->tape, SFT_KEPT, SFT_PORT, bytes, "%s", name);
}

/* ---- linears ---- */

static int32_t adapter(struct sft_pass *pass, int64_t element, int64_t count, const char *what,
                       enum sf_part part)
{
    char text[96];
    return sft_tape_adapter(pass->tape, (uint64_t)element * sizeof(float),
                            (uint64_t)count * sizeof(float), "%s %s",
                            layer_name(text, sizeof text, pass, sf_part_name(part)), what);
}

/* Experts' up shares A with gate and has the second half of each B: both add to that A's gradient. */
static void add_lora(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part)
{
    const struct sft_lora_module *m = linear->lora;
    int64_t skipped = part == SF_PART_EXPERT_UP ? linear->out * m->rank : 0;
    int64_t a_count = sft_lora_a_count(m), b_count = sft_lora_b_count(m) - skipped;
    linear->a_stride = m->rank * m->in;
    linear->b_stride = m->out * m->rank;
    linear->a = adapter(pass, m->a, a_count, "A", part);
    linear->b = adapter(pass, m->b + skipped, b_count, "B", part);
    if (!pass->backward)
        return;
    linear->da = adapter(pass, pass->lora->count + m->a, a_count, "dA", part);
    linear->db = adapter(pass, pass->lora->count + m->b + skipped, b_count, "dB", part);
}

/* Whose LoRA it is. */
static enum sf_part adapted_part(enum sf_part part)
{
    return part == SF_PART_EXPERT_UP ? SF_ADAPTER_GATE_UP : part;
}

void sft_linear_bind(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part)
{
    struct sf_shape shape = sf_spec_shape(pass->spec, part);
    linear->out = shape.dim[0];
    linear->in = shape.dim[1];
    linear->groups = sf_part_is_expert(part) ? pass->spec->experts : 1;
    if (!linear->y_stride)
        linear->y_stride = linear->out;
    linear->weight = linear->t = -1;
    linear->a = linear->b = linear->da = linear->db = -1;
    linear->lora =
        sft_lora_find(pass->lora, (struct sf_role){adapted_part(part), pass->number, -1});
    if (linear->lora)
        add_lora(pass, linear, part);
}

const struct sk_dropout *sft_pass_dropout(const struct sft_pass *pass,
                                          const struct sft_lora_module *m)
{
    return m && pass->dropping ? &pass->lora->draw : NULL;
}

uint32_t sft_pass_site(const struct sft_pass *pass, const struct sft_lora_module *m)
{
    return m ? (uint32_t)(m - pass->lora->module) : 0;
}

static void emit_forward_of(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part,
                            struct sft_ref y, struct sft_ref x)
{
    const struct sft_lora_module *m = linear->lora;
    struct sk_linear_forward args = {.rows = pass->shape.rows,
                                     .in = linear->in,
                                     .out = linear->out,
                                     .groups = linear->groups,
                                     .y_stride = linear->y_stride,
                                     .rank = m ? m->rank : 0,
                                     .a_stride = linear->a_stride,
                                     .b_stride = linear->b_stride,
                                     .scale = m ? (float)m->scale : 0,
                                     .dropout = sft_pass_dropout(pass, m),
                                     .site = sft_pass_site(pass, m)};
    char name[64];
    snprintf(name, sizeof name, "%s.t", sf_part_name(part));
    linear->x = x;
    if (m)
        linear->t = sft_pass_activation(pass, SFT_SMALL, m->rank, name);
    EMIT(pass, SK_LINEAR_FORWARD, args, y, AT(linear->t), x, AT(linear->weight), AT(linear->a),
         AT(linear->b), linear->offsets, linear->host_offsets);
}

void sft_linear_forward(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part,
                        struct sft_ref y, struct sft_ref x)
{
    sft_linear_bind(pass, linear, part);
    linear->weight = sft_pass_weight(pass, part);
    emit_forward_of(pass, linear, part, y, x);
}

int32_t sft_lora_forward(struct sft_pass *pass, struct sft_linear *linear, enum sf_part part,
                         struct sft_ref x, const char *name)
{
    linear->offsets = linear->host_offsets = SFT_NONE;
    sft_linear_bind(pass, linear, part);
    if (!linear->lora)
        return -1;
    int32_t y = sft_pass_activation(pass, SFT_SMALL, linear->out, name);
    emit_forward_of(pass, linear, part, AT(y), x);
    return y;
}

void sft_linear_backward(struct sft_pass *pass, const struct sft_linear *linear, struct sft_ref dx,
                         struct sft_ref dy, bool accumulate)
{
    const struct sft_lora_module *m = linear->lora;
    struct sk_linear_backward args = {.rows = pass->shape.rows,
                                      .in = linear->in,
                                      .out = linear->out,
                                      .groups = linear->groups,
                                      .y_stride = linear->y_stride,
                                      .rank = m ? m->rank : 0,
                                      .a_stride = linear->a_stride,
                                      .b_stride = linear->b_stride,
                                      .scale = m ? (float)m->scale : 0,
                                      .accumulate_dx = accumulate,
                                      .dropout = sft_pass_dropout(pass, m),
                                      .site = sft_pass_site(pass, m)};
    /* Without LoRA the forward's x is not needed: not naming it frees its memory. */
    EMIT(pass, SK_LINEAR_BACKWARD, args, dx, AT(linear->da), AT(linear->db), dy,
         m ? linear->x : SFT_NONE, AT(linear->t), AT(linear->weight), AT(linear->a), AT(linear->b),
         linear->offsets, linear->host_offsets);
}

/* ---- norms ---- */

void sft_norm_forward(struct sft_pass *pass, int32_t y, int32_t sum, int32_t rstd, int32_t x,
                      int32_t delta, int32_t weight)
{
    struct sk_rmsnorm_forward args = {.rows = pass->shape.rows,
                                      .cols = pass->spec->hidden,
                                      .epsilon = (float)pass->spec->norm_epsilon};
    EMIT(pass, SK_RMSNORM_FORWARD, args, AT(y), AT(delta < 0 ? -1 : sum), AT(rstd), AT(x),
         AT(delta), AT(weight));
}

void sft_norm_backward(struct sft_pass *pass, int32_t dy, int32_t sum, int32_t rstd, int32_t weight,
                       bool residual)
{
    struct sk_rmsnorm_backward args = {.rows = pass->shape.rows, .cols = pass->spec->hidden};
    EMIT(pass, SK_RMSNORM_BACKWARD, args, AT(pass->d), AT(dy), AT(sum), AT(rstd),
         AT(residual ? pass->d : -1), AT(weight));
}

/* ---- the whole ---- */

static void emit_embedding(struct sft_pass *pass)
{
    int64_t hidden = pass->spec->hidden;
    struct sk_embed_forward args = {.rows = pass->shape.rows, .hidden = hidden};
    pass->layer[0].x = sft_pass_activation(pass, SFT_RESIDUAL, hidden, "embedding");
    int32_t staging =
        sft_pass_host(pass, sft_pass_activation_bytes(pass, pass->shape.rows, hidden), "staging");
    EMIT(pass, SK_EMBED_FORWARD, args, AT(pass->layer[0].x), AT(staging), AT(pass->ports->ids),
         AT(sft_pass_weight(pass, SF_PART_EMBEDDING)));
}

/* The residual stream behind layer `number`: what the next layer starts from, what a probe reads.
 */
static int32_t layer_output(struct sft_pass *pass, int32_t number)
{
    char name[32];
    snprintf(name, sizeof name, "hidden.%d", number);
    if (!pass->probing)
        return sft_pass_activation(pass, SFT_RESIDUAL, pass->spec->hidden, "out");
    pass->ports->hidden[number] =
        port(pass, sft_pass_activation_bytes(pass, pass->shape.rows, pass->spec->hidden), name);
    return pass->ports->hidden[number];
}

static void emit_layer(struct sft_pass *pass, struct sft_layer_pass *l, int32_t x, int32_t delta)
{
    int64_t hidden = pass->spec->hidden, rows = pass->shape.rows;
    l->n1 = sft_pass_activation(pass, SFT_ACTIVATION, hidden, "input_norm");
    l->rstd1 = sft_pass_small(pass, rows, "input_norm.rstd");
    l->norm1 = sft_pass_weight(pass, SF_PART_INPUT_NORM);
    sft_norm_forward(pass, l->n1, l->x, l->rstd1, x, delta, l->norm1);
    sft_attention_emit_forward(pass, l);
    l->xm = sft_pass_activation(pass, SFT_ACTIVATION_MIDDLE, hidden, "middle");
    l->n2 = sft_pass_activation(pass, SFT_ACTIVATION, hidden, "post_norm");
    l->rstd2 = sft_pass_small(pass, rows, "post_norm.rstd");
    l->norm2 = sft_pass_weight(pass, SF_PART_POST_NORM);
    sft_norm_forward(pass, l->n2, l->xm, l->rstd2, l->x, l->attention, l->norm2);
    sft_feed_forward_emit_forward(pass, l);
}

static void emit_layer_backward(struct sft_pass *pass, struct sft_layer_pass *l)
{
    int32_t dn2 = sft_feed_forward_emit_backward(pass, l);
    sft_norm_backward(pass, dn2, l->xm, l->rstd2, l->norm2, true);
    int32_t dn1 = sft_attention_emit_backward(pass, l);
    sft_norm_backward(pass, dn1, l->x, l->rstd1, l->norm1, true);
}

struct head { /* what the end of the forward leaves for the backward */
    int32_t x, n, rstd, norm, dn;
};

static void set_layer(struct sft_pass *pass, int32_t number)
{
    pass->number = pass->tape->layer = number;
}

static void emit_loss(struct sft_pass *pass, const struct head *h)
{
    struct sft_linear w = {0};
    sft_linear_bind(pass, &w, SF_PART_HEAD);
    const struct sft_lora_module *m = w.lora;
    struct sk_head_loss args = {.rows = pass->shape.rows,
                                .hidden = pass->spec->hidden,
                                .vocabulary = pass->spec->vocabulary,
                                .rank = m ? m->rank : 0,
                                .scale = m ? (float)m->scale : 0,
                                .dropout = sft_pass_dropout(pass, m),
                                .site = sft_pass_site(pass, m)};
    const struct sft_ports *p = pass->ports;
    EMIT(pass, SK_HEAD_LOSS, args, AT(h->dn), AT(p->logits), AT(w.da), AT(w.db), AT(p->token_loss),
         AT(p->loss), AT(h->n), AT(sft_pass_weight(pass, SF_PART_HEAD)), AT(w.a), AT(w.b),
         AT(p->targets), AT(p->host_targets), AT(p->gradient_scale));
}

static void emit_head(struct sft_pass *pass, struct head *h, int32_t xm, int32_t y)
{
    int64_t hidden = pass->spec->hidden;
    h->n = sft_pass_activation(pass, SFT_ACTIVATION, hidden, "final_norm");
    h->rstd = sft_pass_small(pass, pass->shape.rows, "final_norm.rstd");
    h->norm = sft_pass_weight(pass, SF_PART_FINAL_NORM);
    sft_norm_forward(pass, h->n, h->x, h->rstd, xm, y, h->norm);
    h->dn = pass->backward ? sft_pass_activation(pass, SFT_GRADIENT, hidden, "d final_norm") : -1;
    emit_loss(pass, h);
}

static void emit_forward(struct sft_pass *pass, struct head *h)
{
    int32_t last = (int32_t)pass->spec->layers - 1;
    emit_embedding(pass);
    for (int32_t i = 0; i <= last; i++) {
        struct sft_layer_pass *l = &pass->layer[i], *before = i ? l - 1 : NULL;
        set_layer(pass, i);
        l->spec = pass->spec->layer[i];
        if (before)
            l->x = layer_output(pass, i - 1);
        emit_layer(pass, l, before ? before->xm : l->x, before ? before->y : -1);
    }
    set_layer(pass, -1);
    h->x = layer_output(pass, last);
    emit_head(pass, h, pass->layer[last].xm, pass->layer[last].y);
}

static void emit_backward(struct sft_pass *pass, const struct head *h)
{
    sft_tape_turn(pass->tape);
    pass->d = sft_pass_activation(pass, SFT_GRADIENT, pass->spec->hidden, "d residual");
    sft_norm_backward(pass, h->dn, h->x, h->rstd, h->norm, false);
    for (int32_t i = (int32_t)pass->spec->layers - 1; i >= 0; i--) {
        set_layer(pass, i);
        emit_layer_backward(pass, &pass->layer[i]);
    }
    set_layer(pass, -1);
}

/* Ports that every tape has, and a probe's lists. */
static bool make_ports(struct sft_pass *pass)
{
    struct sft_ports *p = pass->ports;
    uint64_t rows = (uint64_t)pass->shape.rows;
    *p = (struct sft_ports){
        .ids = sft_tape_buffer(pass->tape, SFT_HOST, SFT_PORT, rows * 4, "input_ids"),
        .targets = port(pass, rows * 4, "targets"),
        .host_targets = sft_tape_buffer(pass->tape, SFT_HOST, SFT_PORT, rows * 4, "targets"),
        .positions = port(pass, rows * 4, "positions"),
        .documents = port(pass, ((uint64_t)pass->shape.documents + 1) * 4, "documents"),
        .inv_freq = port(pass, (uint64_t)pass->spec->head_size / 2 * 4, "inv_freq"),
        .gradient_scale = port(pass, 4, "gradient_scale"),
        .loss = port(pass, sizeof(double), "loss"),
        .token_loss = port(pass, rows * 4, "token_loss"),
        .logits = -1};
    uint64_t layers = (uint64_t)pass->spec->layers;
    p->host_offsets = sf_arena_array(pass->tape->arena, layers, sizeof *p->host_offsets);
    if (p->host_offsets)
        memset(p->host_offsets, 0xff, layers * sizeof *p->host_offsets);
    if (pass->probing || pass->generating)
        p->logits = port(pass, bytes_of(pass->shape.rows, pass->spec->vocabulary, 4), "logits");
    if (!pass->probing)
        return p->host_offsets != NULL;
    p->hidden = sf_arena_array(pass->tape->arena, layers, sizeof *p->hidden);
    p->router = sf_arena_array(pass->tape->arena, layers, sizeof *p->router);
    if (p->router)
        memset(p->router, 0xff, layers * sizeof *p->router);
    return p->host_offsets && p->hidden && p->router;
}

static int check_model(const struct sf_model_spec *spec, struct sft_shape shape, enum sft_mode mode,
                       struct sf_err *err)
{
    if (spec->experts_per_token != 1)
        return sf_fail(err, SF_EUNSUPPORTED, "%lld experts a token; top-1 is what is trained here",
                       (long long)spec->experts_per_token);
    bool one = mode == SFT_GENERATE; /* document, of which rows are a part */
    if (shape.rows < 1 || shape.documents < 1 || shape.longest < 1 ||
        (one ? shape.longest < shape.rows || shape.longest > INT32_MAX || shape.documents != 1
             : shape.longest > shape.rows || shape.documents > shape.rows) ||
        shape.rows > INT32_MAX)
        return sf_fail(
            err, SF_EINVAL,
            "a micro-batch of %lld rows in %lld documents of at most %lld makes no sense",
            (long long)shape.rows, (long long)shape.documents, (long long)shape.longest);
    return SF_OK;
}

int sft_model_emit(struct sft_tape *tape, struct sft_ports *ports, const struct sk_ops *ops,
                   const struct sf_model_spec *spec, const struct sft_lora *lora,
                   struct sft_shape shape, enum sft_mode mode, struct sf_err *err)
{
    int code = check_model(spec, shape, mode, err);
    if (code)
        return code;
    struct head head = {0};
    struct sft_pass pass = {.tape = tape,
                            .ports = ports,
                            .ops = ops,
                            .spec = spec,
                            .lora = lora,
                            .shape = shape,
                            .number = -1,
                            .backward = mode == SFT_TRAIN || mode == SFT_PROBE_GRADS,
                            .dropping = mode == SFT_TRAIN && lora && lora->draw.probability > 0,
                            .probing = mode == SFT_PROBE || mode == SFT_PROBE_GRADS,
                            .generating = mode == SFT_GENERATE};
    pass.layer = sf_arena_array(tape->arena, (uint64_t)spec->layers, sizeof *pass.layer);
    if (!pass.layer || !make_ports(&pass))
        return sf_fail(err, SF_ENOMEM, "no memory for a tape of %lld layers",
                       (long long)spec->layers);
    emit_forward(&pass, &head);
    if (pass.backward)
        emit_backward(&pass, &head);
    return SF_OK;
}

uint64_t sft_pass_cache_bytes(const struct sft_pass *pass)
{
    const struct sf_model_spec *spec = pass->spec;
    uint64_t bytes =
        sft_pass_activation_bytes(pass, pass->shape.longest, spec->kv_heads * spec->head_size);
    if (bytes > UINT64_MAX - SFT_BLOCK_ALIGN)
        return UINT64_MAX;
    return (bytes + SFT_BLOCK_ALIGN - 1) / SFT_BLOCK_ALIGN * SFT_BLOCK_ALIGN;
}

uint64_t sft_model_cache_bytes(const struct sk_ops *ops, const struct sf_model_spec *spec,
                               struct sft_shape shape)
{
    struct sft_pass pass = {.ops = ops, .spec = spec, .shape = shape};
    uint64_t bytes;
    bool fits = sf_mul(&bytes, sft_pass_cache_bytes(&pass), 2 * (uint64_t)spec->layers);
    return fits ? bytes : UINT64_MAX;
}
