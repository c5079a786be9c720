/* A table of rows, as static.py has it: ids -> the sum of their rows, of length 1. */
#include "objects.h"

#include <math.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    Py_buffer rows, shifts, scales;
    size_t count, width;
} Rows;

#define MOST_SHIFT 4
#define AHEAD 4          /* rows that are asked for before their turn */
#define LINE 64          /* bytes that come from memory at once */
#define MOST_TOGETHER 16 /* rows: 16 * (128 << MOST_SHIFT) just fits 16 bits */

static const int8_t *row_of(const Rows *self, Py_ssize_t id) { return (const int8_t *)self->rows.buf + (size_t)id * self->width; }

static void ask_for(const Rows *self, Py_ssize_t id) {
    const int8_t *row = row_of(self, id);
    for (size_t column = 0; column < self->width; column += LINE) SOON(row + column);
    SOON((const uint8_t *)self->shifts.buf + id);
}

/* Small sums in 16 bits, of which a processor adds many at a time, and their sum in 32. */
WIDE static void add_rows(const Rows *self, const Py_ssize_t *ids, size_t count, int16_t *together, int32_t *sums) {
    const size_t width = self->width;
    for (size_t i = 0; i < count && i < AHEAD; i++) ask_for(self, ids[i]);
    for (size_t begin = 0; begin < count; begin += MOST_TOGETHER) {
        memset(together, 0, width * sizeof *together);
        for (size_t i = begin; i < count && i < begin + MOST_TOGETHER; i++) {
            const int8_t *row = row_of(self, ids[i]);
            if (i + AHEAD < count) ask_for(self, ids[i + AHEAD]);
            const int factor = 1 << ((const uint8_t *)self->shifts.buf)[ids[i]];
            for (size_t column = 0; column < width; column++)
                together[column] = (int16_t)(together[column] + row[column] * factor);
        }
        for (size_t column = 0; column < width; column++) sums[column] += together[column];
    }
}

/* In this order of operations, so that the bits are those of static.py. */
static void to_length_1(const Rows *self, const int32_t *sums, float *out) {
    const float *scales = self->scales.buf;
    double square = 0.0;
    for (size_t column = 0; column < self->width; column++) {
        out[column] = (float)sums[column] * scales[column];
        square += (double)out[column] * (double)out[column];
    }
    const float length = (float)sqrt(square);
    if (length > 0.0f)
        for (size_t column = 0; column < self->width; column++) out[column] /= length;
}

size_t rows_width(PyObject *object) { return ((const Rows *)object)->width; }

int rows_add_up(PyObject *object, Ids ids, float *out) {
    const Rows *self = (const Rows *)object;
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.at[i] >= 0 && (size_t)ids.at[i] < self->count) continue;
        PyErr_Format(PyExc_IndexError, "token %zd of %zu", ids.at[i], self->count);
        return -1;
    }
    int32_t *sums = PyMem_Calloc(self->width + 1, sizeof *sums + sizeof(int16_t));
    if (!sums) {
        PyErr_NoMemory();
        return -1;
    }
    add_rows(self, ids.at, ids.count, (int16_t *)(sums + self->width + 1), sums);
    to_length_1(self, sums, out);
    PyMem_Free(sums);
    return 0;
}

static PyObject *rows_embed(PyObject *object, PyObject *packed) {
    Text bytes;
    float *out;
    if (read_bytes(packed, &bytes)) return NULL;
    PyObject *made = new_floats((Py_ssize_t)rows_width(object), &out);
    if (made && rows_add_up(object, (Ids){(Py_ssize_t *)(void *)bytes.at, bytes.length / sizeof(Py_ssize_t)}, out)) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

static void rows_free(PyObject *object) {
    PyBuffer_Release(&((Rows *)object)->rows);
    PyBuffer_Release(&((Rows *)object)->shifts);
    PyBuffer_Release(&((Rows *)object)->scales);
    free_object(object);
}

int is_rows(PyObject *object) { return is_freed_by(object, rows_free); }

static int check_rows(Rows *self) {
    const uint8_t *shifts = self->shifts.buf;
    if (self->rows.ndim != 2 || self->shifts.ndim != 1 || self->shifts.shape[0] != self->rows.shape[0]) return -1;
    if (self->scales.ndim != 1 || self->scales.shape[0] != self->rows.shape[1]) return -1;
    self->count = (size_t)self->rows.shape[0];
    self->width = (size_t)self->rows.shape[1];
    for (size_t i = 0; i < self->count; i++)
        if (shifts[i] > MOST_SHIFT) return -1;
    return 0;
}

static PyObject *rows_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *rows, *shifts, *scales;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OOO", &rows, &shifts, &scales)) return NULL;
    Rows *self = (Rows *)new_object(type);
    if (!self) return NULL;
    if (read_array(rows, 'b', &self->rows) || read_array(shifts, 'B', &self->shifts) || read_array(scales, 'f', &self->scales)) {
        Py_DECREF(self);
        return NULL;
    }
    if (check_rows(self)) {
        PyErr_Format(PyExc_ValueError, "wants rows of shape (n, width), n shifts from 0 to %d and as many scales as columns", MOST_SHIFT);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef rows_methods[] = {
    {"embed", rows_embed, METH_O,
     "embed(ids: bytes) -> bytearray\n\nrows[id] * 2**shifts[id] * scales added up, of length 1: an array of float32."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot rows_slots[] = {
    {Py_tp_new, (void *)rows_new},
    {Py_tp_dealloc, (void *)rows_free},
    {Py_tp_methods, rows_methods},
    {Py_tp_doc, "Rows(rows, shifts, scales)"},
    {0, NULL},
};

PyType_Spec rows_spec = {"routellm.embeddings._scan.Rows", sizeof(Rows), 0, Py_TPFLAGS_DEFAULT, rows_slots};
