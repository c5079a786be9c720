/* A prompt in one spelling, and whether it says a sentence or a line again, as normal.py has both. */
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

static int is_upper(Text text) {
    int upper = 0;
    for (size_t i = 0; i < text.length; i++) {
        if (text.at[i] >= 'a' && text.at[i] <= 'z') return 0;
        upper |= text.at[i] >= 'A' && text.at[i] <= 'Z';
    }
    return upper;
}

/* The text with each run of white space as one sign, in `out`, which has room for it: how long it is. */
static size_t with_single_spaces(Text text, int lower, unsigned char *out) {
    size_t length = 0;
    unsigned char space = 0; /* what stands for the white space before this place */
    for (size_t i = 0; i < text.length; i++) {
        unsigned char byte = text.at[i];
        if (is_string_space(byte)) {
            if (byte == '\n' || byte == '\r')
                space = '\n';
            else if (!space)
                space = ' ';
            continue;
        }
        if (space && length) out[length++] = space;
        space = 0;
        out[length++] = lower && byte >= 'A' && byte <= 'Z' ? (unsigned char)(byte + 32) : byte;
    }
    return length;
}

size_t spell(Text text, size_t most, unsigned char *out) {
    while (text.length && is_string_space(*text.at)) text.at++, text.length--;
    if (text.length > most) text.length = most;
    return with_single_spaces(text, is_upper(text), out);
}

PyObject *plain_text(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    Py_ssize_t size;
    (void)module;
    if (wants("plain_text", count, 2)) return NULL;
    const char *utf8 = PyUnicode_AsUTF8AndSize(given[0], &size);
    const long most = PyLong_AsLong(given[1]);
    if (!utf8 || (most == -1 && PyErr_Occurred())) return NULL;
    if (most < 0) {
        PyErr_SetString(PyExc_ValueError, "wants 0 characters at least");
        return NULL;
    }
    Text text = {(const unsigned char *)utf8, (size_t)size};
    unsigned char *out = PyMem_Malloc(text.length + 1);
    if (!out) return PyErr_NoMemory();
    PyObject *made = PyUnicode_FromStringAndSize((const char *)out, (Py_ssize_t)spell(text, (size_t)most, out));
    PyMem_Free(out);
    return made;
}

PyObject *single_spaces(PyObject *module, PyObject *string) {
    Py_ssize_t size;
    (void)module;
    const char *utf8 = PyUnicode_AsUTF8AndSize(string, &size);
    if (!utf8) return NULL;
    unsigned char *out = PyMem_Malloc((size_t)size + 1);
    if (!out) return PyErr_NoMemory();
    size_t length = with_single_spaces((Text){(const unsigned char *)utf8, (size_t)size}, 0, out);
    PyObject *made = PyUnicode_FromStringAndSize((const char *)out, (Py_ssize_t)length);
    PyMem_Free(out);
    return made;
}

/* ---- runs of characters beyond ASCII, as respelling.py has them ---- */

typedef struct {
    char *at;
    size_t length, room;
} Growing;

static int grow(Growing *out, const void *bytes, size_t length) {
    if (!length) return 0;
    if (out->length + length > out->room) {
        size_t room = 2 * (out->length + length);
        char *at = PyMem_Realloc(out->at, room);
        if (!at) {
            PyErr_NoMemory();
            return -1;
        }
        out->at = at;
        out->room = room;
    }
    memcpy(out->at + out->length, bytes, length);
    out->length += length;
    return 0;
}

static int grow_by_spelling(Growing *out, PyObject *spellings, Text run) {
    Py_ssize_t length;
    const char *utf8 = NULL;
    PyObject *key = PyUnicode_FromStringAndSize((const char *)run.at, (Py_ssize_t)run.length);
    PyObject *value = key ? PyObject_GetItem(spellings, key) : NULL;
    if (value) utf8 = PyUnicode_AsUTF8AndSize(value, &length);
    int failed = !utf8 || grow(out, utf8, (size_t)length);
    Py_XDECREF(value);
    Py_XDECREF(key);
    return failed ? -1 : 0;
}

static int grow_by_all(Growing *out, PyObject *spellings, Text text) {
    for (size_t place = 0, begin; place < text.length;) {
        for (begin = place; place < text.length && text.at[place] < 0x80;) place++;
        if (grow(out, text.at + begin, place - begin)) return -1;
        for (begin = place; place < text.length && text.at[place] >= 0x80;) place++;
        if (place > begin && grow_by_spelling(out, spellings, (Text){text.at + begin, place - begin})) return -1;
    }
    return 0;
}

PyObject *respell(PyObject *module, PyObject *const *given, Py_ssize_t count) {
    Py_ssize_t size;
    Growing out = {NULL, 0, 0};
    PyObject *made = NULL;
    (void)module;
    if (wants("respell", count, 2)) return NULL;
    const char *utf8 = PyUnicode_AsUTF8AndSize(given[0], &size);
    if (utf8 && !grow_by_all(&out, given[1], (Text){(const unsigned char *)utf8, (size_t)size}))
        made = PyUnicode_FromStringAndSize(out.at ? out.at : "", (Py_ssize_t)out.length);
    PyMem_Free(out.at);
    if (made || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return made;
    PyErr_Clear();
    Py_RETURN_NONE;
}
