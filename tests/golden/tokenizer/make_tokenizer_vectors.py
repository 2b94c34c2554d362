#!/usr/bin/env python3
"""Writes the golden files of this folder: what Hugging Face's `tokenizers` says.

    pip install tokenizers==0.23.3
    python3 make_tokenizer_vectors.py        (from anywhere; writes beside itself)

- code_points.txt   every code point in four contexts: checksums of pre-token lengths and of ids,
                    one line per 256 code points (layout: see code_points() below)
- lines.json        lines of text with pre-token lengths and ids, tokenizer of examples/tiny-scout
- *_tokenizer.json  small tokenizers of other shapes, trained on examples/data/moby.txt here
- *_lines.json      lines of text with ids for each of them: text, ids, ids with special tokens, decoded
- moby.json         first 1024 ids, count and checksum of all ids of examples/data/moby.txt
"""
import json
import os
import random
import zlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers import trainers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
CONTEXTS = ("a{0}b", "{0}A{0}a1{0}", "  {0}{0} {0}\n", "x'{0}1'{0}L{0}/\r")


def save(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def moby():
    path = os.path.join(ROOT, "examples", "data", "moby.txt")
    with open(path, encoding="utf-8", newline="") as f:
        return f.read()


def cuts(tokenizer, text):
    """Bytes of each pre-token. The byte alphabet has one character for each byte."""
    return [len(piece) for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def ids_of(tokenizer, text, special=False):
    return tokenizer.encode(text, add_special_tokens=special).ids


def code_points(tokenizer):
    """Line: first code point, then CRC-32 of the pre-token lengths (a byte each, then a zero) in
    each context over the block's 256 code points, then CRC-32 of the ids (two bytes, little-endian)
    of the last context. Surrogates are left out."""
    with open(os.path.join(HERE, "code_points.txt"), "w", encoding="ascii") as f:
        for start in range(0, 0x110000, 256):
            if 0xD800 <= start < 0xE000:
                continue
            sums = []
            for context in CONTEXTS:
                crc = 0
                for c in range(start, start + 256):
                    crc = zlib.crc32(bytes(cuts(tokenizer, context.format(chr(c)))) + b"\0", crc)
                sums.append(crc)
            crc = 0
            for c in range(start, start + 256):
                for i in ids_of(tokenizer, CONTEXTS[3].format(chr(c))):
                    crc = zlib.crc32(i.to_bytes(2, "little"), crc)
            f.write("%05x %s\n" % (start, " ".join("%08x" % s for s in sums + [crc])))


WRITTEN = [
    "", " ", "  ", "   ", "\n", "\r\n", "\t", "\r", "a", " a", "a ", "  a", "a  ", "\n\n\n", " \n \n ", "\u00a0",
    "Hello world!", " Hello  world !", "The quick brown fox jumps over the lazy dog.",
    "I'm you're he's we'll they'd I've can't it'S IT'S I'LL we'Re \u017f'\u017f x'\u017f X'\u017fa 'S'T'RE",
    "don\u2019t it\u2019s O\u2019Neil 'tis '' ''' s' 's 'sa 'llama 'Ve'VE've",
    "HelloWorld helloWORLD HELLOworld McDonald iPhone XMLHttpRequest aBcDeF ABCdef ABC def",
    "0 1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 1e-10 0x1F \u0661\u0662\u0663\u0664 \u00bd\u00b2\u2167 \u4e00\u4e8c\u4e09",
    "tabs\tand\t\ttabs \t mixed\t \tend\t", "line one\nline two\r\nline three\rline four\n\n\nline seven\n",
    "trailing spaces   \nleading\n   spaces\n\t\tindent\n    x = 1;\n", "a\u0085b\u2028c\u2029d\u00a0e\u180ef\u200bg\u3000h\ufeffi",
    "path/to/file.txt http://example.org/a/b?c=d&e=f#g //// /// // / !/ !\n/\r/ ?/\r\n", "...!!!???---***+++===~~~```\"\"\"'''", "a.b,c;d:e!f?g(h)i[j]k{l}m<n>o|p\\q/r",
    "#include <stdio.h>\nint main(void)\n{\n\treturn 0; /* x */\n}\n", "def f(x):\n    return x ** 2  # square\n\n\nclass A:\n\tpass\n",
    '{"key": [1, 2.5, null, true], "s": "a\\nb"}', "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';", "<html><body class=\"x\">Hi &amp; bye</body></html>",
    "Straße ÄÖÜ äöü ß ẞ ﬀ ﬁ ﬆ ŉ İ ı K Å ſ", "Ça va très bien, où êtes-vous ? « Oui » — œuvre", "¿Dónde está? ¡Aquí! El niño año", "Příliš žluťoučký kůň úpěl ďábelské ódy", "Zażółć gęślą jaźń",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. ПРИВЕТ Привет", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία ΑΒΓ ὀξύς ᾼ ᾳ", "Հայերեն լեզու եւ և", "ქართული ენა ᲥᲐᲠᲗᲣᲚᲘ", "שָׁלוֹם עוֹלָם", "السَّلَامُ عَلَيْكُمْ ١٢٣ ـــ لا", "سلام دنیا ۱۲۳ می‌خواهم", "नमस्ते दुनिया क्षत्रिय ज्ञान १२३", "বাংলা ভাষা ১২৩", "தமிழ் மொழி", "తెలుగు భాష", "ಕನ್ನಡ", "മലയാളം ഭാഷ", "සිංහල භාෂාව", "ภาษาไทยไม่มีช่องว่าง ๑๒๓", "ພາສາລາວ", "བོད་སྐད་ ༡༢༣", "မြန်မာဘာသာ ၁၂၃", "ភាសាខ្មែរ ១២៣", "አማርኛ ፩፪፫", "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ᠌\u180e", "日本語のテキスト、カタカナとひらがな。ｶﾀｶﾅ ー々〆ヶ", "中文文本，没有空格。繁體字 𠀀𠀁 𪚥", "한국어 텍스트 조선말 한글", "Tiếng Việt rất đẹp ư ơ đ", "Türkçe İstanbul ılık ISPARTA", "ᏣᎳᎩ ꮳꮃꭹ Cherokee", "ⰳⰾⰰⰳⱁⰾⰹⱌⰰ ⰃⰎ", "𐐔𐐯𐑅𐐨𐑉𐐯𐐻 deseret", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝐀𝐚 𝟎𝟏𝟐 𝕬𝖆", "ǅ ǈ ǋ ǲ ᾈ ᾉ ǅa Aǅ aǅ ǅǅ", "ʰʲʷ ˀ ꜰ Aʰ aʰA ʰA ʰa ーA あA Aあ aあA あああAAAaaa",
    "e\u0301 E\u0301 a\u0300\u0301\u0302 \u0301 \u0301\u0301a 1\u0301 !\u0301 \n\u0301 A\u0301B \u20dd\u0488\u0903", "Z\u0351\u036b\u0343a\u0363lg\u0363o \u0489\u0489 t\u0337e\u0337x\u0337t",
    "😀 😃😄 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☺️ ❤️‍🔥 1️⃣ #️⃣ ©️ ™ a😀b 😀\n😀", "→ ← ↑ ↓ ⇒ ∀x∈ℝ: ∃y ≤ √2 ∑∫∂ ∞ ≠ ± × ÷ ℵ ℏ Å", "€100 £50 ¥1000 ₿ ₹ $5.00 ¢", "\u202eright to left\u202c \u200fx\u200e \u2066y\u2069 \u00adsoft\u00adhyphen", "\ue000\uf8ff\U000f0000\U0010fffd private", "\uffff\ufffe\U0001ffff \ufdd0 noncharacters \ufffd", "\x01\x02\x7f\x80\x9f control \x1b[31mred\x1b[0m",
    "\u1c89\u1c8a \ua7cb\ua7cc\ua7cd\ua7da\ua7db\ua7dc new in Unicode 16 \U00010d50\U00010d70 \U00010d40\U00010d41 \u0897 \U0001c000", "\u1e030\u16d40 \u31ef \U0002ebf0 \U00031350 \U000323b0 new in 15 and 17", "\u20c1\u2b97\u1fae0\ua7ce\ua7cf\u088f unassigned or later",
    "<|begin_of_text|>", "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHello world!<|eot|><|header_start|>assistant<|header_end|>\n\n", "a<|eot|>b", " <|eot|> ", "\n<|eot|>\n", "<|eot|><|eot|>", "<|eot|", "<|<|eot|>|>", "<|EOT|>", "<|header_start|>\n\n\n<|header_end|>  x", "it<|eot|>'s", "x  <|eot|>  y", "<|finetune_right_pad|><|image|><|patch|>", "A<|step|>a", "<|begin_of_text|", "|>|><|", "12<|eom|>34567<|eom|>8",
    " " * 31, " " * 200 + "x", "\n" * 100, "A" * 300, "a" * 300, "1" * 100, "!" * 100, "Aa" * 100, "the" * 100, "\t \n" * 30, "中" * 100, "A" * 50 + "中" + "B" * 50, "\u0301" * 60, "ab " * 80, "x\n" + " " * 64 + "y", "-" * 79 + "\r\n" * 5,
]

POOL = ("aabcdeilrstvm" "ABSTRM" " " " " " " "\n" "\r" "\t" "''\u2019\u017f" "0123" "!?./,-#" "é\u0301\u0903" "ʰー" "ǅ" "中あ한" "😀\u200d\ufe0f" "\u00a0\u3000\u0085\u180e\u200b" "ñßĲ" "\u0661½")


def random_lines(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choice(POOL) for _ in range(rng.randrange(1, 48)))


def training_text():
    return moby()[:300000]


def trained(pre_tokenizer, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator([training_text()], trainer)
    return tokenizer


def all_splits(vocab):
    """Llama 4's kind of merges: every split of every token into two tokens, ordered by the token,
    then by its parts; so one token can come from several pairs."""
    merges = []
    for token, number in sorted(vocab.items(), key=lambda kv: kv[1]):
        parts = [(token[:i], token[i:]) for i in range(1, len(token))]
        parts = [(vocab[a], vocab[b], a, b) for a, b in parts if a in vocab and b in vocab]
        merges += [[a, b] for _, _, a, b in sorted(parts)]
    return merges


def save_variant(name, tokenizer, change, lines):
    """Saves the tokenizer, changed as JSON, and what the library makes of it."""
    value = json.loads(tokenizer.to_str())
    change(value)
    save(name + "_tokenizer.json", value)
    again = Tokenizer.from_str(json.dumps(value, ensure_ascii=False))
    rows = []
    for text in lines:
        ids = ids_of(again, text)
        rows.append([text, ids, ids_of(again, text, True), again.decode(ids, skip_special_tokens=False)])
    save(name + "_lines.json", rows)


def variants():
    lines = [t for t in WRITTEN if len(t) < 130][:90] + list(random_lines(60, 7))
    words = moby()[400000:403000].split("\n")

    gpt2 = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 420)
    gpt2.add_special_tokens(["<|endoftext|>", AddedToken("<a>", normalized=False, special=True)])
    gpt2.add_tokens([AddedToken(t, normalized=n) for t, n in
                     (("<a><b>", False), ("ab", True), ("abc", True), ("bcd", False), ("b", True),
                      (" the whale", True), ("<", True), ("é", False), ("世界", True))])

    def old_merges(value):  # files before 2024: one string for a merge, no use_regex, no type
        value["model"]["merges"] = [" ".join(m) for m in value["model"]["merges"]]
        del value["pre_tokenizer"]["use_regex"]

    save_variant("gpt2", gpt2, old_merges, lines + words + [
        "<a><b><a>", "abcd", "abcabcd xbcd", "the whale  the whale", "<a><<a><b", "é世界é", "b<|endoftext|>b", "abab"])

    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    split = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    splits = trained(split, 460)
    splits.add_special_tokens(["<s>", "</s>"])
    splits.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<s> $A </s> </s>", special_tokens=[
            ("<s>", splits.token_to_id("<s>")), ("</s>", splits.token_to_id("</s>"))])])

    def every_split(value):
        value["model"]["ignore_merges"] = False
        value["model"]["merges"] = all_splits(value["model"]["vocab"])

    rng = random.Random(11)
    syllables = [rng.choice(["the", "he", "re", "in", "er", "an", "ing", "th", "e", "t", "o", "s", "a"])
                 for _ in range(4000)]
    joined = ["".join(syllables[i:i + n]) for i, n in zip(range(0, 3000, 30), range(1, 101))]
    save_variant("splits", splits, every_split, lines + words + joined)

    whole = trained(split, 400)

    def shuffled(value):  # tokens that merging cannot reach, so that ignore_merges shows
        value["model"]["ignore_merges"] = True
        value["model"]["merges"] = value["model"]["merges"][:60]

    save_variant("whole", whole, shuffled, lines + words)


def main():
    tokenizer = Tokenizer.from_file(os.path.join(ROOT, "examples", "tiny-scout", "tokenizer.json"))
    lines = WRITTEN + list(random_lines(300, 3))
    save("lines.json", [[t, cuts(tokenizer, t), ids_of(tokenizer, t)] for t in lines])
    ids = ids_of(tokenizer, moby())
    save("moby.json", {"count": len(ids), "first": ids[:1024],
                       "crc32": zlib.crc32(b"".join(i.to_bytes(2, "little") for i in ids))})
    variants()
    code_points(tokenizer)


if __name__ == "__main__":
    main()
