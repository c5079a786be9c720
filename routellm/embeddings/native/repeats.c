/* Whether a prompt of ASCII says a sentence or a line again, as normal.py splits it. */
#include "objects.h"

#include <string.h>

/* What `str.isspace` takes for white space in ASCII. */
static int is_string_space(unsigned char byte) { return is_space(byte) || (byte >= 0x1c && byte <= 0x1f); }

/* The end of a piece that begins at `place`: white space after a sentence, or the end of a line. */
static size_t piece_end(Text text, size_t place) {
    for (; place < text.length; place++) {
        if (text.at[place] == '\n') break;
        if (place && is_string_space(text.at[place]) && memchr(".?!", text.at[place - 1], 3)) break;
    }
    return place;
}

static int any_repeat(Text text, size_t least, Pieces *seen) {
    for (size_t place = 0, end; place < text.length; place = end + 1) {
        size_t begin = place, stop;
        end = stop = piece_end(text, place);
        while (begin < stop && is_string_space(text.at[begin])) begin++;
        while (begin < stop && is_string_space(text.at[stop - 1])) stop--;
        if (stop - begin < least) continue;
        uint32_t hash = HASH_START;
        for (size_t i = begin; i < stop; i++) hash = hash_on(hash, text.at[i]);
        if (!pieces_add(seen, begin, stop, hash)) return 1;
    }
    return 0;
}

PyObject *says_again(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    Py_ssize_t length;
    Pieces seen;
    (void)module;
    if (wants("says_again", count, 2)) return NULL;
    const char *utf8 = PyUnicode_AsUTF8AndSize(given[0], &length);
    long least = PyLong_AsLong(given[1]);
    if (!utf8 || (least == -1 && PyErr_Occurred())) return NULL;
    if (least < 1 || length > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "wants at least 1 character for a piece, and 2 GB at most");
        return NULL;
    }
    Text text = {(const unsigned char *)utf8, (size_t)length};
    if (pieces_begin(&seen, text, text.length / (size_t)least + 1, 0)) return PyErr_NoMemory();
    int again = any_repeat(text, (size_t)least, &seen);
    pieces_end(&seen);
    return PyBool_FromLong(again);
}
