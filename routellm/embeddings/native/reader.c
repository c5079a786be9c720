/* A prompt's vector, as features.py has it: the embedding, then the surface features, read in one call. */
#include "objects.h"

typedef struct {
    PyObject_HEAD
    PyObject *wordpiece, *rows, *surface;
} Reader;

/* -1 with an exception set: then it has no end. */
static int reading_begin(Reading *reading, PyObject *const *given, Py_ssize_t count) {
    Py_ssize_t length;
    *reading = (Reading){.plain = {NULL, 0}};
    if (wants("a prompt", count, 3)) return -1;
    const char *utf8 = PyUnicode_AsUTF8AndSize(given[0], &length);
    if (!utf8 || (given[1] != Py_None && read_bytes(given[1], &reading->plain))) return -1;
    reading->scale = PyFloat_AsDouble(given[2]);
    if (PyErr_Occurred()) return -1;
    if (!reading->plain.at && PyUnicode_GetLength(given[0]) != length) {
        PyErr_SetString(PyExc_ValueError, "a text beyond ASCII has to come with what is counted of it");
        return -1;
    }
    reading->text = (Text){(const unsigned char *)utf8, (size_t)length};
    if (length <= INT32_MAX / (Py_ssize_t)sizeof(Py_ssize_t))
        reading->ids.at = PyMem_Malloc((size_t)length * (sizeof(Py_ssize_t) + 1) + 1);
    if (reading->ids.at) return 0;
    PyErr_NoMemory();
    return -1;
}

static void reading_end(Reading *reading) { PyMem_Free(reading->ids.at); }

size_t reader_width(PyObject *object) { return rows_width(((Reader *)object)->rows) + N_SURFACE; }

static int reader_read(PyObject *object, Reading *reading, float *vector) {
    const Reader *self = (const Reader *)object;
    unsigned char *letters = (unsigned char *)(reading->ids.at + reading->text.length);
    size_t chars = 0;
    wordpiece_read(self->wordpiece, reading->text, letters, &reading->ids);
    if (rows_add_up(self->rows, reading->ids, vector)) return -1;
    if (!reading->plain.at) reading->plain = (Text){letters, spell(reading->text, reading->text.length, letters)};
    for (size_t i = 0; i < reading->plain.length; i++) chars += (reading->plain.at[i] & 0xc0) != 0x80;
    surface_of(surface_rules(self->surface), reading->plain, (double)chars, reading->scale, vector + rows_width(self->rows));
    return 0;
}

PyObject *reader_score(PyObject *reader, PyObject *const *given, Py_ssize_t count, size_t more, Score score, PyObject *self) {
    Reading reading;
    double sum;
    if (reading_begin(&reading, given, count)) return NULL;
    float *vector = PyMem_Malloc((reader_width(reader) + more) * sizeof *vector);
    PyObject *made = NULL;
    if (!vector)
        PyErr_NoMemory();
    else if (!reader_read(reader, &reading, vector) && !score(self, &reading, vector, &sum))
        made = PyFloat_FromDouble(sum);
    PyMem_Free(vector);
    reading_end(&reading);
    return made;
}

static PyObject *reader_vector(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    Reading reading;
    float *vector;
    if (reading_begin(&reading, given, count)) return NULL;
    PyObject *made = new_floats((Py_ssize_t)reader_width(object), &vector);
    if (made && reader_read(object, &reading, vector)) {
        Py_DECREF(made);
        made = NULL;
    }
    reading_end(&reading);
    return made;
}

static void reader_free(PyObject *object) {
    Reader *self = (Reader *)object;
    Py_XDECREF(self->wordpiece);
    Py_XDECREF(self->rows);
    Py_XDECREF(self->surface);
    free_object(object);
}

int is_reader(PyObject *object) { return is_freed_by(object, reader_free); }

static PyObject *reader_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *wordpiece, *rows, *surface;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OOO", &wordpiece, &rows, &surface)) return NULL;
    if (!is_wordpiece(wordpiece) || !is_rows(rows) || !is_surface(surface)) {
        PyErr_SetString(PyExc_TypeError, "wants a WordPiece, Rows and a Surface");
        return NULL;
    }
    Reader *self = (Reader *)new_object(type);
    if (!self) return NULL;
    self->wordpiece = Py_NewRef(wordpiece);
    self->rows = Py_NewRef(rows);
    self->surface = Py_NewRef(surface);
    return (PyObject *)self;
}

static PyMethodDef reader_methods[] = {
    {"vector", (PyCFunction)(void (*)(void))reader_vector, METH_FASTCALL,
     "vector(text: str, plain: bytes | None, scale: float) -> bytearray\n\n"
     "The embedding of `text`, then the surface features of `plain`; None stands for the text itself, of ASCII: an array of "
     "float32."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, (void *)reader_new},
    {Py_tp_dealloc, (void *)reader_free},
    {Py_tp_methods, reader_methods},
    {Py_tp_doc, "Reader(wordpiece, rows, surface)"},
    {0, NULL},
};

PyType_Spec reader_spec = {"routellm.embeddings._scan.Reader", sizeof(Reader), 0, Py_TPFLAGS_DEFAULT, reader_slots};
