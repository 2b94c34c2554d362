"""Learning rates and early stopping as transformers computes them -> schedule.json beside this file.

    python make_schedule_reference.py       (torch and transformers; written with the versions in the output)
"""
import json
import os

import torch
import transformers
from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments, get_scheduler


def rates(kind, rate, steps, warmup, kwargs=None):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps,
                             scheduler_specific_kwargs=kwargs or {})
    out = []
    for _ in range(steps + 2):
        out.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return out


def case(kind, rate, steps, warmup, **kwargs):
    return dict(kind=kind, rate=rate, steps=steps, warmup=warmup, **kwargs,
                rates=rates(kind, rate, steps, warmup, kwargs))


def stopping(losses, patience, threshold):
    """The counter behind each evaluation, the best step, and whether training would stop."""
    args = TrainingArguments(output_dir="unused", load_best_model_at_end=True, metric_for_best_model="eval_loss",
                             greater_is_better=False, eval_strategy="steps", save_strategy="steps", report_to=[])
    callback = EarlyStoppingCallback(patience, threshold)
    state, control, out = TrainerState(), TrainerControl(), []
    for i, loss in enumerate(losses):
        callback.on_evaluate(args, state, control, {"eval_loss": loss})
        if state.best_metric is None or loss < state.best_metric:  # Trainer._determine_best_metric
            state.best_metric, state.best_global_step = loss, i + 1
        out.append(dict(loss=loss, worse=callback.early_stopping_patience_counter, best=state.best_global_step,
                        stop=control.should_training_stop))
    return dict(patience=patience, threshold=threshold, evaluations=out)


def main():
    out = dict(transformers=transformers.__version__, torch=torch.__version__)
    out["rates"] = [
        case("linear", 5e-5, 17, 0), case("linear", 3e-4, 17, 5), case("linear", 1e-3, 4, 9),
        case("cosine", 2e-4, 17, 0), case("cosine", 2e-4, 23, 3),
        case("constant", 1e-4, 5, 0), case("constant_with_warmup", 1e-4, 9, 4),
        case("cosine_with_min_lr", 2e-4, 23, 3, min_lr=1e-5), case("cosine_with_min_lr", 2e-4, 23, 0, min_lr_rate=0.1),
        case("cosine_with_min_lr", 1e-3, 11, 2, min_lr_rate=0.0),
    ]
    out["warmup"] = [dict(ratio=r, steps=n, warmup=TrainingArguments(output_dir="unused", warmup_steps=r, report_to=[])
                          .get_warmup_steps(n)) for r, n in ((0.03, 100), (0.031, 100), (0.1, 7), (0.5, 3), (0.0, 9))]
    losses = [3.0, 2.9, 2.875, 2.8, 2.9, 2.5, 2.5, 2.4999, 2.75, 2.25]
    out["stopping"] = [stopping(losses, 2, 0.0), stopping(losses, 3, 0.125), stopping(losses[::-1], 2, 0.0)]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schedule.json"), "w") as f:
        json.dump(out, f, indent=0)
        f.write("\n")


main()
