#include "libformat/hf/sha256.h"

#include <openssl/evp.h>
#include <string.h>

#include "libformat/base/file.h"

struct hashing {
    EVP_MD_CTX *state;
    bool (*go_on)(void *context);
    void *context;
};

static int take(void *context, const void *data, uint64_t bytes, struct sf_err *err)
{
    const struct hashing *h = context;
    if (h->go_on && !h->go_on(h->context))
        return sf_fail(err, SF_EINTERRUPTED, "interrupted");
    if (EVP_DigestUpdate(h->state, data, bytes) != 1)
        return sf_fail(err, SF_ENOMEM, "libcrypto gives no SHA-256");
    return SF_OK;
}

static void write_hex(char *out, const unsigned char digest[32])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[64] = 0;
}

int sf_sha256_file(char *out, const char *path, bool (*go_on)(void *context), void *context,
                   struct sf_err *err)
{
    unsigned char digest[32];
    struct hashing h = {EVP_MD_CTX_new(), go_on, context};
    int code = SF_OK;
    if (!h.state || EVP_DigestInit_ex(h.state, EVP_sha256(), NULL) != 1)
        code = sf_fail(err, SF_ENOMEM, "libcrypto gives no SHA-256");
    if (code == SF_OK)
        code = sf_file_scan(path, take, &h, err);
    if (code == SF_OK && EVP_DigestFinal_ex(h.state, digest, NULL) != 1)
        code = sf_fail(err, SF_ENOMEM, "libcrypto gives no SHA-256");
    EVP_MD_CTX_free(h.state);
    if (code == SF_OK)
        write_hex(out, digest);
    return code;
}

bool sf_sha256_parse(char *out, const char *text)
{
    for (int i = 0; i < 64; i++) {
        char c = text[i];
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        if (!c || !strchr("0123456789abcdef", c))
            return false;
        out[i] = c;
    }
    out[64] = 0;
    return !text[64] || !strchr("0123456789abcdefABCDEF", text[64]);
}
