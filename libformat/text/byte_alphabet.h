/* byte_alphabet.h -- the printable character that stands for each byte in a byte-level vocabulary.
 *
 * Bytes that are printable in Latin-1 stand for themselves; the others take U+0100, U+0101, ... in
 * order of byte (so a space is U+0120). The convention began with GPT-2. */
#ifndef SCOUT_LIBFORMAT_TEXT_BYTE_ALPHABET_H
#define SCOUT_LIBFORMAT_TEXT_BYTE_ALPHABET_H

#include <stdint.h>

/* Writes the 1 or 2 bytes of UTF-8 for `byte`; returns how many. */
int sf_byte_to_char(char out[2], unsigned char byte);
/* The byte that a code point stands for, -1 if it stands for none. */
int sf_char_to_byte(uint32_t code_point);

#endif
