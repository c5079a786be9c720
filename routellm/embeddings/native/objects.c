/* How the types are made, and how they read what Python gives them. */
#include "objects.h"

#include <string.h>

PyObject *new_object(PyTypeObject *type) {
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return make(type, 0); /* all zeros */
}

void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

int is_freed_by(PyObject *object, destructor free) {
    return (destructor)PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc) == free;
}

int read_bytes(PyObject *object, Text *text) {
    char *at;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(object, &at, &length)) return -1;
    if (length > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "text of more than 2 GB");
        return -1;
    }
    *text = (Text){(const unsigned char *)at, (size_t)length};
    return 0;
}

int read_words(PyObject *numbers, Text prefix, Words *words) {
    PyObject *key, *value;
    Py_ssize_t place = 0;
    size_t bytes = 0;
    Text word;
    while (PyDict_Next(numbers, &place, &key, &value)) {
        if (read_bytes(key, &word)) return -1;
        bytes += word.length;
    }
    if (words_begin(words, (size_t)PyDict_Size(numbers), bytes)) {
        PyErr_NoMemory();
        return -1;
    }
    for (place = 0; PyDict_Next(numbers, &place, &key, &value);) {
        long number = PyLong_AsLong(value);
        if (number == -1 && PyErr_Occurred()) return -1;
        if (number < 0 || number > INT32_MAX || read_bytes(key, &word)) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a word's number must be from 0 to 2**31 - 1");
            return -1;
        }
        if (word.length < prefix.length || memcmp(word.at, prefix.at, prefix.length)) continue;
        words_add(words, (Text){word.at + prefix.length, word.length - prefix.length}, (int32_t)number);
    }
    return 0;
}

int read_listed_words(PyObject *numbers, Words *words) {
    if (read_words(numbers, (Text){(const unsigned char *)"", 0}, words)) return -1;
    if (words->longest <= MOST_OF_WORD && words->mask < MOST_SLOTS) return 0;
    PyErr_Format(PyExc_ValueError, "takes %d words of %d bytes at most", MOST_SLOTS / 2, MOST_OF_WORD);
    return -1;
}

int read_array(PyObject *array, char kind, Py_buffer *view) {
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)) return -1;
    if (view->format && view->format[0] == kind && !view->format[1]) return 0;
    PyErr_Format(PyExc_TypeError, "wants an array of format '%c', not '%s'", kind, view->format ? view->format : "B");
    PyBuffer_Release(view);
    view->obj = NULL;
    return -1;
}

int read_row(PyObject *array, size_t width, Py_buffer *view) {
    if (read_array(array, 'f', view)) return -1;
    if (view->ndim == 1 && (size_t)view->shape[0] == width) return 0;
    PyErr_Format(PyExc_ValueError, "wants %zu numbers in one dimension", width);
    return -1;
}

int read_rows(PyObject *array, size_t rows, size_t width, Py_buffer *view) {
    if (read_array(array, 'f', view)) return -1;
    if (view->ndim == 2 && (size_t)view->shape[0] == rows && (size_t)view->shape[1] == width) return 0;
    PyErr_Format(PyExc_ValueError, "wants %zu rows of %zu numbers", rows, width);
    return -1;
}

PyObject *new_floats(Py_ssize_t count, float **at) {
    PyObject *made = PyByteArray_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(float));
    if (made) *at = (float *)(void *)PyByteArray_AsString(made);
    return made;
}

int wants(const char *what, Py_ssize_t given, Py_ssize_t wanted) {
    if (given == wanted) return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, %zd were given", what, wanted, given);
    return -1;
}
