#!/usr/bin/env python3
"""Llama 4's own vocabulary of 200,000: a tokenizer.json from Meta's tokenizer.model, what Hugging Face's
`tokenizers` makes of texts with it, and whether ours gives the same, how fast.

    pip install tokenizers==0.23.3
    python3 real_vocabulary.py models/llama4/tokenizer.model build/cpu/tests/text/check_vocabulary

tokenizer.model is in github.com/meta-llama/llama-models (Llama 4's licence); neither it nor what is
made of it is kept here. The tokenizer.json has the shape that transformers' converter writes: every
split of every token is a merge, ordered by the token, then by its parts; ignore_merges.
"""
import base64
import json
import os
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "golden", "tokenizer"))
from make_many_lines import LINES, SplitMix, crc, line, words, write_lines  # noqa: E402
from make_tokenizer_vectors import CONTEXTS  # noqa: E402

BYTES = [b for b in range(256) if chr(b).isprintable() and b not in (0x20, 0xA0, 0xAD)]
REST = [b for b in range(256) if b not in BYTES]
LETTER = {b: chr(b) for b in BYTES} | {b: chr(256 + i) for i, b in enumerate(REST)}


def special_tokens():
    """Names by id from 200000 on, as in Meta's tokenizer.py."""
    post = "text_post_train_reserved_special_token_%d"
    vision = "vision_reserved_special_token_%d"
    reason = "reasoning_reserved_special_token_%d"
    names = ["begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix", "header_start", "header_end", "eom", "eot",
             "step"] + [post % i for i in range(6)] + ["python_start", "python_end", "finetune_right_pad"]
    names += [post % i for i in range(8, 69)]
    names += ["image_start", "image_end", vision % 0, vision % 1, "tile_x_separator", "tile_y_separator"]
    names += [vision % i for i in range(2, 6)] + ["image", vision % 6, "patch"] + [vision % i for i in range(7, 1048)]
    names += [reason % i for i in range(8)] + ["reasoning_thinking_start", "reasoning_thinking_end"]
    names += ["reserved_special_token_%d" % i for i in range(2048 - len(names))]
    return ["<|%s|>" % n for n in names]


def read_ranks(path):
    ranks = {}
    with open(path, "rb") as f:
        for row in f.read().splitlines():
            token, rank = row.split()
            ranks[base64.b64decode(token)] = int(rank)
    return ranks


def spell(token):
    return "".join(LETTER[b] for b in token)


def merges(ranks):
    rows = []
    for token in sorted(ranks, key=ranks.get):
        parts = [(token[:i], token[i:]) for i in range(1, len(token))]
        parts = sorted((ranks[a], ranks[b]) for a, b in parts if a in ranks and b in ranks)
        rows += parts
    spelt = {rank: spell(token) for token, rank in ranks.items()}
    return [[spelt[a], spelt[b]] for a, b in rows]


def tokenizer_json(ranks):
    with open(os.path.join(ROOT, "examples", "tiny-scout", "tokenizer.json"), encoding="utf-8") as f:
        value = json.load(f)  # the same pattern, decoder and shape
    value["model"]["vocab"] = {spell(t): r for t, r in sorted(ranks.items(), key=lambda kv: kv[1])}
    value["model"]["merges"] = merges(ranks)
    value["added_tokens"] = [
        {"id": len(ranks) + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True} for i, t in enumerate(special_tokens())]
    for token in value["post_processor"]["special_tokens"].values():
        token["ids"] = [len(ranks)]
    return value


def write_code_points(path, tokenizer):
    with open(path, "w", encoding="ascii") as f:
        for start in range(0, 0x110000, 256):
            if 0xD800 <= start < 0xE000:
                continue
            texts = [k.format(chr(c)) for c in range(start, start + 256) for k in CONTEXTS]
            ids = [i for e in tokenizer.encode_batch(texts, add_special_tokens=False) for i in e.ids]
            f.write("%05x %08x\n" % (start, crc(ids)))


def texts():
    """Ordinary text, then single lines of 1 MB."""
    with open(os.path.join(ROOT, "examples", "data", "moby.txt"), encoding="utf-8", newline="") as f:
        yield "moby.txt", f.read()
    w, rng = words(), SplitMix(1)
    yield "scripts.txt", "\n".join(line(w, rng) for _ in range(LINES))
    units = {"cjk": "\u4e2d\u6587", "capitals": "A", "spaces": " ", "small": "a", "marks": "\u0301", "digits": "1", "stops": "!",
             "slashes": "/", "the": "the", "newlines": "\n ", "quotes": "'s", "emoji": "\U0001f600", "thai": "\u0e01\u0e32\u0e23"}
    for name, unit in units.items():
        yield "line_%s.txt" % name, unit * ((1 << 20) // len(unit.encode())) + ("x" if name == "spaces" else "")


def write_texts(folder, tokenizer):
    with open(os.path.join(folder, "texts.txt"), "w", encoding="ascii") as f:
        for name, text in texts():
            with open(os.path.join(folder, name), "w", encoding="utf-8", newline="") as t:
                t.write(text)
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            f.write("%s %d %08x\n" % (name, len(ids), crc(ids)))


def main():
    model, program = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tokenizer.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(tokenizer_json(read_ranks(model)), f, ensure_ascii=False, indent=2)
        tokenizer = Tokenizer.from_file(path)
        hello = tokenizer.encode("Hello world!").ids
        assert hello == [200000, 19873, 3817, 13], hello
        write_lines(os.path.join(folder, "many_lines.txt"), tokenizer)
        write_code_points(os.path.join(folder, "code_points.txt"), tokenizer)
        write_texts(folder, tokenizer)
        return subprocess.run([program, folder]).returncode


if __name__ == "__main__":
    sys.exit(main())
