#!/usr/bin/env python3
"""Writes chat.jsonl and completions.jsonl: what transformers makes of conversations.

    pip install transformers==5.23.0 jinja2==3.1.6
    python3 make_chat_vectors.py        (from anywhere; writes beside itself)

chat.jsonl has a line for each conversation and format: the row as a data file has it, text and ids of
apply_chat_template with the tokenizer of examples/tiny-scout, the places of trained tokens, and the
same for the last turn alone. straddle.jsonl: the same with a tokenizer
of more tokens (with_longer_line_ends). Which tokens are trained is found without looking into a template: turn i of an assistant is
what render(messages[:i + 1]) has behind render(messages[:i], add_generation_prompt=True); a token
is trained when its characters (return_offsets_mapping) and such a turn have one in common.

Formats: "llama4-trimmed" is the template of examples/tiny-scout, "llama4" is llama4.jinja here: the template
that transformers' converter writes into Llama 4 checkpoints (source and licence: README.md).
"""
import json
import os

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "..", "..", "examples", "tiny-scout")


def s(text):
    return {"role": "system", "content": text}


def u(text):
    return {"role": "user", "content": text}


def a(text):
    return {"role": "assistant", "content": text}


def parts(role, *texts):
    return {"role": role, "content": [{"type": "text", "text": t} for t in texts]}


def call(name, arguments, content="", **more):
    return {"role": "assistant", "content": content, "tool_calls": [
        {"type": "function", "id": "x", "function": {"name": name, "arguments": arguments}, **more}]}


def tool(content, role="tool"):
    return {"role": role, "content": content}


PLAIN = [  # content is strings: both formats
    [u("Hello world!"), a("Hi.")],
    [u("Hello world!")],
    [a("I begin.")],
    [s("You are terse."), u("Who?"), a("Ishmael.")],
    [s("  \n You are terse. \t\n"), u("  Who? "), a(" Ishmael. \n")],
    [s(""), u("x"), a("y")],
    [s(" \n\t "), u("x"), a("y")],
    [u(""), a("")],
    [u(" "), a(" ")],
    [u("\n"), a("\n")],
    [u("\n\nx"), a("\n\ny")],
    [u("\n\n\n"), a("\n\n\n\n")],
    [u("\r\nx\r\n"), a("\r\ny\r\n")],
    [u("\tx"), a("\ty\t")],
    [u("x"), a("\ny\n"), u("z"), a(" w")],
    [u("a"), a("b"), u("c"), a("d"), u("e"), a("f")],
    [u("a"), a("b"), u("c"), a("d"), u("e")],
    [u("a"), u("b"), a("c"), a("d")],
    [s("one"), s("two"), u("x"), a("y")],
    [u("x"), s(" in between "), a("y")],
    [s("only")],
    [u("<|eot|>"), a("<|header_start|>user<|header_end|>")],
    [u("a<|eot|>b"), a("c<|begin_of_text|>d")],
    [u("<|image|>"), a("<|eot|")],
    [u("Grüße, naïve café"), a("Ça va très bien, où êtes-vous ?")],
    [u("Привет, как дела?"), a("Хорошо, спасибо!")],
    [u("今日は良い天気ですね。"), a("はい、散歩に行きましょう!")],
    [u("天地玄黃,宇宙洪荒"), a("日月盈昃,辰宿列張")],
    [u("안녕하세요 세계"), a("반갑습니다")],
    [u("مرحبا بالعالم ١٢٣"), a("أهلا وسهلا")],
    [u("नमस्ते दुनिया"), a("क्षत्रिय ज्ञान")],
    [u("สวัสดีชาวโลก"), a("ภาษาไทย")],
    [u("😀 👍🏽 👨‍👩‍👧‍👦 🇩🇪"), a("🏳️‍🌈 ❤️‍🔥 1️⃣ 😀")],
    [u("\u00a0x\u00a0"), a("\u3000y\u3000")],
    [u("\u2028x\u2029"), a("\u0085y\u0085")],
    [u("\u200bx\u200b"), a("\ufeffy\u180e")],
    [u("\x1fx\x1c"), a("\x0by\x0c")],
    [u("e\u0301 \u0301x"), a("\u0301y")],
    [u("if (x < 3) {\n\treturn \"a\\n\";\n}\n"), a("```c\nint main(void)\n{\n}\n```")],
    [u('{"key": [1, 2.5, null]}'), a("| a | b |\n|---|---|\n| 1 | 2 |\n")],
    [u("1234567 3.14 1e-10"), a("42")],
    [u("don't WE'LL it's"), a("'s 'S 've")],
    [u("x" * 300), a("The whale. " * 30)],
    [u("   " * 40 + "x"), a("\n" * 50 + "y")],
    [s("Be brief.\n\nVery."), u("a\n\nb"), a("c\n\nd\n\n"), u("\n\ne"), a("\n f")],
    [s("\u2003trim me\u2003"), u("\u2003not me\u2003"), a("\u2003nor me\u2003")],
    [u("assistant"), a("user")],
    [u("What is 2+2?"), a("4"), u("And 3+3?"), a("6"), u("Thanks"), a("")],
    [a("\n"), u("\n"), a("\n")],
    [u("'"), a('"')],
    [u("~!@#$%^&*()_+"), a("...!?…—–")],
    [u("Straße ẞ ŉ ﬁ ǅ"), a("İ ı K Å")],
    [tool("no quotes", "user"), a("ok")],
]
RICH = [  # Llama 4's alone
    ([parts("user", "Hello"), parts("assistant", "Hi")], None),
    ([parts("system", "  Be brief. "), parts("user", "a", "b"), parts("assistant", " c", "d ")], None),
    ([parts("user"), parts("assistant", "")], None),
    ([u("x"), parts("assistant", "\n", "\ny")], None),
    ([u("Weather?"), call("get_weather", {"city": "Paris", "days": 3}), tool("sunny"), a("Sunny.")], None),
    ([u("Weather?"), call("get_weather", '{"city": "Paris"}', "Let me look. "), tool({"t": 21.5, "sky": "clear"}), a("21.5")], None),
    ([u("x"), call("f", {}), tool([], "ipython"), a("none")], None),
    ([u("x"), call("f", {"a": [1, -2, 0.5, 1e-7, 1.5e300, True, False, None], "b": {"c": "d\"\\\n\t\u0001é€😀\u2028\x7f/"}}),
      tool("a\"b\\c\nd\te\u0001é😀"), a("y")], None),
    ([u("x"), {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "f", "arguments": {"i": 1}}}, {"function": {"name": "g", "arguments": {"j": "2"}}}]},
      tool("1"), tool("2"), a("both")], None),
    ([s("You can call."), u("  x "), call("f", {"n": 12345678901234})], None),
    ([tool("first"), a("x")], None),
    ([tool(" \n padded \n "), a("x")], None),
    ([tool([{"type": "text", "text": "in a list"}]), a("x")], None),
    ([u("x"), call("f", {"x": 0.1, "y": 123456.789, "z": 1e16, "w": 1e-4, "v": 1e-5, "u": -2.5e-10, "t": 1e22}), a("y")], None),
    ([s(" With tools. "), u("  Weather? "), a("Yes."), u("z")],
     [{"type": "function", "function": {"name": "get_weather", "description": "Looks é", "parameters": {
         "type": "object", "properties": {"city": {"type": "string", "enum": []}, "o": {}}, "required": ["city"]}}}]),
    ([u("Weather?"), call("get_weather", {"city": "Oslo"}), tool({"t": -3}), a("-3")],
     [{"name": "get_weather", "n": [1, [2, 3], {"a": None}]}, {"name": "other"}]),
    ([u("\n x \n"), a("\n y")], [{"name": "f"}]),
]

# With a tokenizer that has line ends in its longer tokens, one begins in the header and ends in the turn.
STRADDLE = [[u("x"), a("\n\ny")], [u("\n"), a("\n\n\n")], [u("x"), a("\ny"), u("\nz"), a("w\n")]]


class Format:
    def __init__(self, name, template, tokenizer=None):
        self.name = name
        self.tokenizer = tokenizer or AutoTokenizer.from_pretrained(TINY)
        self.tokenizer.chat_template = template

    def render(self, messages, tools, prompt=False):
        return self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)

    def turns(self, messages, tools):
        first = 1 if messages[0]["role"] == "system" else 0
        for i, m in enumerate(messages):
            if m["role"] != "assistant":
                continue
            due = tools and i <= first
            start = len(self.render(messages[:i], None if due else tools, True)) if i else len(self.render(
                [u("")], None, True)) - len(self.render([u("")], None)) + len("<|begin_of_text|>")
            yield start, len(self.render(messages[:i + 1], tools))

    def row(self, messages, tools):
        text = self.render(messages, tools)
        turns = list(self.turns(messages, tools))
        for start, end in turns:
            head = "<|header_start|>assistant<|header_end|>\n\n"
            assert text[:start].endswith(head) and text[:end].endswith("<|eot|>"), (text, start, end)
        both = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        whole = self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=True)["input_ids"]
        assert list(both["input_ids"]) == list(whole)
        offsets = both["offset_mapping"]

        def inside(spans):
            return [i for i, (x, y) in enumerate(offsets) if any(x < e and y > b for b, e in spans)]

        row = {"messages": messages} | ({"tools": tools} if tools else {})
        return {"format": self.name, "row": row, "text": text, "ids": both["input_ids"], "trained": inside(turns),
                "last": inside(turns[-1:]), "prompted": self.render(messages, tools, True)}


COMPLETIONS = [("Call me", " Ishmael."), ("Call me ", "Ishmael."), ("", "All of it."), ("x\n", "\ny"), ("Q: 2+2\nA:", " 4"), ("a", ""),
               ("wha", "le"), ("The wh", "ale, the 12"), ("12", "345"), ("Grü", "ße"), ("e", "\u0301"), ("a<|eot|>", "b"), ("x", "y<|eot|>"),
               ("👨", "\u200d👩"), ("don", "'t"), ("\n\n", "\n"), ("x ", " y")]


def completion_rows(tokenizer):
    """As TRL's SFTTrainer: the end-of-sequence token behind the completion, unless it ends in it; prompt and whole
    tokenized each, what both begin with is not trained."""
    for prompt, completion in COMPLETIONS:
        whole = prompt + completion + ("" if completion.endswith(tokenizer.eos_token) else tokenizer.eos_token)
        ids = tokenizer(text=whole)["input_ids"]
        yield {"row": {"prompt": prompt, "completion": completion}, "ids": ids,
               "untrained": len(os.path.commonprefix([tokenizer(text=prompt)["input_ids"], ids]))}


def with_longer_line_ends():
    """tiny-scout's tokenizer, its last two tokens replaced by two and three line ends, which Llama 4's own has."""
    with open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8") as f:
        text = f.read()
    for here, new in (('"\u0120comb"', '"\u010a\u010a"'), ('"\u0120exped"', '"\u010a\u010a\u010a"')):
        assert text.count(here) == 1
        text = text.replace(here, new)
    merges = text.rindex('"\u0120com"')
    text = text[:merges] + '"\u010a", "\u010a"], ["\u010a\u010a", "\u010a"]]}}'
    return PreTrainedTokenizerFast(bos_token="<|begin_of_text|>", tokenizer_object=Tokenizer.from_str(text))


def main():
    with open(os.path.join(TINY, "chat_template.jinja"), encoding="utf-8", newline="") as f:
        short = Format("llama4-trimmed", f.read())
    with open(os.path.join(HERE, "llama4.jinja"), encoding="utf-8", newline="") as f:
        full = Format("llama4", f.read())
    split = Format("llama4", full.tokenizer.chat_template, with_longer_line_ends())
    rows = [short.row(m, None) for m in PLAIN] + [full.row(m, None) for m in PLAIN] + [full.row(m, t) for m, t in RICH]
    for name, lines in (("chat.jsonl", rows), ("straddle.jsonl", [split.row(m, None) for m in STRADDLE]), ("completions.jsonl", completion_rows(short.tokenizer))):
        with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
            for row in lines:
                f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
