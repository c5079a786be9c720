/* The compiled kernel: what reading a prompt costs in Python, done in microseconds.
 *
 *     objects.c                    what the types share
 *     wordpiece.c, rows.c          text -> ids -> the sum of their rows, of length 1 (wordpiece.py, static.py)
 *     surface.c, form.c            the features of surface.py and form.py; features.c makes types of them
 *     reader.c, linear.c           text -> all of these joined, and a score that is linear in them, in one call (linear.py)
 *     trees.c, parts.c             a router's trees, and the sum of its parts (routers/parts.py)
 *     normal.c                     a prompt in one spelling, and whether it says anything again (normal.py, respelling.py)
 *     buckets.c                    counts of words and of their pairs, hashed (words.py)
 *     words.c                      tables of words, and sets of a text's pieces
 *
 * It computes nothing of its own. Each type is given its tables by the Python module that describes what is computed, and its
 * results equal that module's to the bit, which tests hold it to; where the kernel is not there, that module's own code runs.
 * Objects never change once they are made, and no call keeps anything, so that threads may share them. Built for CPython's
 * stable ABI, 3.11 and later.
 */
#include "objects.h"

static PyMethodDef functions[] = {
    {"says_again", (PyCFunction)(void (*)(void))says_again, METH_FASTCALL,
     "says_again(prompt: str, least: int) -> bool\n\nWhether a piece of so many characters comes twice in a prompt of ASCII."},
    {"word_counts", (PyCFunction)(void (*)(void))word_counts, METH_FASTCALL,
     "word_counts(text: bytes, most: int, buckets: int) -> bytearray\n\n"
     "log(1 + count) of each bucket of the first words of a text in small letters, of length 1: an array of float32."},
    {"plain_text", (PyCFunction)(void (*)(void))plain_text, METH_FASTCALL,
     "plain_text(prompt: str, most: int) -> str\n\nThe first so many characters of a prompt of ASCII, in one spelling."},
    {"single_spaces", single_spaces, METH_O,
     "single_spaces(text: str) -> str\n\nThe text with each run of white space of ASCII as one sign, and none at its ends."},
    {"respell", (PyCFunction)(void (*)(void))respell, METH_FASTCALL,
     "respell(text: str, spellings: Mapping[str, str]) -> str | None\n\n"
     "The text with each run of characters beyond ASCII replaced; None where it, or what replaces one, holds a lone surrogate."},
    {NULL, NULL, 0, NULL},
};

static int add_types(PyObject *module) {
    PyType_Spec *specs[] = {&wordpiece_spec, &rows_spec, &surface_spec, &form_spec, &trees_spec, &reader_spec, &linear_spec, &parts_spec};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromSpec(specs[i]);
        int failed = !type || PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
        if (failed) return -1;
    }
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_types},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "routellm.embeddings._scan",
    .m_doc = "Text and tables, read in microseconds.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__scan(void) { return PyModuleDef_Init(&definition); }
