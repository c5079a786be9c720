/* A score that is linear in a prompt's vector, as linear.py has it: from a text to a number, and nothing made on the way. */
#include "objects.h"

typedef struct {
    PyObject_HEAD
    PyObject *wordpiece, *rows, *surface;
    Py_buffer weights; /* of the embedding's dimensions, then of the surface features */
} Linear;

/* What a call works on, in one piece of memory. */
typedef struct {
    float *vector;
    Ids ids;
    unsigned char *letters;
} Desk;

static int set_desk(Desk *desk, size_t width, size_t bytes) {
    const size_t ids = bytes * sizeof *desk->ids.at, vector = (width + N_SURFACE) * sizeof *desk->vector;
    desk->ids = (Ids){PyMem_Malloc(ids + vector + bytes + 1), 0};
    if (!desk->ids.at) {
        PyErr_NoMemory();
        return -1;
    }
    desk->vector = (float *)(void *)((unsigned char *)desk->ids.at + ids);
    desk->letters = (unsigned char *)desk->vector + vector;
    return 0;
}

/* A product of two floats is exact in a double; added up one after another, as linear.py does. */
static double dot(const float *weights, const float *vector, size_t width) {
    double sum = 0.0;
    for (size_t i = 0; i < width; i++) sum += (double)weights[i] * (double)vector[i];
    return sum;
}

/* `text` is what is cut into tokens, `plain` what is counted; of a text that is NULL there, `text` in one spelling. */
static int score(const Linear *self, Text text, Text plain, double scale, double *sum) {
    const size_t width = rows_width(self->rows);
    Desk desk;
    if (set_desk(&desk, width, text.length)) return -1;
    wordpiece_read(self->wordpiece, text, desk.letters, &desk.ids);
    int failed = rows_add_up(self->rows, desk.ids, desk.vector);
    if (!failed) {
        size_t chars = 0;
        if (!plain.at) plain = (Text){desk.letters, spell(text, text.length, desk.letters)};
        for (size_t i = 0; i < plain.length; i++) chars += (plain.at[i] & 0xc0) != 0x80;
        surface_of(surface_rules(self->surface), plain, (double)chars, scale, desk.vector + width);
        *sum = dot(self->weights.buf, desk.vector, width + N_SURFACE);
    }
    PyMem_Free(desk.ids.at);
    return failed;
}

static PyObject *linear_dot(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    Py_ssize_t length;
    Text plain = {NULL, 0};
    double sum;
    if (wants("dot", count, 3)) return NULL;
    const char *utf8 = PyUnicode_AsUTF8AndSize(given[0], &length);
    const double scale = PyFloat_AsDouble(given[2]);
    if (!utf8 || PyErr_Occurred() || (given[1] != Py_None && read_bytes(given[1], &plain))) return NULL;
    if (!plain.at && PyUnicode_GetLength(given[0]) != length) {
        PyErr_SetString(PyExc_ValueError, "a text beyond ASCII has to come with what is counted of it");
        return NULL;
    }
    if (length > INT32_MAX / (Py_ssize_t)sizeof(Py_ssize_t)) return PyErr_NoMemory();
    if (score((const Linear *)object, (Text){(const unsigned char *)utf8, (size_t)length}, plain, scale, &sum)) return NULL;
    return PyFloat_FromDouble(sum);
}

static void linear_free(PyObject *object) {
    Linear *self = (Linear *)object;
    Py_XDECREF(self->wordpiece);
    Py_XDECREF(self->rows);
    Py_XDECREF(self->surface);
    PyBuffer_Release(&self->weights);
    free_object(object);
}

static int check_linear(const Linear *self) {
    if (!is_wordpiece(self->wordpiece) || !is_rows(self->rows) || !is_surface(self->surface)) {
        PyErr_SetString(PyExc_TypeError, "wants a WordPiece, Rows and a Surface");
        return -1;
    }
    const size_t width = rows_width(self->rows) + N_SURFACE;
    if (self->weights.ndim == 1 && (size_t)self->weights.shape[0] == width) return 0;
    PyErr_Format(PyExc_ValueError, "wants %zu weights in one dimension", width);
    return -1;
}

static PyObject *linear_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *wordpiece, *rows, *surface, *weights;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OOOO", &wordpiece, &rows, &surface, &weights)) return NULL;
    Linear *self = (Linear *)new_object(type);
    if (!self) return NULL;
    Py_INCREF(wordpiece);
    Py_INCREF(rows);
    Py_INCREF(surface);
    self->wordpiece = wordpiece;
    self->rows = rows;
    self->surface = surface;
    if (read_array(weights, 'f', &self->weights) || check_linear(self)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef linear_methods[] = {
    {"dot", (PyCFunction)(void (*)(void))linear_dot, METH_FASTCALL,
     "dot(text: str, plain: bytes | None, scale: float) -> float\n\n"
     "weights . [embedding of the text ; surface features of `plain`]; None stands for the text itself, of ASCII."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot linear_slots[] = {
    {Py_tp_new, (void *)linear_new},
    {Py_tp_dealloc, (void *)linear_free},
    {Py_tp_methods, linear_methods},
    {Py_tp_doc, "Linear(wordpiece, rows, surface, weights)"},
    {0, NULL},
};

PyType_Spec linear_spec = {"routellm.embeddings._scan.Linear", sizeof(Linear), 0, Py_TPFLAGS_DEFAULT, linear_slots};
