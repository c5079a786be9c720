/* A score that is linear in a prompt's vector, as linear.py has it: from a text to a number, and nothing made on the way. */
#include "objects.h"

typedef struct {
    PyObject_HEAD
    PyObject *reader;
    Py_buffer weights;
} Linear;

/* A product of two floats is exact in a double. They are added up one after another, as linear.py does it. */
double dot(const float *weights, const float *vector, size_t width) {
    double sum = 0.0;
    for (size_t i = 0; i < width; i++) sum += (double)weights[i] * (double)vector[i];
    return sum;
}

static int weigh(PyObject *object, const Reading *reading, float *vector, double *sum) {
    const Linear *self = (const Linear *)object;
    (void)reading;
    *sum = dot(self->weights.buf, vector, reader_width(self->reader));
    return 0;
}

static PyObject *linear_dot(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    return reader_score(((Linear *)object)->reader, given, count, 0, weigh, object);
}

static void linear_free(PyObject *object) {
    Py_XDECREF(((Linear *)object)->reader);
    PyBuffer_Release(&((Linear *)object)->weights);
    free_object(object);
}

static PyObject *linear_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *reader, *weights;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OO", &reader, &weights)) return NULL;
    if (!is_reader(reader)) {
        PyErr_SetString(PyExc_TypeError, "wants a Reader");
        return NULL;
    }
    Linear *self = (Linear *)new_object(type);
    if (!self) return NULL;
    self->reader = Py_NewRef(reader);
    if (read_row(weights, reader_width(reader), &self->weights)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef linear_methods[] = {
    {"dot", (PyCFunction)(void (*)(void))linear_dot, METH_FASTCALL,
     "dot(text: str, plain: bytes | None, scale: float) -> float\n\nweights . Reader.vector(text, plain, scale)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot linear_slots[] = {
    {Py_tp_new, (void *)linear_new},
    {Py_tp_dealloc, (void *)linear_free},
    {Py_tp_methods, linear_methods},
    {Py_tp_doc, "Linear(reader, weights)"},
    {0, NULL},
};

PyType_Spec linear_spec = {"routellm.embeddings._scan.Linear", sizeof(Linear), 0, Py_TPFLAGS_DEFAULT, linear_slots};
