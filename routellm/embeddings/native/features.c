/* The types of the features; what they compute is in surface.c and form.c. */
#include "objects.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    SurfaceRules rules;
} Surface;

static PyObject *surface_features(PyObject *object, PyObject *const *given, Py_ssize_t count) {
    Text text;
    float *out;
    if (wants("features", count, 3) || read_bytes(given[0], &text)) return NULL;
    double chars = PyFloat_AsDouble(given[1]), scale = PyFloat_AsDouble(given[2]);
    if (PyErr_Occurred()) return NULL;
    PyObject *made = new_floats(N_SURFACE, &out);
    if (made) surface_of(surface_rules(object), text, chars, scale, out);
    return made;
}

static void surface_free(PyObject *object) {
    words_end(&((Surface *)object)->rules.words);
    free_object(object);
}

int is_surface(PyObject *object) { return is_freed_by(object, surface_free); }

const SurfaceRules *surface_rules(PyObject *object) { return &((const Surface *)object)->rules; }

static int read_full(PyObject *full, int *into) {
    if (PyTuple_Size(full) != N_FAMILIES) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "wants %d families", N_FAMILIES);
        return -1;
    }
    for (int family = 0; family < N_FAMILIES; family++) {
        long most = PyLong_AsLong(PyTuple_GetItem(full, family));
        if (most < 1 || most > 1000) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a family's full number must be from 1 to 1000");
            return -1;
        }
        into[family] = (int)most;
    }
    return 0;
}

static PyObject *surface_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *words, *full, *code_signs, *math_signs;
    Text code, math;
    (void)names;
    Surface *self = (Surface *)new_object(type);
    if (!self) return NULL;
    SurfaceRules *rules = &self->rules;
    if (!PyArg_ParseTuple(arguments, "O!O!SSidid", &PyDict_Type, &words, &PyTuple_Type, &full, &code_signs, &math_signs,
                          &rules->most_items, &rules->log_items, &rules->most_questions, &rules->log_questions) ||
        read_bytes(code_signs, &code) || read_bytes(math_signs, &math) || read_full(full, rules->full) ||
        read_listed_words(words, &rules->words)) {
        Py_DECREF(self);
        return NULL;
    }
    surface_kinds(rules, code, math);
    return (PyObject *)self;
}

static PyMethodDef surface_methods[] = {
    {"features", (PyCFunction)(void (*)(void))surface_features, METH_FASTCALL,
     "features(text: bytes, chars: float, scale: float) -> bytearray\n\nAn array of float32."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot surface_slots[] = {
    {Py_tp_new, (void *)surface_new},
    {Py_tp_dealloc, (void *)surface_free},
    {Py_tp_methods, surface_methods},
    {Py_tp_doc, "Surface(words, full, code, math, most_items, log_items, most_questions, log_questions)"},
    {0, NULL},
};

PyType_Spec surface_spec = {"routellm.embeddings._scan.Surface", sizeof(Surface), 0, Py_TPFLAGS_DEFAULT, surface_slots};

typedef struct {
    PyObject_HEAD
    FormRules rules;
    PyObject *phrases; /* holds the phrases' bytes */
} Form;

static PyObject *form_features(PyObject *object, PyObject *packed) {
    Text text;
    float *out;
    if (read_bytes(packed, &text)) return NULL;
    PyObject *made = new_floats(N_FORM, &out);
    if (made && form_of(form_rules(object), text, out)) {
        Py_DECREF(made);
        return PyErr_NoMemory();
    }
    return made;
}

static void form_free(PyObject *object) {
    Form *self = (Form *)object;
    words_end(&self->rules.words);
    words_end(&self->rules.negations);
    Py_XDECREF(self->phrases);
    free_object(object);
}

int is_form(PyObject *object) { return is_freed_by(object, form_free); }

const FormRules *form_rules(PyObject *object) { return &((const Form *)object)->rules; }

static int read_phrase(FormRules *rules, PyObject *phrase, int group) {
    Text text;
    if (read_bytes(phrase, &text)) return -1;
    if (text.length < 2 || rules->n_phrases == MOST_PHRASES) {
        PyErr_Format(PyExc_ValueError, "takes %d phrases at most, of two bytes at least", MOST_PHRASES);
        return -1;
    }
    rules->first[text.at[0]] |= 1u << rules->n_phrases;
    rules->second[text.at[1]] |= 1u << rules->n_phrases;
    rules->phrases[rules->n_phrases++] = (struct phrase){text, group};
    return 0;
}

static int read_phrases(FormRules *rules, PyObject *groups) {
    if (PyTuple_Size(groups) != N_GROUPS) {
        PyErr_Format(PyExc_ValueError, "wants %d groups of phrases", N_GROUPS);
        return -1;
    }
    for (int group = 0; group < N_GROUPS; group++) {
        PyObject *phrases = PyTuple_GetItem(groups, group);
        Py_ssize_t count = PyTuple_Size(phrases);
        if (count < 0) return -1;
        for (Py_ssize_t i = 0; i < count; i++)
            if (read_phrase(rules, PyTuple_GetItem(phrases, i), group)) return -1;
    }
    return 0;
}

static PyObject *form_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    PyObject *words, *negations, *phrases;
    int long_word;
    (void)names;
    if (!PyArg_ParseTuple(arguments, "O!O!O!i", &PyDict_Type, &words, &PyDict_Type, &negations, &PyTuple_Type, &phrases,
                          &long_word))
        return NULL;
    Form *self = (Form *)new_object(type);
    if (!self) return NULL;
    Py_INCREF(phrases);
    self->phrases = phrases;
    self->rules.long_word = (size_t)long_word;
    if (read_listed_words(words, &self->rules.words) || read_listed_words(negations, &self->rules.negations) ||
        read_phrases(&self->rules, phrases)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef form_methods[] = {
    {"features", form_features, METH_O, "features(text: bytes) -> bytearray\n\nAn array of float32."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot form_slots[] = {
    {Py_tp_new, (void *)form_new},
    {Py_tp_dealloc, (void *)form_free},
    {Py_tp_methods, form_methods},
    {Py_tp_doc, "Form(words, negations, phrases, long_word)"},
    {0, NULL},
};

PyType_Spec form_spec = {"routellm.embeddings._scan.Form", sizeof(Form), 0, Py_TPFLAGS_DEFAULT, form_slots};
