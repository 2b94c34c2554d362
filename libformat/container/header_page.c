#include "libformat/container/header_page.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"

void hash128_put(unsigned char out[16], struct sf_hash128 hash)
{
    sf_put_u64(out, hash.low);
    sf_put_u64(out + 8, hash.high);
}

struct sf_hash128 hash128_get(const unsigned char in[16])
{
    return (struct sf_hash128){.low = sf_get_u64(in), .high = sf_get_u64(in + 8)};
}

static struct sf_hash128 page_hash(const unsigned char page[HEADER_BYTES])
{
    unsigned char copy[HEADER_BYTES];
    memcpy(copy, page, sizeof copy);
    memset(copy + HEADER_HASH, 0, 16);
    return sf_hash128(copy, sizeof copy);
}

const char *section_format(char text[32], uint32_t type)
{
    static const char *const names[] = {
        [SECTION_PAYLOAD] = "payload", [SECTION_CHECKSUMS] = "checksums",
        [SECTION_INDEX] = "index",     [SECTION_METADATA] = "metadata",
        [SECTION_SHA256] = "sha-256",  [SECTION_SIGNATURE] = "signature"};
    if (type >= SECTION_PAYLOAD && type <= SECTION_SIGNATURE)
        snprintf(text, 32, "%s", names[type]);
    else
        snprintf(text, 32, "section type %u", type);
    return text;
}

void header_encode(unsigned char page[HEADER_BYTES], const struct header_page *header)
{
    assert(header->sections <= HEADER_SECTIONS_MAX);
    memset(page, 0, HEADER_BYTES);
    memcpy(page + HEADER_MAGIC, LAYOUT_MAGIC, 8);
    sf_put_u32(page + HEADER_MAJOR, header->major);
    sf_put_u32(page + HEADER_MINOR, header->minor);
    sf_put_u64(page + HEADER_INCOMPATIBLE, header->incompatible);
    sf_put_u64(page + HEADER_COMPATIBLE, header->compatible);
    sf_put_u64(page + HEADER_FILE_BYTES, header->file_bytes);
    page[HEADER_EXTENT_LOG2] = (unsigned char)header->extent_log2;
    page[HEADER_CHUNK_LOG2] = (unsigned char)header->chunk_log2;
    sf_put_u32(page + HEADER_SECTIONS, (uint32_t)header->sections);
    hash128_put(page + HEADER_IDENTITY, header->identity);
    sf_put_u32(page + HEADER_FILE, header->file);
    sf_put_u32(page + HEADER_FILES, header->files);
    for (int i = 0; i < header->sections; i++) {
        unsigned char *at = page + HEADER_TABLE + i * SECTION_BYTES;
        sf_put_u32(at + SECTION_TYPE, header->section[i].type);
        sf_put_u64(at + SECTION_OFFSET, header->section[i].offset);
        sf_put_u64(at + SECTION_SIZE, header->section[i].bytes);
        hash128_put(at + SECTION_HASH, header->section[i].hash);
    }
    hash128_put(page + HEADER_HASH, page_hash(page));
}

static bool all_zero(const unsigned char *data, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        if (data[i])
            return false;
    return true;
}

/* Magic, size and hash are where they are in every version, so they come before the version. */
static int check_frozen(const unsigned char *page, uint64_t file_bytes, struct sf_err *err)
{
    static const char lfs[] = "version https://git-lfs";
    if (file_bytes >= sizeof lfs - 1 && memcmp(page, lfs, sizeof lfs - 1) == 0)
        return sf_fail(err, SF_EFORMAT, "header: a Git-LFS pointer, not the file it stands for");
    if (file_bytes < HEADER_BYTES)
        return sf_fail(err, SF_EFORMAT, "header: the file has %llu bytes, the header page %d",
                       (unsigned long long)file_bytes, HEADER_BYTES);
    if (all_zero(page, HEADER_BYTES))
        return sf_fail(err, SF_EFORMAT, "header: all zero: the file was never finished");
    if (memcmp(page + HEADER_MAGIC, LAYOUT_MAGIC, 8) != 0)
        return sf_fail(err, SF_EFORMAT, "header: wrong magic: not a .scout container");
    struct sf_hash128 want = hash128_get(page + HEADER_HASH), got = page_hash(page);
    if (want.low != got.low || want.high != got.high)
        return sf_fail(err, SF_EDAMAGED,
                       "header: hash mismatch: stored %016llx%016llx, computed %016llx%016llx",
                       (unsigned long long)want.high, (unsigned long long)want.low,
                       (unsigned long long)got.high, (unsigned long long)got.low);
    uint64_t native;
    memcpy(&native, page, sizeof native);
    if (native != sf_get_u64(page))
        return sf_fail(err, SF_EUNSUPPORTED,
                       "header: containers are little-endian, this machine is not");
    return SF_OK;
}

static int check_version(const struct header_page *header, struct sf_err *err)
{
    if (header->major != LAYOUT_MAJOR)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "header: format version %u.%u, this program reads %d.x", header->major,
                       header->minor, LAYOUT_MAJOR);
    if (header->incompatible & ~(uint64_t)FEATURE_FILES)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "header: needs incompatible features 0x%llx, this program knows 0x%x",
                       (unsigned long long)header->incompatible, (unsigned)FEATURE_FILES);
    return SF_OK;
}

static int check_fields(const struct header_page *header, const unsigned char *page,
                        uint64_t file_bytes, struct sf_err *err)
{
    int logs[2] = {header->extent_log2, header->chunk_log2};
    for (int i = 0; i < 2; i++)
        if (logs[i] < LAYOUT_LOG2_MIN || logs[i] > LAYOUT_LOG2_MAX)
            return sf_fail(err, SF_EFORMAT, "header: %s 2^%d, not within 2^%d..2^%d",
                           i ? "chunk size" : "extent alignment", logs[i], LAYOUT_LOG2_MIN,
                           LAYOUT_LOG2_MAX);
    if (header->file_bytes != file_bytes)
        return sf_fail(err, SF_EFORMAT,
                       "header: the file has %llu bytes, its header says %llu (%s)",
                       (unsigned long long)file_bytes, (unsigned long long)header->file_bytes,
                       file_bytes < header->file_bytes ? "truncated" : "something follows the end");
    uint64_t table_end = HEADER_TABLE + (uint64_t)header->sections * SECTION_BYTES;
    if (!all_zero(page + HEADER_ZERO_1, 2) ||
        !all_zero(page + HEADER_ZERO_2, HEADER_TABLE - HEADER_ZERO_2) ||
        !all_zero(page + table_end, HEADER_BYTES - table_end))
        return sf_fail(err, SF_EFORMAT, "header: bytes that must be zero are not");
    bool several = header->incompatible & FEATURE_FILES;
    if (several ? header->files < 2 || header->file < 1 || header->file > header->files
                : header->file != 0 || header->files != 0)
        return sf_fail(err, SF_EFORMAT, "header: file %u of %u, %s", header->file, header->files,
                       several ? "in a set" : "where all is in one");
    return SF_OK;
}

/* Which sections there must be: everything in one file; in a set, of the first all but the payload,
 * of the others nothing but that. */
static int check_presence(const struct header_page *header, struct sf_err *err)
{
    char name[32];
    for (uint32_t type = SECTION_PAYLOAD; type <= SECTION_METADATA; type++) {
        bool payload = type == SECTION_PAYLOAD, have = header_find(header, type) != NULL;
        bool want = header->files == 0 || payload == (header->file > 1);
        if (have != want)
            return sf_fail(err, SF_EFORMAT, "header: %s %s section", have ? "a" : "no",
                           section_format(name, type));
    }
    if (header->file != 1 && header->section[0].type != SECTION_PAYLOAD)
        return sf_fail(err, SF_EFORMAT, "header: the payload is not the first section");
    if (header->file > 1 && header->sections != 1)
        return sf_fail(err, SF_EFORMAT, "header: %d sections, file %u of a set has its payload",
                       header->sections, header->file);
    return SF_OK;
}

/* Sections follow each other without gap or overlap from the header page to the end of the file. */
static int check_sections(const struct header_page *header, struct sf_err *err)
{
    uint64_t at = HEADER_BYTES;
    char name[32];
    for (int i = 0; i < header->sections; i++) {
        const struct header_section *s = &header->section[i];
        section_format(name, s->type);
        if (s->offset != at)
            return sf_fail(err, SF_EFORMAT,
                           "header: %s begins at %llu, the section before ends at %llu", name,
                           (unsigned long long)s->offset, (unsigned long long)at);
        if (s->bytes == 0 || s->bytes % 8 != 0 || !sf_add(&at, at, s->bytes) ||
            at > header->file_bytes)
            return sf_fail(err, SF_EFORMAT, "header: %s at %llu has %llu bytes, the file %llu",
                           name, (unsigned long long)s->offset, (unsigned long long)s->bytes,
                           (unsigned long long)header->file_bytes);
        if (header_find(header, s->type) != s)
            return sf_fail(err, SF_EFORMAT, "header: %s stands twice", name);
        if (s->type == SECTION_PAYLOAD && (s->hash.low || s->hash.high))
            return sf_fail(err, SF_EFORMAT, "header: the payload's hash field is not zero");
    }
    if (at != header->file_bytes)
        return sf_fail(err, SF_EFORMAT, "header: sections end at %llu, the file at %llu",
                       (unsigned long long)at, (unsigned long long)header->file_bytes);
    return check_presence(header, err);
}

int header_decode(struct header_page *out, const unsigned char *file, uint64_t file_bytes,
                  struct sf_err *err)
{
    *out = (struct header_page){0};
    int code = check_frozen(file, file_bytes, err);
    if (code != SF_OK)
        return code;
    out->major = sf_get_u32(file + HEADER_MAJOR);
    out->minor = sf_get_u32(file + HEADER_MINOR);
    out->incompatible = sf_get_u64(file + HEADER_INCOMPATIBLE);
    out->compatible = sf_get_u64(file + HEADER_COMPATIBLE);
    out->file_bytes = sf_get_u64(file + HEADER_FILE_BYTES);
    out->extent_log2 = file[HEADER_EXTENT_LOG2];
    out->chunk_log2 = file[HEADER_CHUNK_LOG2];
    out->identity = hash128_get(file + HEADER_IDENTITY);
    out->file = sf_get_u32(file + HEADER_FILE);
    out->files = sf_get_u32(file + HEADER_FILES);
    if ((code = check_version(out, err)) != SF_OK)
        return code;
    uint32_t sections = sf_get_u32(file + HEADER_SECTIONS);
    if (sections > HEADER_SECTIONS_MAX)
        return sf_fail(err, SF_EFORMAT, "header: %u sections, at most %d are allowed", sections,
                       HEADER_SECTIONS_MAX);
    out->sections = (int)sections;
    for (int i = 0; i < out->sections; i++) {
        const unsigned char *at = file + HEADER_TABLE + i * SECTION_BYTES;
        if (sf_get_u32(at + SECTION_ZERO) != 0)
            return sf_fail(err, SF_EFORMAT, "header: bytes that must be zero are not");
        out->section[i] = (struct header_section){.type = sf_get_u32(at + SECTION_TYPE),
                                                  .offset = sf_get_u64(at + SECTION_OFFSET),
                                                  .bytes = sf_get_u64(at + SECTION_SIZE),
                                                  .hash = hash128_get(at + SECTION_HASH)};
    }
    if ((code = check_fields(out, file, file_bytes, err)) != SF_OK)
        return code;
    return check_sections(out, err);
}

struct header_section header_payload(const struct header_page *header)
{
    const struct header_section *s = header_find(header, SECTION_PAYLOAD);
    return s ? *s : (struct header_section){.type = SECTION_PAYLOAD, .offset = HEADER_BYTES};
}

const struct header_section *header_find(const struct header_page *header, uint32_t type)
{
    for (int i = 0; i < header->sections; i++)
        if (header->section[i].type == type)
            return &header->section[i];
    return NULL;
}
