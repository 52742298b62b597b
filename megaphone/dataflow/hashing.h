/* hashing.h - from a key to the 64 bits that choose its bin and its place in a table.
 *
 *   hash:   | bin_shift bits: the bin | the rest: place in the bin's table (mix) |
 *
 * fnv       FNV-1a-64 of the eight little-endian bytes of an integer, or of the bytes of a string: the original's, so
 *           that bins and plans can be compared line by line.
 * mix       an invertible finaliser for integers and a word-at-a-time hash for strings: several times faster, and good
 *           in its high bits, which is where the bin is.
 * dense     key << (64 - bin_shift): the bin is the low bits of the key, for arrays indexed by key >> bin_shift.
 *
 * Integers  of 1, 2, 4 or 8 bytes are taken as unsigned and widened with zeros, so that every part of the engine gets
 *           the same hash for the same bits.
 * Units     bin_shift is 1..20.   Progress  every call is wait-free and touches only its arguments.
 * Source    FNV: Fowler, Noll, Vo.  The finaliser's constants: Stafford's mix 13, as in SplitMix64. */
#ifndef MP_DATAFLOW_HASHING_H
#define MP_DATAFLOW_HASHING_H

#include <stdint.h>
#include <string.h>

#define MP_BIN_SHIFT_MAX 20u

__extension__ typedef unsigned __int128 mp_u128;

/* cdef begin */
enum { MP_HASH_FNV = 0, MP_HASH_MIX = 1, MP_HASH_DENSE = 2 };

/* hashes[i] = hash of integer key i; key_bytes is 1, 2, 4 or 8. Returns 0, or -EINVAL for another width or kind. */
int mp_hash_keys(const void *keys, uint32_t key_bytes, uint64_t n, uint32_t kind, uint32_t bin_shift, uint64_t *hashes);

/* hashes[i] = hash of bytes[offsets[i] .. offsets[i + 1]); kind fnv or mix, else -EINVAL. offsets has n + 1 entries. */
int mp_hash_bytes_column(const uint32_t *offsets, const uint8_t *bytes, uint64_t n, uint32_t kind, uint64_t *hashes);

/* hashes[i] = hash of the width bytes at bytes + i * width; kind fnv or mix, else -EINVAL. */
int mp_hash_fixed(const uint8_t *bytes, uint32_t width, uint64_t n, uint32_t kind, uint64_t *hashes);
/* cdef end */

static inline uint32_t mp_bin_of(uint64_t hash, uint32_t bin_shift) { return (uint32_t)(hash >> (64 - bin_shift)); }

static inline uint64_t mp_hash_dense(uint64_t key, uint32_t bin_shift) { return key << (64 - bin_shift); }

/* Invertible, so two integers never share all 64 bits. The added constant keeps 0 from being its own hash. */
static inline uint64_t mp_hash_mix(uint64_t key) {
    uint64_t h = key + 0x9e3779b97f4a7c15ull;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
    return h ^ (h >> 31);
}

#define MP_FNV_BASIS 0xcbf29ce484222325ull
#define MP_FNV_PRIME 0x00000100000001b3ull

static inline uint64_t mp_hash_fnv(uint64_t key) {
    uint64_t h = MP_FNV_BASIS;
    for (int shift = 0; shift < 64; shift += 8) h = (h ^ ((key >> shift) & 0xff)) * MP_FNV_PRIME;
    return h;
}

static inline uint64_t mp_hash_fnv_bytes(const uint8_t *bytes, uint64_t length) {
    uint64_t h = MP_FNV_BASIS;
    for (uint64_t i = 0; i < length; i++) h = (h ^ bytes[i]) * MP_FNV_PRIME;
    return h;
}

static inline uint64_t mp_word_at(const void *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

static inline uint32_t mp_half_at(const void *bytes) {
    uint32_t half;
    memcpy(&half, bytes, 4);
    return half;
}

static inline uint64_t mp_hash_fold(uint64_t a, uint64_t b) {
    mp_u128 product = (mp_u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Eight bytes a step and nothing read outside [bytes, bytes + length). The length is in the seed, so the overlapping
 * loads of the tail are no ambiguity. Never all ones: tables mark an empty row with that. */
static inline uint64_t mp_hash_mix_bytes(const uint8_t *bytes, uint64_t length) {
    uint64_t h = 0x2d358dccaa6c78a5ull ^ (length * 0x9e3779b97f4a7c15ull), word = 0;
    uint64_t left = length;
    for (; left >= 8; left -= 8, bytes += 8) h = mp_hash_fold(h ^ mp_word_at(bytes), 0x8bb84b93962eacc9ull);
    if (left >= 4)
        word = mp_half_at(bytes) | (uint64_t)mp_half_at(bytes + left - 4) << 32;
    else if (left)
        word = bytes[0] | (uint64_t)bytes[left >> 1] << 8 | (uint64_t)bytes[left - 1] << 16;
    h = mp_hash_mix(mp_hash_fold(h ^ word, 0x4b33a62ed433d4a3ull));
    return h - (h == UINT64_MAX);
}

/* Hash of an integer key; `kind` is a constant wherever speed matters, so that the choice is made by the compiler. */
static inline uint64_t mp_hash_key(uint64_t key, uint32_t kind, uint32_t bin_shift) {
    if (kind == MP_HASH_MIX) return mp_hash_mix(key);
    if (kind == MP_HASH_DENSE) return mp_hash_dense(key, bin_shift);
    return mp_hash_fnv(key);
}

static inline uint64_t mp_hash_string(const uint8_t *bytes, uint64_t length, uint32_t kind) {
    return kind == MP_HASH_MIX ? mp_hash_mix_bytes(bytes, length) : mp_hash_fnv_bytes(bytes, length);
}

/* Integer key i of a column of key_bytes wide integers. */
static inline uint64_t mp_key_at(const void *keys, uint32_t key_bytes, uint64_t i) {
    if (key_bytes == 8) return ((const uint64_t *)keys)[i];
    if (key_bytes == 4) return ((const uint32_t *)keys)[i];
    if (key_bytes == 2) return ((const uint16_t *)keys)[i];
    return ((const uint8_t *)keys)[i];
}

#endif
