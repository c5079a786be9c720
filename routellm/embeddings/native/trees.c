/* Oblivious trees, as routers/parts.py has them: features -> the sum of what each tree answers. */
#include "objects.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    Py_buffer feature, threshold, value;
    size_t depth, count;
    int16_t highest; /* feature */
} Trees;

static float answer(const Trees *self, size_t tree, const float *form) {
    const int16_t *feature = self->feature.buf;
    const float *threshold = self->threshold.buf;
    size_t leaf = 0;
    for (size_t i = tree; i < self->depth * self->count; i += self->count) leaf = 2 * leaf + (form[feature[i]] > threshold[i]);
    return ((const float *)self->value.buf)[(tree << self->depth) + leaf];
}

double trees_add_up(PyObject *object, const float *form) {
    const Trees *self = (const Trees *)object;
    double sum = 0.0;
    for (size_t tree = 0; tree < self->count; tree++) sum += (double)answer(self, tree, form);
    return sum;
}

size_t trees_need(PyObject *object) { return (size_t)(((const Trees *)object)->highest + 1); }

static PyObject *trees_sum(PyObject *object, PyObject *array) {
    const Py_ssize_t need = (Py_ssize_t)(trees_need(object) * sizeof(float));
    Py_buffer form;
    if (read_array(array, 'f', &form)) return NULL;
    PyObject *made = NULL;
    if (form.len < need)
        PyErr_Format(PyExc_IndexError, "wants %zd features", need / (Py_ssize_t)sizeof(float));
    else
        made = PyFloat_FromDouble(trees_add_up(object, form.buf));
    PyBuffer_Release(&form);
    return made;
}

static void trees_free(PyObject *object) {
    Trees *self = (Trees *)object;
    PyBuffer_Release(&self->feature);
    PyBuffer_Release(&self->threshold);
    PyBuffer_Release(&self->value);
    free_object(object);
}

int is_trees(PyObject *object) { return is_freed_by(object, trees_free); }

#define MOST_DEPTH 20

static int check_trees(Trees *self) {
    if (self->feature.ndim != 2 || self->threshold.ndim != 2 || self->value.ndim != 2) return -1;
    if (self->feature.shape[0] > MOST_DEPTH) return -1;
    self->depth = (size_t)self->feature.shape[0];
    self->count = (size_t)self->feature.shape[1];
    if (self->threshold.shape[0] != self->feature.shape[0] || self->threshold.shape[1] != self->feature.shape[1]) return -1;
    if (self->value.shape[0] != self->feature.shape[1] || self->value.shape[1] != (Py_ssize_t)1 << self->depth) return -1;
    self->highest = -1;
    for (size_t i = 0; i < self->depth * self->count; i++) {
        int16_t feature = ((const int16_t *)self->feature.buf)[i];
        if (feature < 0) return -1;
        if (feature > self->highest) self->highest = feature;
    }
    return 0;
}

static PyObject *trees_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *feature, *threshold, *value;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OOO", &feature, &threshold, &value)) return NULL;
    Trees *self = (Trees *)new_object(type);
    if (!self) return NULL;
    if (read_array(feature, 'h', &self->feature) || read_array(threshold, 'f', &self->threshold) ||
        read_array(value, 'f', &self->value)) {
        Py_DECREF(self);
        return NULL;
    }
    if (check_trees(self)) {
        PyErr_SetString(PyExc_ValueError, "wants features and thresholds of (depth, trees), values of (trees, 2**depth)");
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef trees_methods[] = {
    {"sum", trees_sum, METH_O, "sum(form: array of float32) -> float\n\nWhat the trees answer, added up one after another."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot trees_slots[] = {
    {Py_tp_new, (void *)trees_new},
    {Py_tp_dealloc, (void *)trees_free},
    {Py_tp_methods, trees_methods},
    {Py_tp_doc, "Trees(feature, threshold, value)"},
    {0, NULL},
};

PyType_Spec trees_spec = {"routellm.embeddings._scan.Trees", sizeof(Trees), 0, Py_TPFLAGS_DEFAULT, trees_slots};
