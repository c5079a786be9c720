/* A score that is a sum of parts, as routers/parts.py has it: those that look at a prompt's vector and its form, in one call. */
#include "objects.h"

typedef struct {
    PyObject_HEAD
    PyObject *reader, *form, *trees; /* as many trees as rows, in a tuple */
    Py_buffer mean, scale; /* of the surface features, then of the form features */
    Py_buffer on_embedding, on_form, bias; /* rows of weights: one, or a second one for prompts that list options */
    size_t rows;
    Py_ssize_t options;
    float few, many; /* between these, the feature `options` tells them */
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

static int add_up(PyObject *object, const Reading *reading, float *vector, double *sum) {
    const Parts *self = (const Parts *)object;
    const float *on_embedding = self->on_embedding.buf, *on_form = self->on_form.buf, *bias = self->bias.buf;
    const size_t width = reader_width(self->reader) - N_SURFACE;
    float *seen = vector + width;
    const float marks = seen[self->options];
    const size_t row = self->rows > 1 && marks > self->few && marks < self->many;
    if (form_of(form_rules(self->form), reading->plain, seen + N_SURFACE)) {
        PyErr_NoMemory();
        return -1;
    }
    standardise(self, seen);
    *sum = dot(on_embedding + row * width, vector, width) + dot(on_form + row * N_SEEN, seen, N_SEEN);
    *sum += trees_add_up(PyTuple_GetItem(self->trees, (Py_ssize_t)row), seen);
    *sum += (double)bias[row];
    return 0;
}

static PyObject *parts_sum(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    return reader_score(((Parts *)object)->reader, given, count, N_FORM, add_up, object);
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
    PyBuffer_Release(&self->bias);
    free_object(object);
}

/* Sets an error unless there are trees for each row, on features that there are. */
static int check_trees(PyObject *trees, Py_ssize_t rows) {
    if (PyTuple_Size(trees) != rows) {
        PyErr_SetString(PyExc_ValueError, "wants trees for each row of weights");
        return -1;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        PyObject *one = PyTuple_GetItem(trees, row);
        if (!is_trees(one)) {
            PyErr_SetString(PyExc_TypeError, "wants Trees");
            return -1;
        }
        if (trees_need(one) > N_SEEN) {
            PyErr_Format(PyExc_ValueError, "wants trees on %d features", N_SEEN);
            return -1;
        }
    }
    return 0;
}

static PyObject *parts_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *reader, *form, *trees, *mean, *scale, *on_embedding, *on_form, *bias;
    Py_ssize_t options;
    float few, many, clip;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "OOOOOOOOnfff", &reader, &form, &trees, &mean, &scale, &on_embedding, &on_form, &bias, &options,
                          &few, &many, &clip))
        return NULL;
    if (!is_reader(reader) || !is_form(form) || !PyTuple_Check(trees)) {
        PyErr_SetString(PyExc_TypeError, "wants a Reader, a Form and a tuple of Trees");
        return NULL;
    }
    if (options < 0 || options >= N_SURFACE) {
        PyErr_Format(PyExc_ValueError, "wants one of %d surface features", N_SURFACE);
        return NULL;
    }
    const Py_ssize_t rows = PyObject_Size(bias);
    if (rows != 1 && rows != 2) {
        if (rows >= 0) PyErr_SetString(PyExc_ValueError, "wants one or two rows of weights");
        return NULL;
    }
    if (check_trees(trees, rows)) return NULL;
    Parts *self = (Parts *)new_object(type);
    if (!self) return NULL;
    self->reader = Py_NewRef(reader);
    self->form = Py_NewRef(form);
    self->trees = Py_NewRef(trees);
    self->rows = (size_t)rows;
    self->options = options;
    self->few = few;
    self->many = many;
    self->clip = clip;
    if (read_row(mean, N_SEEN, &self->mean) || read_row(scale, N_SEEN, &self->scale) || read_row(bias, self->rows, &self->bias) ||
        read_rows(on_form, self->rows, N_SEEN, &self->on_form) ||
        read_rows(on_embedding, self->rows, reader_width(reader) - N_SURFACE, &self->on_embedding)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef parts_methods[] = {
    {"sum", (PyCFunction)(void (*)(void))parts_sum, METH_FASTCALL,
     "sum(text: str, plain: bytes | None, scale: float) -> float\n\n"
     "bias + on_embedding . embedding + on_form . standardised features + what the trees say of these; as Reader.vector takes a "
     "prompt. Where there are two rows of weights and trees, the second is for prompts whose feature `options` is between `few` "
     "and `many`."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot parts_slots[] = {
    {Py_tp_new, (void *)parts_new},
    {Py_tp_dealloc, (void *)parts_free},
    {Py_tp_methods, parts_methods},
    {Py_tp_doc, "Parts(reader, form, trees, mean, scale, on_embedding, on_form, bias, options, few, many, clip)"},
    {0, NULL},
};

PyType_Spec parts_spec = {"routellm.embeddings._scan.Parts", sizeof(Parts), 0, Py_TPFLAGS_DEFAULT, parts_slots};
