"""Reads a run's event file with TensorBoard's own reader and compares it with metrics.jsonl.

    python tests/train/check_events.py OUTPUT_DIR      (pip install tensorboard)
"""
import json
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New


def main(folder):
    path = folder + "/events.out.tfevents.scout"
    reader, events = PyRecordReader_New(path), []
    while True:  # checks both CRCs of every record
        try:
            reader.GetNext()
        except Exception as end:
            assert type(end).__name__ == "OutOfRangeError", end
            break
        events.append(event_pb2.Event.FromString(reader.record()))
    assert events[0].file_version == "brain.Event:2", events[0]
    accumulator = event_accumulator.EventAccumulator(folder, size_guidance={"scalars": 0})
    accumulator.Reload()
    seen = 0
    for line in open(folder + "/metrics.jsonl"):
        row = json.loads(line)
        for key, value in row.items():
            if key in ("step", "time") or value is None or (key == "epoch" and "eval_loss" in row):
                continue
            tag = "eval/" + key[5:] if key.startswith("eval_") else "train/" + key
            at = [e for e in accumulator.Scalars(tag) if e.step == row["step"]]
            assert len(at) == 1, (tag, row["step"], at)
            assert abs(at[0].value - float(value)) <= 1e-6 * abs(float(value)), (tag, at, value)
            assert abs(at[0].wall_time - row["time"]) < 1e-6, (at, row)
            seen += 1
    total = sum(len(e.summary.value) for e in events)
    assert total == seen, (total, seen)
    print("%s: %d events, %d scalars under %s" % (path, len(events), seen, ", ".join(accumulator.Tags()["scalars"])))


main(sys.argv[1])
