/* Counts of words and of pairs of neighbouring words, hashed into buckets, as words.py has them. */
#include "objects.h"

#include <math.h>
#include <string.h>

/* zlib's checksum, which goes on from the one before: four bits at a time, since a larger table is not in the caches. */
static uint32_t checksum(uint32_t sum, Text text) {
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    sum = ~sum;
    for (size_t i = 0; i < text.length; i++) {
        sum ^= text.at[i];
        sum = sum >> 4 ^ table[sum & 15];
        sum = sum >> 4 ^ table[sum & 15];
    }
    return ~sum;
}

static int in_word(unsigned char byte) { return is_small(byte) || is_digit(byte) || byte >= 0x80; }

/* The next word or sign from `place` on: its end; white space goes before it. 0 where there is none. */
static size_t next_word(Text text, size_t *place) {
    while (*place < text.length && is_space(text.at[*place])) ++*place;
    if (*place == text.length) return 0;
    size_t end = *place + 1;
    if (in_word(text.at[*place]))
        while (end < text.length && in_word(text.at[end])) end++;
    return end;
}

static void count(Text text, size_t most, size_t buckets, float *counts) {
    uint32_t before = 0;
    size_t place = 0, end;
    for (size_t number = 0; number < most && (end = next_word(text, &place)); number++, place = end) {
        const Text word = {text.at + place, end - place};
        if (number) counts[checksum(before, word) % buckets] += 1.0f;
        before = checksum(0, word);
        counts[before % buckets] += 1.0f;
    }
}

/* In these operations, so that the bits are those of words.py. */
static void to_length_1(size_t buckets, float *counts) {
    double square = 0.0;
    for (size_t i = 0; i < buckets; i++) {
        if (counts[i] > 0.0f) counts[i] = (float)log1p((double)counts[i]);
        square += (double)counts[i] * (double)counts[i];
    }
    const float length = (float)sqrt(square);
    for (size_t i = 0; length > 0.0f && i < buckets; i++) counts[i] /= length;
}

PyObject *word_counts(PyObject *module, PyObject *const *given, Py_ssize_t count_of) {
    Text text;
    float *counts;
    (void)module;
    if (wants("word_counts", count_of, 3) || read_bytes(given[0], &text)) return NULL;
    long most = PyLong_AsLong(given[1]), buckets = PyLong_AsLong(given[2]);
    if (PyErr_Occurred()) return NULL;
    if (most < 0 || buckets < 1 || buckets > 1 << 24) {
        PyErr_SetString(PyExc_ValueError, "wants at least 0 words, and 1 to 2**24 buckets");
        return NULL;
    }
    PyObject *made = new_floats((Py_ssize_t)buckets, &counts);
    if (!made) return NULL;
    memset(counts, 0, (size_t)buckets * sizeof *counts);
    count(text, (size_t)most, (size_t)buckets, counts);
    to_length_1((size_t)buckets, counts);
    return made;
}
