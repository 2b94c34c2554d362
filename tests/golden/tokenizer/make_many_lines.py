#!/usr/bin/env python3
"""Writes many_words.json and many_lines.txt: 10,300 lines of text (more than 10,000 different ones) in many scripts, and what Hugging
Face's `tokenizers` says about them.

    pip install tokenizers==0.23.3
    python3 make_many_lines.py        (from anywhere; writes beside itself)

The lines are not stored: both sides put them together from the words by the same random numbers
(line() below, tests/text/many_lines.c). many_lines.txt has for each line the number of ids and the
CRC-32 of the ids, four bytes each, little-endian, for the tokenizer of examples/tiny-scout.
"""
import json
import os
import random
import unicodedata
import zlib

from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
LINES = 10300

# Sentences in languages that people write, then blocks of scripts: words of random letters.
SENTENCES = """\
The quick brown fox doesn't jump; WE'LL see who's FASTER, said McDonald at iPhone-speed.
It's 1st-class: they'd've gone, but I'm sure you're right.
Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis. L'ÉTÉ où ça
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich STRAẞE
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia ¿Qué? ¡Sí!
À noite, vovô Kowalsky vê o ímã cair no pé do pinguim NÃO coração
Pchnąć w tę łódź jeża lub ośm skrzyń fig ŻÓŁĆ
Příliš žluťoučký kůň úpěl ďábelské ódy ČŘŽ
Pijamalı hasta yağız şoföre çabucak güvendi İSTANBUL ılık
Tiếng Việt có dấu thanh: ngã, hỏi, nặng ĐƯỜNG PHỐ
Съешь же ещё этих мягких французских булок ПРИВЕТ Мир
Жебракують філософи при ґанку церкви в Гадячі її ЇЖАК
Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία ΕΛΛΑΔΑ ὀξύς
Բել դղյակի ձախ ժամն օֆ ազգությանը ցպահանջ ԵՐԵՎԱՆ
ქართული ანბანი ჰყავს ᲛᲗᲐᲕᲠᲣᲚᲘ ასოები
דג סקרן שט בים מאוכזב ולפתע מצא חברה שָׁלוֹם
نص حكيم له سر قاطع وذو شأن عظيم مكتوب السَّلَامُ ١٢٣
می‌خواهم این متن فارسی را بنویسم ۱۲۳۴ گچپژ
ٹھنڈ میں ایک قحط زدہ گاؤں سے گذرتے وقت اردو
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण १२३ क्षत्रिय
বর্ষামুখর দিন শেষে ঊর্দ্ধপানে চেয়ে ১২৩
யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது ௧௨
ఋషుల ధర్మపత్నులు తెలుగు భాష మాట్లాడుతారు
ಇದೊಂದು ಕನ್ನಡ ವಾಕ್ಯ ಉದಾಹರಣೆ
അജവും ആനയും ഐരാവതവും മലയാളം ൧൨൩
ශුද්ධ සිංහල වාක්‍යයක් මෙහි ඇත
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์ ๑๒๓
ຂ້ອຍກິນແກ້ວໄດ້ໂດຍທີ່ມັນບໍ່ໄດ້ເຮັດໃຫ້ຂ້ອຍເຈັບ
སེམས་ཅན་ཐམས་ཅད་བདེ་བ་དང་ལྡན་པར་གྱུར་ཅིག ༡༢༣
သီဟိုဠ်မှ ဉာဏ်ကြီးရှင်သည် အာယုဝဍ္ဎနဆေးညွှန်းစာကို
ខ្ញុំអាចញ៉ាំកញ្ចក់បានដោយគ្មានបញ្ហា ១២៣
ሰማይ አይታረስ ንጉሥ አይከሰስ ፩፪፫
いろはにほへと ちりぬるを カタカナ ｶﾀｶﾅ 日本語の文章です。
今日はとても良い天気ですね、散歩に行きましょう！ コンピューター
天地玄黃,宇宙洪荒。 日月盈昃,辰宿列張 中文沒有空格
他说：“人工智能的发展很快”，二〇二四年十二月。
키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다
조선말 대사전 훈민정음 ᄒᆞᆫ글
""".splitlines()
BLOCKS = [  # first and last code point
    (0x0100, 0x024F), (0x0250, 0x02AF), (0x02B0, 0x02FF), (0x0370, 0x03FF), (0x0400, 0x052F), (0x0531, 0x058A),
    (0x0590, 0x05FF), (0x0600, 0x06FF), (0x0700, 0x074F), (0x0750, 0x077F), (0x0780, 0x07BF), (0x07C0, 0x07FF),
    (0x0800, 0x083F), (0x0840, 0x085F), (0x08A0, 0x08FF), (0x0900, 0x097F), (0x0980, 0x09FF), (0x0A00, 0x0A7F),
    (0x0A80, 0x0AFF), (0x0B00, 0x0B7F), (0x0B80, 0x0BFF), (0x0C00, 0x0C7F), (0x0C80, 0x0CFF), (0x0D00, 0x0D7F),
    (0x0D80, 0x0DFF), (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x13FF), (0x1400, 0x167F), (0x1680, 0x169F), (0x16A0, 0x16FF),
    (0x1700, 0x177F), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1900, 0x194F), (0x1950, 0x19DF), (0x1A00, 0x1AAF),
    (0x1B00, 0x1BFF), (0x1C00, 0x1C7F), (0x1C80, 0x1CBF), (0x1D00, 0x1DBF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
    (0x2070, 0x209F), (0x2100, 0x218F), (0x2C00, 0x2C7F), (0x2C80, 0x2CFF), (0x2D00, 0x2D7F), (0x2D80, 0x2DDF),
    (0x3040, 0x309F), (0x30A0, 0x30FF), (0x3100, 0x318F), (0x3400, 0x3500), (0x4E00, 0x9FFF), (0xA000, 0xA4FF),
    (0xA500, 0xA63F), (0xA640, 0xA69F), (0xA6A0, 0xA6FF), (0xA720, 0xA7FF), (0xA800, 0xA8FF), (0xA900, 0xA9FF),
    (0xAA00, 0xAAFF), (0xAB30, 0xABFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE70, 0xFEFF),
    (0xFF00, 0xFFEF), (0x10000, 0x100FF), (0x10280, 0x1034F), (0x10380, 0x103DF), (0x10400, 0x104FF),
    (0x10800, 0x108FF), (0x10900, 0x1099F), (0x10A00, 0x10AFF), (0x10C00, 0x10CFF), (0x11000, 0x110CF),
    (0x11100, 0x111FF), (0x11480, 0x114DF), (0x11600, 0x1165F), (0x118A0, 0x118FF), (0x12000, 0x123FF),
    (0x13000, 0x1342F), (0x16800, 0x16A3F), (0x17000, 0x18000), (0x1B000, 0x1B0FF), (0x1D400, 0x1D7FF),
    (0x1E800, 0x1E95F), (0x20000, 0x20200),
]
SPACES = [" ", " ", " ", " ", " ", " ", "  ", "   ", "       ", "\t", "\t\t", " \t ", "\n", "\n\n", " \n", "\n ", "\r\n",
          "\r", "\r\r\n", " \r\n \n", "\u00a0", " \u00a0", "\u0085", "\u1680", "\u2003", "\u2009\u200a", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000", " \u3000 ", "\u180e", "\u200b", "\u200c", "\u200d", "\u2060",
          "\ufeff", "\u000b", "\u000c", "\u001c", "\u001f", "\u00ad", ""]
OTHERS = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea",
          "\U0001f3f3\ufe0f\u200d\U0001f308", "\u2764\ufe0f", "1\ufe0f\u20e3", "\u263a", "\U0001fae8", "\U0001f9d1\U0001f3ff\u200d\U0001f4bb",
          "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "0", "12", "123", "1234", "1234567", "3.14",
          "1,000", "\u00bd", "\u2167", "\u0663\u0664\u0665\u0666", ".", ",", "...", "!?", "!!!!", "---", "\u2014", "\u2026", "//", "/", "/\n",
          "(", ")", "{}", "[]", "'", "''", "\u2019", "'s", "'S", "'ll", "'LL", "'re", "'Ve", "'d", "'T", "'\u017f", "\u2019s", "\"", "\u00ab",
          "\u00bb", "\u3002", "\u3001", "\u300c", "\uff01", "#include", "x_1", "->", "==", "!=", "<|", "|>", "<|eot|>", "<|header_start|>",
          "<|header_end|>", "<|begin_of_text|>", "<|eom|>", "<|eot|", "\\n", "&amp;", "@a.b", "http://", "\u0301", "\u0301\u0302",
          "\u0489", "\u20ac", "$", "\u2212", "\u221e", "\u2192", "\u01c5", "\u02b0", "\ufb01", "\u1e9e", "\ufffd", "\ue000", "\U0010fffd",
          "\x7f", "\x01", "\x1b[0m", "\u202e", "\u2066"]


def block_words(first, last):
    rng = random.Random(first)
    letters = [chr(c) for c in range(first, last + 1) if unicodedata.category(chr(c))[0] in "LMN"]
    return ["".join(rng.choice(letters) for _ in range(rng.randrange(1, 7))) for _ in range(10)]


def words():
    return {"groups": [s.split() for s in SENTENCES] + [block_words(a, b) for a, b in BLOCKS],
            "spaces": SPACES, "others": OTHERS}


class SplitMix:
    """splitmix64, as tests/support has it."""

    def __init__(self, state):
        self.state = state

    def below(self, n):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        return (z ^ z >> 31) % n


def line(w, rng):
    group = w["groups"][rng.below(len(w["groups"]))]
    text = ""
    for _ in range(1 + rng.below(20)):
        kind = rng.below(16)
        if kind < 7:
            part = group
        elif kind < 13:
            part = w["spaces"]
        elif kind < 15:
            part = w["others"]
        else:
            part = w["groups"][rng.below(len(w["groups"]))]
        text += part[rng.below(len(part))]
    return text


def crc(ids):
    return zlib.crc32(b"".join(i.to_bytes(4, "little") for i in ids))


def write_lines(path, tokenizer):
    w, rng = words(), SplitMix(1)
    with open(path, "w", encoding="ascii") as f:
        for _ in range(LINES):
            ids = tokenizer.encode(line(w, rng), add_special_tokens=False).ids
            f.write("%d %08x\n" % (len(ids), crc(ids)))


def main():
    with open(os.path.join(HERE, "many_words.json"), "w", encoding="utf-8") as f:
        json.dump(words(), f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    root = os.path.join(HERE, "..", "..", "..")
    write_lines(os.path.join(HERE, "many_lines.txt"),
                Tokenizer.from_file(os.path.join(root, "examples", "tiny-scout", "tokenizer.json")))


if __name__ == "__main__":
    main()
