/* A score that is a sum of parts, as routers/parts.py has it: those that look at a prompt's vector and its form, in one call. */
#include "objects.h"

typedef struct {
    PyObject_HEAD
    PyObject *reader, *form, *trees;
    Py_buffer mean, scale; /* of the surface features, then of the form features */
    Py_buffer on_embedding, on_form; /* weights */
    float clip;
} Parts;

#define N_SEEN (N_SURFACE + N_FORM)

/* In these operations, so that the bits are those of parts.py. */
static void standardise(const Parts *self, float *seen) {
    const float *mean = self->mean.buf, *scale = self->scale.buf;
    for (size_t i = 0; i < N_SEEN; i++) {
        seen[i] = (seen[i] - mean[i]) / scale[i];
        if (seen[i] > self->clip) seen[i] = self->clip;
        if (seen[i] < -self->clip) seen[i] = -self->clip;
    }
}

static int add_up(const Parts *self, Reading *reading, float *vector, double *sum) {
    const size_t width = reader_width(self->reader) - N_SURFACE;
    float *seen = vector + width;
    if (reader_read(self->reader, reading, vector)) return -1;
    if (form_of(form_rules(self->form), reading->plain, seen + N_SURFACE)) {
        PyErr_NoMemory();
        return -1;
    }
    standardise(self, seen);
    *sum = dot(self->on_embedding.buf, vector, width) + dot(self->on_form.buf, seen, N_SEEN);
    *sum += trees_add_up(self->trees, seen);
    return 0;
}

static PyObject *parts_sum(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    const Parts *self = (const Parts *)object;
    Reading reading;
    double sum;
    if (reading_begin(&reading, given, count)) return NULL;
    float *vector = PyMem_Malloc((reader_width(self->reader) + N_FORM) * sizeof *vector);
    PyObject *made = NULL;
    if (!vector)
        PyErr_NoMemory();
    else if (!add_up(self, &reading, vector, &sum))
        made = PyFloat_FromDouble(sum);
    PyMem_Free(vector);
    reading_end(&reading);
    return made;
}

static void parts_free(PyObject *object) {
    Parts *self = (Parts *)object;
    Py_XDECREF(self->reader);
    Py_XDECREF(self->form);
    Py_XDECREF(self->trees);
    PyBuffer_Release(&self->mean);
    PyBuffer_Release(&self->scale);
    PyBuffer_Release(&self->on_embedding);
    PyBuffer_Release(&self->on_form);
    free_object(object);
}

static PyObject *parts_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *reader, *form, *trees, *mean, *scale, *on_embedding, *on_form;
    float clip;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OOOOOOOf", &reader, &form, &trees, &mean, &scale, &on_embedding, &on_form, &clip)) return NULL;
    if (!is_reader(reader) || !is_form(form) || !is_trees(trees)) {
        PyErr_SetString(PyExc_TypeError, "wants a Reader, a Form and Trees");
        return NULL;
    }
    if (trees_need(trees) > N_SEEN) {
        PyErr_Format(PyExc_ValueError, "wants trees on %d features", N_SEEN);
        return NULL;
    }
    Parts *self = (Parts *)new_object(type);
    if (!self) return NULL;
    self->reader = Py_NewRef(reader);
    self->form = Py_NewRef(form);
    self->trees = Py_NewRef(trees);
    self->clip = clip;
    if (read_row(mean, N_SEEN, &self->mean) || read_row(scale, N_SEEN, &self->scale) || read_row(on_form, N_SEEN, &self->on_form) ||
        read_row(on_embedding, reader_width(reader) - N_SURFACE, &self->on_embedding)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef parts_methods[] = {
    {"sum", (PyCFunction)(void (*)(void))parts_sum, METH_FASTCALL,
     "sum(text: str, plain: bytes | None, scale: float) -> float\n\n"
     "on_embedding . embedding + on_form . standardised features + what the trees say of these; as Reader.vector takes a prompt."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot parts_slots[] = {
    {Py_tp_new, (void *)parts_new},
    {Py_tp_dealloc, (void *)parts_free},
    {Py_tp_methods, parts_methods},
    {Py_tp_doc, "Parts(reader, form, trees, mean, scale, on_embedding, on_form, clip)"},
    {0, NULL},
};

PyType_Spec parts_spec = {"routellm.embeddings._scan.Parts", sizeof(Parts), 0, Py_TPFLAGS_DEFAULT, parts_slots};
