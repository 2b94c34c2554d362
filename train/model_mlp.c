#include "kernels/route.h"
#include "kernels/swiglu.h"
#include "train/model_pass.h"

struct mlp_parts { /* which weights an MLP has, and its buffers' names */
    enum sf_part gate, up, down;
    enum sft_kind kind; /* of gate_up */
    const char *gate_up, *h, *y;
};

static const struct mlp_parts shared_parts = {SF_PART_SHARED_GATE,
                                              SF_PART_SHARED_UP,
                                              SF_PART_SHARED_DOWN,
                                              SFT_ACTIVATION_MLP,
                                              "shared.gate_up",
                                              "shared.h",
                                              "shared"};
static const struct mlp_parts dense_parts = {
    SF_PART_DENSE_GATE, SF_PART_DENSE_UP, SF_PART_DENSE_DOWN, SFT_ACTIVATION_MLP, "dense.gate_up",
    "dense.h",          "dense"};
static const struct mlp_parts expert_parts = {SF_PART_EXPERT_GATE,
                                              SF_PART_EXPERT_UP,
                                              SF_PART_EXPERT_DOWN,
                                              SFT_ACTIVATION_EXPERTS,
                                              "experts.gate_up",
                                              "experts.h",
                                              "experts"};

static struct sft_ref up_half(const struct sft_pass *pass, const struct sft_mlp *mlp)
{
    return sft_at(mlp->gate_up, sft_pass_activation_bytes(pass, 1, mlp->width));
}

static void mlp_forward(struct sft_pass *pass, struct sft_mlp *mlp, const struct mlp_parts *parts,
                        int32_t x, struct sft_ref offsets, struct sft_ref host_offsets)
{
    mlp->width = sf_spec_shape(pass->spec, parts->gate).dim[0];
    mlp->gate_up = sft_pass_activation(pass, parts->kind, 2 * mlp->width, parts->gate_up);
    mlp->gate.offsets = mlp->up.offsets = mlp->down.offsets = offsets;
    mlp->gate.host_offsets = mlp->up.host_offsets = mlp->down.host_offsets = host_offsets;
    mlp->gate.y_stride = mlp->up.y_stride = 2 * mlp->width;
    sft_linear_forward(pass, &mlp->gate, parts->gate, AT(mlp->gate_up), AT(x));
    sft_linear_forward(pass, &mlp->up, parts->up, up_half(pass, mlp), AT(x));
    mlp->h = sft_pass_activation(pass, SFT_ACTIVATION, mlp->width, parts->h);
    struct sk_swiglu_forward args = {
        .rows = pass->shape.rows, .width = mlp->width, .stride = 2 * mlp->width};
    EMIT(pass, SK_SWIGLU_FORWARD, args, AT(mlp->h), AT(mlp->gate_up), up_half(pass, mlp));
    mlp->y = sft_pass_activation(pass, SFT_ACTIVATION, pass->spec->hidden, parts->y);
    sft_linear_forward(pass, &mlp->down, parts->down, AT(mlp->y), AT(mlp->h));
}

/* dx = gradient of the MLP's input. gate and up turn into their gradients in place. */
static void mlp_backward(struct sft_pass *pass, const struct sft_mlp *mlp, int32_t dx, int32_t dy)
{
    int32_t dh = sft_pass_activation(pass, SFT_GRADIENT, mlp->width, "d h");
    sft_linear_backward(pass, &mlp->down, AT(dh), AT(dy), false);
    struct sft_ref gate = AT(mlp->gate_up), up = up_half(pass, mlp);
    struct sk_swiglu_backward args = {
        .rows = pass->shape.rows, .width = mlp->width, .stride = 2 * mlp->width};
    EMIT(pass, SK_SWIGLU_BACKWARD, args, gate, up, AT(dh), gate, up);
    sft_linear_backward(pass, &mlp->gate, AT(dx), gate, false);
    sft_linear_backward(pass, &mlp->up, AT(dx), up, true);
}

/* The router's logits are what a probe wants to see. */
static int32_t router_logits(struct sft_pass *pass)
{
    int64_t count = pass->shape.rows * pass->spec->experts;
    if (!pass->probing)
        return sft_pass_small(pass, count, "router.logits");
    int32_t *router = &pass->ports->router[pass->number];
    *router = sft_tape_buffer(pass->tape, SFT_KEPT, SFT_PORT, (uint64_t)count * sizeof(float),
                              "router.%d", pass->number);
    return *router;
}

static void route_forward(struct sft_pass *pass, struct sft_layer_pass *l)
{
    int64_t rows = pass->shape.rows, hidden = pass->spec->hidden, experts = pass->spec->experts;
    l->router = sft_pass_weight(pass, SF_PART_ROUTER);
    l->u = sft_pass_activation(pass, SFT_ACTIVATION, hidden, "router.u");
    l->logits = router_logits(pass);
    l->score = sft_pass_small(pass, rows, "router.score");
    l->expert = sft_pass_small(pass, rows, "router.expert");
    l->slot = sft_pass_small(pass, rows, "router.slot");
    l->offsets = sft_pass_small(pass, experts + 1, "router.offsets");
    l->host_offsets = sft_tape_buffer(pass->tape, SFT_HOST, SFT_PORT, (uint64_t)(experts + 1) * 4,
                                      "router.%d.host_offsets", pass->number);
    pass->ports->host_offsets[pass->number] = l->host_offsets;
    l->router_lora = sft_lora_forward(pass, &l->wr, SF_PART_ROUTER, AT(l->n2), "router.lora");
    struct sk_route_forward args = {.rows = rows, .hidden = hidden, .experts = experts};
    EMIT(pass, SK_ROUTE_FORWARD, args, AT(l->u), AT(l->logits), AT(l->score), AT(l->expert),
         AT(l->slot), AT(l->offsets), AT(l->host_offsets), AT(l->n2), AT(l->router),
         AT(l->router_lora));
}

void sft_feed_forward_emit_forward(struct sft_pass *pass, struct sft_layer_pass *l)
{
    if (!l->spec.moe) {
        mlp_forward(pass, &l->mlp, &dense_parts, l->n2, SFT_NONE, SFT_NONE);
        l->y = l->mlp.y;
        return;
    }
    route_forward(pass, l);
    /* The shared expert first: a device is busy with it while the host waits for the offsets. */
    mlp_forward(pass, &l->mlp, &shared_parts, l->n2, SFT_NONE, SFT_NONE);
    mlp_forward(pass, &l->routed, &expert_parts, l->u, AT(l->offsets), AT(l->host_offsets));
    l->y = sft_pass_activation(pass, SFT_ACTIVATION, pass->spec->hidden, "feed_forward");
    struct sk_combine_forward args = {.rows = pass->shape.rows, .hidden = pass->spec->hidden};
    EMIT(pass, SK_COMBINE_FORWARD, args, AT(l->y), AT(l->mlp.y), AT(l->routed.y), AT(l->slot));
}

static void route_backward(struct sft_pass *pass, struct sft_layer_pass *l, int32_t dn)
{
    int64_t rows = pass->shape.rows, hidden = pass->spec->hidden;
    int32_t d_routed = sft_pass_activation(pass, SFT_GRADIENT, hidden, "d experts");
    struct sk_combine_backward combine = {.rows = rows, .hidden = hidden};
    EMIT(pass, SK_COMBINE_BACKWARD, combine, AT(d_routed), AT(pass->d), AT(l->slot));
    int32_t du = sft_pass_activation(pass, SFT_GRADIENT, hidden, "d router.u");
    mlp_backward(pass, &l->routed, du, d_routed);
    struct sk_route_backward args = {
        .rows = rows, .hidden = hidden, .experts = pass->spec->experts};
    bool adapted = l->router_lora >= 0;
    int32_t dz =
        adapted ? sft_pass_activation(pass, SFT_GRADIENT, args.experts, "d router.logits") : -1;
    EMIT(pass, SK_ROUTE_BACKWARD, args, AT(dn), AT(dz), AT(du), AT(l->n2), AT(l->score),
         AT(l->expert), AT(l->slot), AT(l->router));
    if (adapted)
        sft_linear_backward(pass, &l->wr, AT(dn), AT(dz), true);
}

int32_t sft_feed_forward_emit_backward(struct sft_pass *pass, struct sft_layer_pass *l)
{
    int32_t dn = sft_pass_activation(pass, SFT_GRADIENT, pass->spec->hidden, "d post_norm");
    mlp_backward(pass, &l->mlp, dn, pass->d);
    if (l->spec.moe)
        route_backward(pass, l, dn);
    return dn;
}
